"""Normalization statistics."""

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
  accumulator = statistics.Accumulator(keep=1000)
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
