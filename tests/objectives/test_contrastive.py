"""The contrastive objective by hand, and its gate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import objectives
from como_jax.objectives import contrastive
from tests.models import tiny
from tests.objectives.means import BATCH, mean

KEY = jax.random.key(0)


def test_contrastive_by_hand():
  """Jittered = forward, reverse opposite to one and at right angles to the other."""
  forward = jnp.array([[[1.0, 0.0], [3.0, 0.0]]])
  jittered = jnp.array([[[2.0, 0.0], [0.0, 1.0]]])
  reverse = jnp.array([[[-5.0, 0.0], [0.0, 7.0]]])
  outputs = {"z": forward, "z_jittered": jittered, "z_reversed": reverse}
  terms = objectives.build({"contrastive": {"weight": 0.004}})(outputs, BATCH)
  first = -np.log(np.exp(10.0) / (np.exp(10.0) + np.exp(-10.0) + np.exp(-10.0)))
  second = -np.log(1.0 / (1.0 + np.exp(10.0) + 1.0))  # S1 = 0, S2 = 1, S3 = 0
  np.testing.assert_allclose(terms["contrastive"][0], first + second, rtol=1e-5)
  assert terms["contrastive"][1] == 2
  for name, value in (
    ("jittered_forward", 0.5),
    ("jittered_reversed", 0.0),
    ("forward_reversed", -0.5),
  ):
    np.testing.assert_allclose(mean(terms[f"similarity_{name}"]), value, atol=1e-6)


def test_contrastive_temperature_and_no_other_negatives():
  rng = np.random.default_rng(0)
  outputs = {
    name: jnp.asarray(rng.normal(size=(3, 2, 4)), jnp.float32)
    for name in ("z", "z_jittered", "z_reversed")
  }
  cold, warm = (
    objectives.build({"contrastive": {"weight": 1.0, "temperature": temperature}})(outputs, BATCH)
    for temperature in (0.1, 1e6)
  )
  np.testing.assert_allclose(mean(warm["contrastive"]), np.log(3), rtol=1e-4)
  assert abs(mean(cold["contrastive"]) - np.log(3)) > 0.1
  alone = [
    objectives.build({"contrastive": {"weight": 1.0}})(
      jax.tree.map(lambda x, i=i: x[i : i + 1], outputs), BATCH
    )
    for i in range(3)
  ]
  np.testing.assert_allclose(
    cold["contrastive"][0], sum(terms["contrastive"][0] for terms in alone), rtol=1e-5
  )


def test_still_pairs_are_left_out_of_the_contrastive_mean():
  """Four pairs of 10 x 10 pixels: noise everywhere, nothing, 2 of 100 pixels moving, 3 of 100
  moving in a clip of padding.
  """
  std = np.array([0.229, 0.224, 0.225], np.float32)
  current = np.asarray(tiny.frames((2, 2, 10, 10)))
  change = np.zeros((2, 2, 10, 10, 3), np.float32)
  change[0, 0] = 0.049 * np.random.default_rng(0).choice([-1, 1], (10, 10, 3))
  change[1, 0, 0, :2, 2] = -0.051
  change[1, 1, 0, :3, 1] = 0.5
  rng = np.random.default_rng(0)
  z = {
    name: jnp.asarray(rng.normal(size=(2, 2, 4)), jnp.float32)
    for name in ("z", "z_jittered", "z_reversed")
  }
  frames = {"current": jnp.asarray(current), "target": jnp.asarray(current + change / std)}
  np.testing.assert_allclose(contrastive.moving_share(frames), [[0, 0], [0.02, 0.03]], atol=1e-6)

  def terms(gate, z=z, batch=BATCH):
    return objectives.build({"contrastive": {"weight": 1.0, "gate": gate}})({**z, **frames}, batch)

  single = [
    float(terms(0.0, jax.tree.map(lambda x, i=i: x[1:, i : i + 1], z))["contrastive"][0])
    for i in (0, 1)
  ]
  off, low, high = terms(0.0), terms(0.015), terms(0.025)
  assert (
    off["contrastive_gated"] == (0, 4)
    and low["contrastive_gated"] == (2, 4)
    and high["contrastive_gated"] == (3, 4)
  )
  assert (off["contrastive"][1], low["contrastive"][1], high["contrastive"][1]) == (4, 2, 1)
  np.testing.assert_allclose(low["contrastive"][0], sum(single), rtol=1e-5)
  np.testing.assert_allclose(high["contrastive"][0], single[1], rtol=1e-5)
  np.testing.assert_allclose(
    mean(low["similarity_forward_reversed"]), mean(off["similarity_forward_reversed"])
  )
  padded = terms(0.015, batch={"valid": jnp.array([True, False])})
  assert padded["contrastive"] == (0, 0) and padded["contrastive_gated"] == (2, 2)
  gradient = jax.grad(lambda z: terms(0.015, z)["contrastive"][0])(z)
  for name, value in gradient.items():
    assert not value[0].any() and value[1].all(), name


def test_contrastive_is_finite_at_zero():
  zeros = jnp.zeros((1, 1, 4))
  objective = objectives.build({"contrastive": {"weight": 1.0}})

  def loss(z):
    return objective({"z": z, "z_jittered": z, "z_reversed": z}, BATCH)["contrastive"][0]

  value, gradient = jax.value_and_grad(loss)(zeros)
  np.testing.assert_allclose(value, np.log(3), rtol=1e-6)
  assert np.all(np.isfinite(gradient))


def drawn_terms(batch, z, *, gate=0.0):
  """The terms of pairs 0..3 of two clips, or estimates from those in batch["drawn"]."""
  current = jnp.zeros((2, 2, 4, 4, 3))
  target = current.at[0, 1].set(1.0).at[1].set(1.0)  # the first pair of the first clip is still
  if "drawn" in batch:
    z = z | {
      name: jnp.take_along_axis(
        z[name].reshape((len(batch["drawn"]), -1, 4)), batch["drawn"][..., None], axis=1
      )
      for name in ("z_jittered", "z_reversed")
    }
  outputs = {**z, "current": current, "target": target}
  return contrastive.contrastive(outputs, batch, gate=gate)


@pytest.mark.parametrize("draws", [[[[0], [0]], [[0], [1]], [[1], [0]], [[1], [1]]]])
@pytest.mark.parametrize("gate", [0.0, 0.5])
@pytest.mark.parametrize("valid", [None, [True, False]])
def test_the_mean_over_all_draws_is_the_term_of_all_pairs(draws, gate, valid):
  rng = np.random.default_rng(1)
  z = {
    name: jnp.asarray(rng.normal(size=(2, 2, 4)), jnp.float32)
    for name in ("z", "z_jittered", "z_reversed")
  }
  batch = {} if valid is None else {"valid": jnp.asarray(valid)}
  whole = drawn_terms(batch, z, gate=gate)
  # a draw from each clip, and the same four pairs drawn from the run of both
  for each in (draws, [[[0]], [[1]], [[2]], [[3]]]):
    parts = [drawn_terms({**batch, "drawn": jnp.asarray(one)}, z, gate=gate) for one in each]
    for name, (value, count) in whole.items():
      np.testing.assert_allclose(
        np.mean([part[name][0] for part in parts]), value, rtol=1e-5, atol=1e-6, err_msg=name
      )
      assert {float(part[name][1]) for part in parts} == {float(count)}


@pytest.mark.parametrize(
  "size, pairs, fraction, shape",
  [
    (4, 7, 1.0, None),
    (4, 7, 0.97, None),  # rounds to all
    (4, 7, 1 / 7, (4, 1)),
    (4, 7, 0.5, (4, 4)),
    (4, 1, 0.25, (1, 1)),
    (8, 1, 0.5, (4, 1)),
    (6, 1, 0.25, (1, 2)),  # no run of 4 or 5 clips divides 6
    (4, 3, 0.25, (2, 2)),
    (4, 1, 0.01, (1, 1)),  # never nothing
  ],
)
def test_how_many_pairs_are_drawn(size, pairs, fraction, shape):
  batch = {"frames": jnp.zeros((size, pairs + 1)), "jittered": jnp.zeros((size, pairs))}
  drawn = contrastive.draw(batch, jax.random.key(0), fraction=fraction)
  assert (drawn["drawn"].shape if "drawn" in drawn else None) == shape
  if shape is None:
    assert drawn is batch


def test_every_pair_is_drawn_equally_often_and_none_twice():
  batch = {"jittered": jnp.zeros((3, 4))}
  draws = jax.vmap(lambda key: contrastive.draw(batch, key, fraction=0.5)["drawn"])(
    jax.random.split(jax.random.key(0), 2000)
  )
  assert all(len(set(row)) == 2 for row in np.asarray(draws[:50]).reshape((-1, 2)).tolist())
  for clip in range(3):
    counts = np.bincount(np.asarray(draws[:, clip]).ravel(), minlength=4) / 2000
    np.testing.assert_allclose(counts, 0.5, atol=0.05)
  assert "drawn" not in contrastive.draw({"frames": jnp.zeros((3, 5))}, KEY, fraction=0.5)
