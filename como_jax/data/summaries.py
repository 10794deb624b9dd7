"""Summaries of the arrays of a clip, which can be merged into statistics of any set of clips.

A summary is small enough to be stored for each clip.

Legend: S rows of a summary, D numbers of a row of data.
"""

from collections.abc import Sequence

import numpy as np

from como_jax.data.statistics import Statistics

LEVELS = np.array(
  [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0]
)
# S. The rows of a summary: mean, sum of squared deviations from the mean, quantiles at `LEVELS`
# (the first is the minimum, the last is the maximum).
SIZE = 2 + len(LEVELS)


def summarize(rows: np.ndarray) -> np.ndarray:
  """The summary of rows [n, D] or [n], n at least 1: float64 [S, D]."""
  rows = np.asarray(rows, np.float64).reshape(len(rows), -1)
  mean = rows.mean(0)
  return np.concatenate(
    [mean[None], ((rows - mean) ** 2).sum(0)[None], np.quantile(rows, LEVELS, axis=0)]
  )


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
  low, high = float(levels.min()), float(levels.max())
  for _ in range(60):
    middle = (low + high) / 2
    below = sum(
      part * np.interp(middle, values, LEVELS, left=0.0, right=1.0)
      for part, values in zip(share, levels, strict=True)
    )
    low, high = (middle, high) if below < level else (low, middle)
  return high
