"""Summaries of the arrays of a clip, which can be merged into statistics of any set of clips.

A summary is small enough to be stored for each clip.

Legend: S rows of a summary, D numbers of a row of data.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from como_jax import errors
from como_jax.data import statistics
from como_jax.data.statistics import Statistics

LEVELS = np.array(
  [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0]
)
# S. The rows of a summary: mean, sum of squared deviations from the mean, quantiles at `LEVELS`
# (the first is the minimum, the last is the maximum).
SIZE = 2 + len(LEVELS)
SKETCH = 3 + SIZE  # rows of a sketch


def summarize(rows: np.ndarray) -> np.ndarray:
  """The summary of rows [n, D] or [n], n at least 1: float64 [S, D]."""
  rows = np.asarray(rows, np.float64).reshape(len(rows), -1)
  mean = rows.mean(0)
  return np.concatenate(
    [mean[None], ((rows - mean) ** 2).sum(0)[None], np.quantile(rows, LEVELS, axis=0)]
  )


def sketch(rows: np.ndarray) -> np.ndarray:
  """What of the rows of a shard is merged into statistics of the data set.

  Args:
    rows: [n, D], n at least 1.

  Returns:
    float64 [3 + S, D]: number of rows; numbers at the minimum and at the maximum; their summary.
  """
  rows = np.asarray(rows, np.float64)
  low, high = rows.min(0), rows.max(0)
  at_low = (rows - low <= statistics.noise(low)).sum(0)
  at_high = (high - rows <= statistics.noise(high)).sum(0)
  count = np.full(rows.shape[1], len(rows))
  return np.concatenate([np.stack([count, at_low, at_high]), summarize(rows)])


def merge_sketches(sketches: np.ndarray) -> Statistics:
  """Merges sketches [N, 3 + S, D] into statistics of all their rows.

  All is exact but the 1 % and 99 % quantiles, see `merge`.

  Raises:
    errors.UserError: a value is not finite.
  """
  if not np.isfinite(sketches[:, 3]).all():
    raise errors.UserError("statistics: the array holds values that are not finite")
  merged = merge(list(sketches[:, 3:]), sketches[:, 0, 0].astype(np.int64).tolist())
  low, high, total = sketches[:, 5], sketches[:, -1], sketches[:, 0].sum(0)
  at_low = np.where(low - merged.min <= statistics.noise(merged.min), sketches[:, 1], 0).sum(0)
  at_high = np.where(merged.max - high <= statistics.noise(merged.max), sketches[:, 2], 0).sum(0)
  binary = statistics.two_valued(at_low / total, at_high / total, merged.min, merged.max)
  return dataclasses.replace(merged, binary=binary)


def merge(summaries: Sequence[np.ndarray], counts: Sequence[int]) -> Statistics:
  """Merges summaries into statistics of all their rows.

  Mean, standard deviation, minimum and maximum are exact. The 1 % and 99 % quantiles are computed
  from the mean of the distribution functions of the summaries. Each function is linear between the
  stored levels.

  Args:
    summaries: [S, D] each.
    counts: number of rows of each summary.
  """
  stacked, weights = np.stack(summaries), np.asarray(counts, np.float64)
  share = (weights / weights.sum())[:, None]
  mean = (share * stacked[:, 0]).sum(0)
  squares = (stacked[:, 1] + weights[:, None] * (stacked[:, 0] - mean) ** 2).sum(0)
  low, high = stacked[:, 2].min(0), stacked[:, -1].max(0)
  q01, q99 = (
    np.array([_quantile(stacked[:, 2:, d], share[:, 0], level) for d in range(stacked.shape[2])])
    for level in (0.01, 0.99)
  )
  return Statistics(int(weights.sum()), mean, np.sqrt(squares / weights.sum()), low, high, q01, q99)


def _quantile(levels: np.ndarray, share: np.ndarray, level: float) -> float:
  """A quantile of all rows, computed by bisection.

  Args:
    levels: quantiles at `LEVELS` of each of the n summaries, [n, len(LEVELS)].
    share: share of the rows in each summary, [n].
    level: of the quantile, 0 to 1.
  """
  levels = np.ascontiguousarray(levels)
  low, high = float(levels.min()), float(levels.max())
  for _ in range(60):
    middle = (low + high) / 2
    # Summed in order, so the result does not depend on how numpy divides the sum.
    below = np.cumsum(share * _shares_below(levels, middle))[-1]
    low, high = (middle, high) if below < level else (low, middle)
  return high


def _shares_below(levels: np.ndarray, value: float) -> np.ndarray:
  """Share of the rows of each summary up to a value, [n]; what np.interp gives for each."""
  left = (levels <= value).sum(1) - 1
  inside = (left >= 0) & (left < levels.shape[1] - 1)
  at, rows = np.where(inside, left, 0), np.arange(len(levels))
  start, end = levels[rows, at], levels[rows, at + 1]
  width = np.where(inside, end - start, 1.0)
  between = (LEVELS[at + 1] - LEVELS[at]) / width * (value - start) + LEVELS[at]
  return np.where(
    inside, np.where(start == value, LEVELS[at], between), np.where(left < 0, 0.0, 1.0)
  )
