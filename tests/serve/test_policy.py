"""The served policy is the one that was evaluated: its parameters, its numbers, its units."""

import contextlib
import functools
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors, trees
from como_jax.data import policy_upgrade, statistics
from como_jax.inference import policy_evaluator
from como_jax.observations import IMAGE, STATE, TASK
from como_jax.serve import policy as serving
from como_jax.serve import policy_checkpoint
from como_jax.train import rng
from tests.data import flat
from tests.models.policy import small

# As the model is written: XLA may otherwise leave out the very rounding that is looked at here.
exact = functools.partial(
  jax.jit,
  compiler_options={"xla_backend_optimization_level": 0, "xla_allow_excess_precision": False},
)
DENOISER = {"gpt.denoiser": {"width": 16, "depth": 1}, "gpt.objective": "flow"}
CASES = {
  "dit": (small.DIT, {}),
  "gpt": (small.GPT, {"gpt.motion_head": "gmm"}),
  "gpt-action-diffusion": (
    small.GPT,
    {"gpt.action_head": "diffusion", "gpt.inference": "hidden", **DENOISER},
  ),
  "gpt-motion-diffusion": (small.GPT, {"gpt.motion_head": "diffusion", **DENOISER}),
}


@pytest.mark.parametrize("name", CASES)
def test_matrices_are_kept_in_the_dtype_of_their_products(name):
  """In bfloat16 the same bits come out, for layers that compute in float32 too, and what can be
  small is small.
  """
  base, changes = CASES[name]
  model, params = small.made(base, dtype="bfloat16", **changes)
  lean = policy_checkpoint.cast_kernels(params, "bfloat16")
  types = {path: str(leaf.dtype) for path, leaf in trees.flatten(lean).items()}
  body = f"{base['policy']}/{'denoiser' if base is small.DIT else 'network'}"
  assert (
    types[f"{body}/blocks/mlp/up/kernel"]
    == types["trunk/blocks/mlp/up/kernel"]
    == types["encoder/blocks/mlp/up/kernel"]
    == "bfloat16"
  )
  assert {
    dtype
    for path, dtype in types.items()
    if path.startswith("heads/") or "_output/" in path or not path.endswith("kernel")
  } == {"float32"}
  batch = {
    key: value
    for key, value in small.batch(model, size=2).items()
    if not key.startswith(("actions", "latents"))
  }
  act = exact(lambda params: model.sample(params, batch, jax.random.key(4), robot="arm"))
  np.testing.assert_array_equal(act(params), act(lean))
  rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(leaf.dtype), params)
  assert np.abs(act(rounded) - act(params)).max() > 0  # it would show


def test_float32_stays_as_it_is():
  params = small.made(small.GPT)[1]
  chex.assert_trees_all_equal(policy_checkpoint.cast_kernels(params, "float32"), params)


ROWS = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
ROWS[:, 1] = 1.569 + 1e-7 * ROWS[:, 1]
ROWS[:, 2] = np.where(np.arange(200) < 3, 0.8, -0.2)


def statistics_of(rows):
  accumulator = statistics.Accumulator()
  accumulator.add(rows)
  return accumulator.finish()


def acting(base, *, dtype="float32", mode="standard", batch_size=4, instructions=None, **changes):
  """(policy of the arm with random weights, its model, its parameters)."""
  config = small.section(
    base, dtype=dtype, language={"width": 6, "num_tokens": 3}, history=1, **changes
  )
  model, params = small.made(config)
  numbers = {
    name: {
      "action": statistics_of(np.tile(ROWS, 2)[:, : sizes["action"]]),
      "state": statistics_of(ROWS[:, :2]),
    }
    for name, sizes in config["robots"].items()
  }
  facts = {
    "action_names": ["x", "still", "gripper"],
    "step_seconds": 0.1,
    "cameras": ["front", "wrist"],
    **({"instructions": instructions} if instructions else {}),
  }
  stored = {
    "model": config,
    "normalization": flat.stored_normalization(mode, numbers),
    "robots": {"arm": facts},
    "policy": {"cameras": ["front", "wrist"]},
    "language": {
      "kind": "hash",
      "weights": "",
      "pooled": False,
      "num_tokens": 3,
      "width": 6,
      "dtype": "float32",
    },
  }
  spec = policy_upgrade.from_config(stored)
  policy = serving.Policy(
    policy_checkpoint.restore(params, spec), robot="arm", batch_size=batch_size
  )
  return policy, model, params, spec


def observations(count):
  draw = np.random.default_rng(3)
  return [
    [
      {
        STATE: draw.normal(size=2).astype(np.float32),
        TASK: f"move number {i}",
        **{
          IMAGE + name: draw.integers(0, 256, (16, 16, 3), np.uint8) for name in ("front", "wrist")
        },
      }
    ]
    for i in range(count)
  ]


