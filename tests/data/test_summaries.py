"""Summaries of clips merge into the statistics of their rows."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import statistics, summaries


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


def test_summaries_by_hand():
  levels = [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0]
  rows = np.stack([np.arange(101.0), np.full(101, 3.0)], 1)
  found = summaries.summarize(rows)
  np.testing.assert_allclose(
    found[:, 0], [50, ((rows[:, 0] - 50) ** 2).sum(), *(100 * level for level in levels)], atol=1e-9
  )
  np.testing.assert_allclose(found[:, 1], [3, 0] + [3] * 17)
  # A piece of 0 to 1 and one of 10 to 11, three times as long: a share of 0.99 lies below 11 - 1 /
  # 75.
  ramp = summaries.summarize(np.linspace(0, 1, 1001))
  merged = summaries.merge([ramp, summaries.summarize(np.linspace(10, 11, 1001))], [1001, 3003])
  assert (
    merged.q99[0] == pytest.approx(11 - 0.01 / 0.75)
    and merged.q01[0] == pytest.approx(0.04)
    and merged.count == 4004
  )
  low = summaries.merge(
    [summaries.summarize(np.full((n, 1), 10.0 * (n > 1))) for n in (1, 99)], [1, 99]
  )
  # the least value that a hundredth lies below
  assert low.q01[0] == pytest.approx(0, abs=1e-9) and low.q99[0] == 10
  assert (merged.mean[0], merged.min[0], merged.max[0]) == pytest.approx(
    (0.25 * 0.5 + 0.75 * 10.5, 0, 11)
  )


def test_sketches_of_shards_merge_as_their_rows():
  rng = np.random.default_rng(1)
  gripper = np.repeat([0.0, 1.0, 0.0, 1.0], [300, 200, 250, 250])
  resting = np.where(np.arange(1000) < 700, 0.0, rng.normal(size=1000))
  stairs = np.repeat(np.arange(5.0), [250, 150, 250, 250, 100])  # one value in each part
  rows = np.stack([rng.normal(size=1000), gripper, resting, np.full(1000, 2.5), stairs], 1)
  accumulator = statistics.Accumulator()
  accumulator.add(rows)
  want = accumulator.finish()
  # in some parts the gripper has only one of its values
  parts = np.split(rows, [250, 400, 650, 900])
  found = summaries.merge_sketches(np.stack([summaries.sketch(part) for part in parts]))
  assert summaries.sketch(rows).shape == (summaries.SKETCH, 5)
  assert found.count == 1000 and found.binary.tolist() == want.binary.tolist()
  assert found.binary.tolist() == [False, True, False, False, False]
  for name in ("mean", "std", "min", "max"):
    np.testing.assert_allclose(getattr(found, name), getattr(want, name), rtol=1e-9, atol=1e-12)
  for level, value in ((0.01, found.q01), (0.99, found.q99)):
    assert abs((rows[:, 0] <= value[0]).mean() - level) < 0.01
  rows[3, 0] = np.inf
  with pytest.raises(errors.UserError, match="^statistics: the array holds values that are not"):
    summaries.merge_sketches(summaries.sketch(rows)[None])


def test_merging_is_what_np_interp_gives():
  """To the last bit, for columns with ties, with few rows, and with one value."""
  rng = np.random.default_rng(0)
  for case in range(12):
    parts = [rng.normal(size=(int(n), 1)) for n in rng.integers(1, 40, 50)]
    parts = [np.round(part) if case % 3 else part for part in parts]
    parts[-1][:] = 0.5
    counts = [len(part) for part in parts]
    made = [summaries.summarize(part) for part in parts]
    found = summaries.merge(made, counts)
    levels = np.stack([one[2:, 0] for one in made])
    for level, value in ((0.01, found.q01[0]), (0.99, found.q99[0])):
      low, high = levels.min(), levels.max()
      for _ in range(60):
        middle = (low + high) / 2
        below = 0.0
        for count, one in zip(counts, levels, strict=True):
          share = np.float64(count) / sum(counts)
          below += share * np.interp(middle, one, summaries.LEVELS, left=0.0, right=1.0)
        low, high = (middle, high) if below < level else (low, middle)
      assert value == high, (case, level)


def test_shares_below_values_that_are_as_near_as_numbers_can_be():
  levels = np.array([[0.0] * 8 + [5e-324] * 9])
  for value in (0.0, 5e-324, -1.0):
    expected = np.interp(value, levels[0], summaries.LEVELS, left=0.0, right=1.0)
    assert summaries._shares_below(levels, value) == [expected]
