"""How a policy is scored on held-out examples."""

import contextlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.data import statistics
from como_jax.inference import policy_evaluator
from como_jax.train import rng
from tests.tasks.columns import MOVING, ROWS, action_transforms


def units_of(rows):
  """Robot -> transforms of its actions."""
  accumulator = statistics.Accumulator()
  accumulator.add(rows)
  return {"arm": accumulator.finish().transforms(snap=True)}


@pytest.mark.parametrize("policy_says, expected", [("truth", 0.0), ("mean", 1.0), ("draw", 2.0)])
def test_the_score_of_policies_that_know_all_or_nothing(policy_says, expected):
  """Standard normal targets; half of the second example's actions, those of the third and the last
  ten examples do not count.
  """
  draw = np.random.default_rng(0)
  actions, latents = (draw.normal(size=(200, 4, size)).astype(np.float32) for size in (3, 2))
  other = {
    "truth": (actions, latents),
    "mean": (0 * actions, 0 * latents),
    "draw": tuple(draw.normal(size=x.shape) for x in (actions, latents)),
  }
  said = [np.array(one, np.float32) for one in other[policy_says]]
  mask, valid = np.ones(actions.shape, bool), np.arange(200) < 190
  mask[1, 2:], mask[2] = False, False
  for one in said:
    one[190:] = 1e3
  said[0][1, 2:], said[0][2] = 1e3, 1e3
  batch = {
    "actions": actions,
    "actions_mask": mask,
    "latents": latents,
    "latents_mask": np.ones((200, 4), bool),
    "valid": valid,
    "robot": np.zeros(200, np.int32),
  }
  model = types.SimpleNamespace(
    robots=("arm",),
    inputs_spec=lambda size: batch,
    sample=lambda params, seen, key, **settings: jnp.asarray(said[0]),
    sample_latents=lambda params, seen, key, **settings: jnp.asarray(said[1]),
  )
  held_out = types.SimpleNamespace(
    num_batches=1, batches=lambda: contextlib.nullcontext(iter([batch]))
  )
  found = policy_evaluator.PolicyEvaluator(
    model, units_of(np.random.default_rng(1).normal(size=(50, 3)))
  )({}, held_out)
  assert set(found) == {"action_mse", "action_mse_first", "latent_mse"}
  assert all(value == pytest.approx(expected, abs=0.25) for value in found.values())


def test_grippers_are_scored_by_themselves_and_what_never_moves_not_at_all():
  """Of 2 x 3 elements one does not count; the gripper is right in 3 of the other 5, and closed in 4
  of them.
  """
  units = units_of(np.stack([np.arange(40.0), np.full(40, 2.0), np.arange(40) % 2], 1))
  target = np.zeros((2, 3, 3), np.float32)
  target[..., 2] = [[1, 1, -1], [1, 1, -1]]
  said = target + np.float32([0.5, 9, 0])  # off by 0.5 in what moves; anything in what does not
  said[..., 2] = [[0.2, -3, -0.1], [0.1, -0.2, 7]]
  mask = np.ones((2, 3, 3), bool)
  mask[1, 2] = False
  batch = {
    "actions": target,
    "actions_mask": mask,
    "latents_mask": np.zeros((2, 4), bool),
    "valid": np.ones(2, bool),
    "robot": np.zeros(2, np.int32),
  }
  model = types.SimpleNamespace(
    robots=("arm",),
    inputs_spec=lambda size: batch,
    sample=lambda params, seen, key, **settings: jnp.asarray(said),
  )
  held_out = types.SimpleNamespace(
    num_batches=1, batches=lambda: contextlib.nullcontext(iter([batch]))
  )
  found = policy_evaluator.PolicyEvaluator(model, units)({}, held_out)
  assert found == {
    "action_mse": 0.25,
    "action_mse_first": 0.25,
    "gripper_accuracy": pytest.approx(3 / 5),
    "gripper_majority": pytest.approx(4 / 5),
  }