EQUAL = {
  "dit": (
    small.DIT,
    {
      "dtype": "float32",
      "dit.objective": "ddpm",
      "dit.ddpm": {"num_train_timesteps": 8, "sampler": "ddpm"},
      "dit.depth": 1,
    },
  ),
  "dit-bfloat16": (small.DIT, {"dtype": "bfloat16", "dit.depth": 1}),
  "gpt": (small.GPT, {"dtype": "float32", "gpt.motion_head": "gmm", "gpt.gripper": {"arm": [2]}}),
  "gpt-bfloat16": (
    small.GPT,
    {
      "dtype": "bfloat16",
      "gpt.action_head": "diffusion",
      "gpt.motion_head": "diffusion",
      **DENOISER,
    },
  ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_what_is_served_is_what_was_evaluated(name):
  """Bit for bit at the same batch size and key; the first rows of a larger batch are those of a
  smaller one.
  """
  base, changes = EQUAL[name]
  policy, model, params, spec = acting(base, **changes)
  batch, evaluated = policy.batch(observations(4)), []
  held = {
    **batch,
    "actions": np.zeros((4, model.action_horizon, model.action_size), np.float32),
    "valid": np.ones(4, bool),
    "actions_mask": np.ones((4, model.action_horizon, model.action_size), bool),
    "latents_mask": np.zeros((4, model.motion_horizon), bool),
  }
  score = policy_evaluator.PolicyEvaluator(
    model,
    {name: robot.transforms["action"] for name, robot in spec.robots.items()},
    dtype=changes["dtype"],
  )
  sample = score._actions
  score._actions = lambda *inputs, **more: (
    evaluated.append(sample(*inputs, **more)) or evaluated[-1]
  )
  score(
    params,
    types.SimpleNamespace(num_batches=1, batches=lambda: contextlib.nullcontext(iter([held]))),
  )
  served = np.asarray(policy.sample(batch, rng.key(0, "score", 0)))
  assert len(evaluated) == 1 and np.abs(served).max() > 0.01
  np.testing.assert_array_equal(served, evaluated[0])
  two = np.asarray(policy.sample(policy.batch(observations(4)[:2]), rng.key(0, "score", 0)))
  close = 1e-5 if changes["dtype"] == "float32" else 0.05  # bfloat16 has steps of 1/256
  np.testing.assert_allclose(two, served[:2], rtol=close, atol=close)


@pytest.mark.parametrize("mode", statistics.MODES)
@pytest.mark.parametrize("kind", ["dit", "gpt"])
def test_grippers_and_still_joints_are_served_as_they_are(kind, mode):
  """The gripper is closed in 1.5 % of the data; the joint that never moved stays where it was.

  Both policies can say both values.
  """
  changes = {"gpt.gripper": {"arm": [2]}} if kind == "gpt" else {}
  policy, model, params, _ = acting(small.BASES[kind], mode=mode, **changes)
  found = [policy.infer(observations(4), seed=seed) for seed in range(6)]
  actions = np.concatenate(found).reshape(-1, 3)
  assert actions.dtype == np.float32
  assert (actions[:, 1] == actions[0, 1]).all() and abs(float(actions[0, 1]) - 1.569) <= 3e-7
  assert set(actions[:, 2]) <= {np.float32(-0.2), np.float32(0.8)} and len(set(actions[:, 0])) > 10
  heads = params["heads"]["arm"]
  for sign, value in ((1, 0.8), (-1, -0.2)):
    bias = heads["decode"]["bias"].at[2].set(50.0 * sign)
    policy._params = {
      **params,
      "heads": {**params["heads"], "arm": {**heads, "decode": {**heads["decode"], "bias": bias}}},
    }
    np.testing.assert_array_equal(policy.infer(observations(2))[..., 2], np.float32(value))


def test_a_gripper_that_was_never_trained_is_refused():
  """Checkpoints from before the two values were stored."""
  _, model, params, _ = acting(small.GPT, **{"gpt.gripper": {"arm": [2]}})
  with pytest.raises(
    errors.UserError, match="the two values of still are not known and were not trained"
  ):
    acting(small.GPT, **{"gpt.gripper": {"arm": [1]}})


def test_an_instruction_is_asked_for_where_there_are_several():
  several = {"count": 2, "empty": False, "examples": ["open the door", "close it"]}
  policy, *_ = acting(small.DIT, instructions=several)
  seen = observations(1)[0][0]
  for text in ({}, {TASK: ""}, {TASK: "  "}):
    with pytest.raises(
      errors.UserError,
      match="no 'task': the policy was trained on 2 instructions, such as 'open the door'",
    ):
      policy.batch([[{key: value for key, value in seen.items() if key != TASK} | text]])
  assert policy.metadata["instructions"] == several
  for fine in (
    {**several, "empty": True},
    {"count": 1, "empty": False, "examples": ["open the door"]},
    None,
  ):
    silent = {key: value for key, value in seen.items() if key != TASK}
    assert not acting(small.DIT, instructions=fine)[0].batch([[silent]])["language_mask"].any()
