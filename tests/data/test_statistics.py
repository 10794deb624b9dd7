"""Normalization statistics."""

import dataclasses
import json

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import statistics


def test_streaming_equals_numpy():
  rows = np.random.default_rng(0).normal(3, [1, 100, 0], (5000, 3)) + 1e4
  accumulator = statistics.Accumulator()
  for part in np.array_split(rows, [0, 1, 7, 900, 4000]):
    accumulator.add(part)
  found = accumulator.finish()
  assert found.count == 5000
  for name, value in (
    ("mean", rows.mean(0)),
    ("std", rows.std(0)),
    ("min", rows.min(0)),
    ("max", rows.max(0)),
    ("q01", np.quantile(rows, 0.01, 0)),
    ("q99", np.quantile(rows, 0.99, 0)),
  ):
    np.testing.assert_allclose(getattr(found, name), value, rtol=1e-9, atol=1e-6)


def test_memory_is_bounded_and_quantiles_stay_close():
  rows = np.random.default_rng(1).normal(size=(20_000, 1))
  accumulator = statistics.Accumulator(sample_size=1000)
  for part in np.array_split(rows, 37):
    accumulator.add(part)
  assert accumulator._held <= 1000
  np.testing.assert_allclose(accumulator.finish().q99, np.quantile(rows, 0.99), atol=0.25)


@pytest.mark.parametrize("mode", statistics.MODES)
def test_inverse_and_json(mode):
  rows = np.random.default_rng(2).normal(size=(100, 4)) * [1, 10, 0, 1e-3] + [0, 5, 7, 0]
  accumulator = statistics.Accumulator()
  accumulator.add(rows)
  found = statistics.Statistics.from_json(json.loads(json.dumps(accumulator.finish().to_json())))
  x = rows.astype(np.float32)[:10].reshape(2, 5, 4)
  normal = found.normalize(x, mode)
  assert normal.dtype == np.float32 and np.abs(normal).max() < 10
  np.testing.assert_allclose(found.inverse(normal, mode), x, rtol=1e-5, atol=1e-6)
  with pytest.raises(errors.UserError, match="'standrad'.*did you mean 'standard'"):
    found.normalize(x, "standrad")


def test_bad_input():
  with pytest.raises(errors.UserError, match="not finite"):
    statistics.Accumulator().add(np.array([[np.nan]]))


def of(rows, **settings):
  accumulator = statistics.Accumulator(**settings)
  for part in rows:
    accumulator.add(part)
  return accumulator


def test_thinning_keeps_every_second_row_of_all():
  rows = np.arange(23.0)[:, None]
  accumulator = of((rows[:5], rows[5:6], rows[6:13], rows[13:]), sample_size=6)
  assert np.concatenate(accumulator._sample)[:, 0].tolist() == [0, 4, 8, 12, 16, 20]
  found = accumulator.finish()
  assert (found.count, found.mean[0], found.min[0], found.max[0]) == (23, 11, 0, 22) and found.std[
    0
  ] == pytest.approx(rows.std())
  assert (found.q01[0], found.q99[0]) == pytest.approx((0.2, 19.8))
  assert np.concatenate(of((rows[:6],), sample_size=6)._sample)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
  assert statistics.Accumulator().finish() is None and of((np.zeros((0, 2)),)).finish() is None
  with pytest.raises(ValueError, match=r"expected rows \[n, D\], got shape \(3,\)"):
    statistics.Accumulator().add(np.zeros(3))
  # all rows are kept by default
  assert of((rows,)).finish().q99[0] == pytest.approx(np.quantile(rows, 0.99))


def test_noise_goes_with_the_size_of_numbers():
  eps = np.finfo(np.float32).eps
  np.testing.assert_allclose(
    statistics.noise(np.array([0.0, 0.1, -100.0])), [1e-6, 1e-6, 1600 * eps]
  )
  for low, high, constant in (
    (0, 1e-6, True),
    (0, 1.1e-6, False),
    (-100, -100 + 1500 * eps, True),
    (-100, -100 + 1700 * eps, False),
  ):
    one = statistics.Statistics(2, *(np.array([x], float) for x in (0, 0, low, high, 0, 0)))
    assert one.constant.tolist() == [constant]


@pytest.mark.parametrize("between, two", [(0, True), (5, True), (6, False)])
def test_few_rows_may_lie_between_two_values(between, two):
  rows = np.repeat([0.0, 1.0, 0.5], [50, 50 - between, between])[:, None]
  assert of((rows,)).finish().two_valued.tolist() == [two]


@pytest.mark.parametrize("rare, between, two", [(3, 3, True), (3, 4, False), (1, 1, True)])
def test_fewer_rows_between_than_at_the_rarer_end(rare, between, two):
  for ends in ((0.0, 1.0), (1.0, 0.0)):
    rows = np.repeat([*ends, 0.5], [100 - rare - between, rare, between])[:, None]
    assert of((rows,)).finish().two_valued.tolist() == [two]


def test_units_by_hand():
  one = statistics.Statistics(
    4,
    *(np.array([x, x, x], float) for x in (2, 4, -6, 14, 1, 5)),
    binary=np.array([False, True, False]),
  )
  x = np.array([[6.0, 14.0, 2.0]])
  np.testing.assert_allclose(one.normalize(x), [[1, 1, 0]])  # (6 - 2) / 4; (14 - 4) / 10
  np.testing.assert_allclose(one.normalize(x, "quantile"), [[1.5, 1, -0.5]])  # (6 - 3) / 2
  np.testing.assert_allclose(one.inverse(np.array([[1.0, 1.0, -0.5]]), "quantile"), [[5, 14, 2]])
  np.testing.assert_allclose(one.inverse(np.array([[1.0, -1.0, -0.5]])), [[6, -6, 0]])
  still = dataclasses.replace(
    one, q01=np.full(3, 1.0), q99=np.array([1 + 1.8e-6, 1 + 2e-6, 1.0]), binary=None
  )
  np.testing.assert_allclose(
    still.normalize(np.array([[14.0, 14.0, -6.0]]), "quantile"), [[1, (14 - 1 - 1e-6) / 1e-6, -1]]
  )
  flat = dataclasses.replace(one, std=np.zeros(3), binary=None)  # sums that canceled
  np.testing.assert_allclose(flat.normalize(x), [[4, 12, 0]])
  assert one.to_json()["binary"] == [False, True, False] and one.to_json()["count"] == 4
  assert statistics.Statistics.from_json(one.to_json()).binary.tolist() == [False, True, False]
