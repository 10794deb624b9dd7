"""The diffusion policy: groups do not see each other, masked elements, guidance, sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.models.policy import dit
from tests.models.policy import small

KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def eager():
  model, params = small.made(small.DIT)
  rng = np.random.default_rng(0)
  network, context = (
    model.action_head.denoiser,
    jnp.asarray(rng.normal(size=(2, 5, 16)), jnp.float32),
  )
  mask = jnp.array([[True] * 5, [True, False, True, True, False]])
  memory = small.jit(model.action_head.context_kv.apply)(
    {"params": params["dit"]["memory"]}, context
  )
  groups = {
    name: (
      jnp.asarray(rng.normal(size=(2, length, 24)), jnp.float32),
      jnp.asarray(rng.random(2), jnp.float32),
      jnp.ones((2, length), bool),
    )
    for name, length in (("action", 4), ("latent", 2))
  }
  return (
    lambda *inputs: network.apply({"params": params["dit"]["denoiser"]}, *inputs),
    groups,
    memory,
    mask,
  )


@pytest.fixture(scope="module")
def case(eager):
  return small.jit(eager[0]), *eager[1:]


def test_jit_equals_eager(case, eager):
  for name, output in eager[0](*eager[1:]).items():
    np.testing.assert_allclose(case[0](*case[1:])[name], output, rtol=1e-5, atol=1e-5)


def test_each_group_alone_equals_the_joint_pass(case):
  run, groups, memory, mask = case
  joint = run(groups, memory, mask)
  for name, group in groups.items():
    np.testing.assert_allclose(
      run({name: group}, memory, mask)[name], joint[name], rtol=1e-5, atol=1e-5
    )


def test_groups_have_their_own_times(case):
  run, groups, memory, mask = case
  joint, (tokens, time, valid) = run(groups, memory, mask), groups["latent"]
  moved = run({**groups, "latent": (tokens + 1, time / 2, valid)}, memory, mask)
  np.testing.assert_array_equal(moved["action"], joint["action"])
  assert np.abs(moved["latent"] - joint["latent"]).max() > 1e-2
  tokens, time, valid = groups["action"]
  moved = run({**groups, "action": (tokens, time.at[0].set(0.9), valid)}, memory, mask)["action"]
  np.testing.assert_array_equal(moved[1], joint["action"][1])
  assert np.abs(moved[0] - joint["action"][0]).max() > 1e-3


def test_elements_beyond_the_end_are_not_seen(case):
  run, groups, memory, mask = case
  tokens, time, valid = groups["action"]
  short = {**groups, "action": (tokens, time, valid.at[:, 2:].set(False))}
  other = {**groups, "action": (tokens.at[:, 2:].add(5.0), time, valid.at[:, 2:].set(False))}
  a, b = (run(given, memory, mask)["action"] for given in (short, other))
  np.testing.assert_array_equal(a[:, :2], b[:, :2])
  assert np.abs(a[:, :2] - run(groups, memory, mask)["action"][:, :2]).max() > 1e-3


def test_masked_context_is_not_seen(case):
  run, groups, memory, mask = case
  changed = {
    name: jnp.where(mask[None, :, :, None, None], leaf, 100.0) for name, leaf in memory.items()
  }
  np.testing.assert_array_equal(
    run(groups, changed, mask)["action"], run(groups, memory, mask)["action"]
  )


def test_group_mask():
  mask = np.asarray(dit.group_mask(np.array([0, 0, 1]), jnp.array([[True, False, True]])))[0, 0]
  np.testing.assert_array_equal(
    mask, [[True, False, False], [True, True, False], [False, False, True]]
  )


def test_guidance():
  model, params = small.made(small.DIT)
  batch = small.batch(model)
  silent = dict(batch, language_mask=jnp.zeros_like(batch["language_mask"]))
  sample = small.jit(
    lambda batch, guidance: model.sample(
      params, batch, KEY, robot="arm", num_sampling_steps=1, guidance_scale=guidance
    ),
    static_argnums=1,
  )
  conditional, unconditional = sample(batch, 1.0), sample(silent, 1.0)
  # one Euler step is linear
  np.testing.assert_allclose(
    sample(batch, 3.0), 3 * conditional - 2 * unconditional, rtol=1e-4, atol=1e-4
  )
  # the example without an instruction
  np.testing.assert_array_equal(conditional[2], unconditional[2])
  assert np.abs(conditional - unconditional).max() > 1e-3


def test_untrained_heads_predict_nothing():
  heads = small.made(small.DIT)[0].action_head.projections.init(KEY)
  assert all(
    not np.any(heads[name]["decode"]["kernel"]) and np.any(heads[name]["encode"]["kernel"])
    for name in heads
  )
