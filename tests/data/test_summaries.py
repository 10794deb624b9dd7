"""Summaries of clips merge into the statistics of their rows."""

import numpy as np

from como_jax.data import summaries


def test_merged_summaries_are_those_of_all_rows():
  rng = np.random.default_rng(0)
  parts = [
    rng.normal(i, 1 + i, (n, 3)) * [1, 100, 1e-3] for i, n in enumerate((1, 128, 40, 128, 7))
  ]
  rows = np.concatenate(parts)
  found = summaries.merge(
    [summaries.summarize(part) for part in parts], [len(part) for part in parts]
  )
  assert found.count == len(rows)
  for name, value in (
    ("mean", rows.mean(0)),
    ("std", rows.std(0)),
    ("min", rows.min(0)),
    ("max", rows.max(0)),
  ):
    np.testing.assert_allclose(getattr(found, name), value, rtol=1e-9)
  for name, level in (("q01", 0.01), ("q99", 0.99)):
    for d in range(3):
      assert abs((rows[:, d] <= getattr(found, name)[d]).mean() - level) < 0.02


def test_a_column_that_never_moves():
  found = summaries.merge([summaries.summarize(np.full((n, 1), 1.5)) for n in (3, 9)], [3, 9])
  assert (found.mean, found.std, found.q01, found.q99, found.min, found.max) == (
    1.5,
    0,
    1.5,
    1.5,
    1.5,
    1.5,
  )
  assert summaries.summarize(np.arange(4.0)).shape == (summaries.SIZE, 1)
