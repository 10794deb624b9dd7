"""Statistics of the numbers of a clip, small enough to be kept for each, that merge into those of
any selection of clips.

Legend: S rows of a summary, D numbers of a row of data.
"""

from collections.abc import Sequence

import numpy as np

from como_jax.data.statistics import Statistics

LEVELS = np.array(
  [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0]
)
# S: mean, sum of squared deviations from it, quantiles (the first is the minimum, the last the
# maximum)
SIZE = 2 + len(LEVELS)


def summarize(rows: np.ndarray) -> np.ndarray:
  """[n, D] or [n] with at least one row -> float64 [S, D]."""
  rows = np.asarray(rows, np.float64).reshape(len(rows), -1)
  mean = rows.mean(0)
  return np.concatenate(
    [mean[None], ((rows - mean) ** 2).sum(0)[None], np.quantile(rows, LEVELS, axis=0)]
  )


def merge(summaries: Sequence[np.ndarray], counts: Sequence[int]) -> Statistics:
  """Statistics of all rows behind some summaries [S, D] of `counts` rows each.

  Mean, deviation, minimum and maximum are exact. The 1 % and 99 % quantiles come from the mean of
  the pieces' distribution functions, linear between the kept levels.
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
  """The value below which a share `level` lies, of pieces with quantiles [n, len(LEVELS)] at
  `LEVELS`: by bisection.
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