def test_what_a_score_asks_of_the_model(monkeypatch):
  """Two batches of two robots; each example is asked of its own robot with a key of its batch,
  without its targets.
  """
  asked = []
  spec = {"images": 0, "more": 0, "actions": 0, "latents": 0}

  def sample(params, seen, key, *, robot, guidance_scale, num_sampling_steps=None):
    asked.append((params, sorted(seen), robot, num_sampling_steps, guidance_scale))
    return jnp.broadcast_to(jax.random.uniform(key), (3, 2, {"arm": 3, "bot": 1}[robot]))

  def sample_latents(params, seen, key, *, num_sampling_steps=None):
    asked.append((sorted(seen), num_sampling_steps))
    return jnp.broadcast_to(jax.random.uniform(key), (3, 2, 4))

  model = types.SimpleNamespace(
    robots=("arm", "bot"),
    inputs_spec=lambda size: spec,
    sample=sample,
    sample_latents=sample_latents,
  )
  batch = {
    "images": np.zeros((3, 1)),
    "actions": np.zeros((3, 2, 3), np.float32),
    "latents": np.zeros((3, 2, 4), np.float32),
    "actions_mask": np.ones((3, 2, 3), bool),
    "latents_mask": np.array([[True, False], [True, True], [True, True]]),
    "valid": np.array([True, True, False]),
    "robot": np.array([0, 1, 0]),
  }
  held_out = types.SimpleNamespace(
    num_batches=2, batches=lambda: contextlib.nullcontext(iter([batch, batch]))
  )
  monkeypatch.setattr(
    policy_evaluator.policy_checkpoint,
    "cast_kernels",
    lambda params, dtype: jnp.float32(7) if (params, dtype) == ("PARAMS", "bfloat16") else None,
  )
  moving = np.stack([MOVING] * 3, 1)
  found = policy_evaluator.PolicyEvaluator(
    model, action_transforms(arm=moving, bot=moving[:, :1]), guidance_scale=2.0, dtype="bfloat16"
  )("PARAMS", held_out)
  first, second = (float(jax.random.uniform(rng.key(0, "score", step))) for step in (0, 1))
  # Of each batch 6 numbers of one example and 2 of the other, all off by the key's number.
  mean = (first**2 + second**2) / 2
  assert found == {
    "action_mse": pytest.approx(mean),
    "action_mse_first": pytest.approx(mean),
    "latent_mse": pytest.approx(mean),
  }
  assert [one[1:] for one in asked if len(one) == 5] == [
    (["images"], robot, None, 2.0) for robot in ("arm", "bot")
  ], "traced once a robot"
  assert [one for one in asked if len(one) == 2] == [(["images"], None)]


def test_the_common_value_of_a_gripper_in_all_batches():
  """The gripper is high in 1 of 4 elements, then in 3 of 4: over both batches neither value is the
  common one.
  """
  target = np.zeros((2, 2, 3), np.float32)
  batches = []
  for highs in (1, 3):
    one = target.copy()
    one[..., 1] = np.where(np.arange(4).reshape(2, 2) < highs, 1, -1)
    batches.append(
      {
        "actions": one,
        "actions_mask": np.ones((2, 2, 3), bool),
        "latents_mask": np.zeros((2, 2), bool),
        "valid": np.ones(2, bool),
        "robot": np.zeros(2, int),
      }
    )
  said = np.ones((2, 2, 3), np.float32)
  model = types.SimpleNamespace(
    robots=("arm",),
    inputs_spec=lambda size: batches[0],
    sample=lambda params, seen, key, *, guidance_scale, **more: jnp.asarray(said) * guidance_scale,
  )
  held_out = types.SimpleNamespace(
    num_batches=2, batches=lambda: contextlib.nullcontext(iter(batches))
  )
  found = policy_evaluator.PolicyEvaluator(model, action_transforms(arm=ROWS))({}, held_out)
  assert found == {
    "action_mse": 1.0,
    "action_mse_first": 1.0,
    "gripper_accuracy": 0.5,
    "gripper_majority": 0.5,
  }
