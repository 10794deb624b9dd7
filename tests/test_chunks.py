"""Overlapping chunks averaged over time."""

import numpy as np
import pytest

from como_jax import chunks, errors


def test_every_chunk_that_covers_a_step_counts_with_its_weight():
  ensemble = chunks.TemporalEnsemble(0.5)
  first, second, third = np.full((2, 3), 1.0), np.full((2, 3), 2.0), np.full((2, 3), 4.0)
  np.testing.assert_array_equal(ensemble(first), [[1, 1, 1]])
  weight = np.exp(-0.5)
  np.testing.assert_allclose(
    ensemble(second), np.full((1, 3), (1 + weight * 2) / (1 + weight)), rtol=1e-6
  )
  # first has ended
  np.testing.assert_allclose(
    ensemble(third), np.full((1, 3), (2 + weight * 4) / (1 + weight)), rtol=1e-6
  )
  ensemble.reset()
  np.testing.assert_array_equal(ensemble(first), [[1, 1, 1]])


def test_chunks_are_aligned_in_time():
  line = np.arange(20.0)[:, None]
  ensemble = chunks.TemporalEnsemble(0.1, execute=3)
  out = np.concatenate([ensemble(line[start : start + 8]) for start in range(0, 12, 3)])
  np.testing.assert_allclose(out, line[:12], rtol=1e-6)  # chunks that agree are not changed
  assert out.dtype == np.float32


def test_an_even_average_and_a_sign():
  for decay, expected in ((0.0, 1.5), (50.0, 1.0), (-50.0, 2.0)):
    ensemble = chunks.TemporalEnsemble(decay)
    ensemble(np.full((4, 1), 1.0))
    np.testing.assert_allclose(ensemble(np.full((4, 1), 2.0)), [[expected]], rtol=1e-6)


def test_no_step_is_refused():
  with pytest.raises(errors.UserError, match="execute = 0"):
    chunks.TemporalEnsemble(0.1, execute=0)
