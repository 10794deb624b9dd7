"""Gains of one probe over another, and scales of columns."""

import dataclasses

import numpy as np
import pytest

from como_jax import errors
from como_jax.evaluate import linear_probe, probes


def test_gain_is_paired():
  # Episodes differ in noise, alike for both probes: each error is uncertain, their difference is
  # not.
  rng = np.random.default_rng(0)
  episodes = np.repeat(np.arange(40), 25)
  motion = rng.normal(size=(1000, 1))
  noise = rng.normal(size=(1000, 1)) * np.exp(rng.normal(size=40))[episodes][:, None]
  targets = motion + noise
  held_out = episodes >= 20
  informed = linear_probe.probe(motion, targets, episodes=episodes, held_out=held_out)
  ignorant = linear_probe.probe(
    rng.normal(size=(1000, 1)), targets, episodes=episodes, held_out=held_out
  )
  gain, error = probes.gain(informed, ignorant, episodes)
  assert gain == pytest.approx(ignorant.mse - informed.mse) and error < informed.standard_error / 2
  assert probes.gain(informed, informed, episodes) == (0.0, 0.0)


def test_columns_and_their_scale():
  values = np.array([[1.0, 5, 1], [3, 5, 1 + 1e-7], [5, 5, 1 - 1e-7]])
  mean, scale, constant = probes.scale_of(values)
  np.testing.assert_allclose(mean, [3, 5, 1])
  np.testing.assert_allclose(scale, [(8 / 3) ** 0.5, 1, 1])
  assert probes.scale_of(np.zeros((3, 1)))[2].all()
  with np.errstate(all="raise"):
    np.testing.assert_array_equal(
      probes._mean(np.array([[np.nan, np.nan], [1, np.nan]]), axis=1), [np.nan, 1]
    )
  assert (
    constant.tolist() == [False, True, True]
    and not probes.scale_of(np.array([[1.0], [1 + 4e-7]]))[2][0]
  )


def test_gains_by_hand():
  episodes = np.array([0, 0, 1, 2, 2])
  base = linear_probe.probe(
    np.ones((5, 1)), np.array([-1.0, 1, 1, 2, 3]), episodes=episodes, held_out=episodes > 0
  )
  np.testing.assert_allclose(base.errors, [1, 4, 9])
  better = dataclasses.replace(base, errors=np.array([1.0, 2, 3]))
  gain, error = probes.gain(better, base, episodes)
  # episodes 11, 12, 21, 22
  assert gain == pytest.approx((0 + 2 + 6) / 3) and error == pytest.approx(
    np.std([0, 8 / 3, 8 / 3, 4]), rel=0.1
  )
  values, ids = np.array([1.0, 2, 6]), np.array([0, 1, 1])
  drawn = np.random.default_rng(0).integers(2, size=(3, 2))
  means = np.array([1.0, 8])[drawn].sum(1) / np.array([1, 2])[drawn].sum(1)
  assert (
    probes.bootstrap(values, ids, draws=3) == pytest.approx(np.std(means, ddof=1))
    and len(set(means)) > 1
  )
  flat = linear_probe.probe(
    np.ones((4, 1)),
    np.array([-1.0, 1, 3, 3]),
    episodes=np.array([0, 0, 1, 2]),
    held_out=np.array([0, 0, 1, 1]),
  )
  assert np.isnan(flat.r2) and flat.mse == pytest.approx(9)  # what is held out does not vary
  with pytest.raises(errors.UserError, match="different samples"):
    probes.gain(dataclasses.replace(base, index=np.array([1, 3, 4])), base, episodes)
