"""Bootstrap over groups, computed from the sums of each group without a loop over draws.

Legend: M rows, G groups, B draws, K columns.

A group is a chain of moves with all its views. Groups are drawn whole, because the pairs of a chain
are not independent. Cameras and scenes are fixed, not drawn, so intervals hold for the cameras and
scenes of the set.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from como_jax import errors

RESAMPLES = 2000
LEVELS = (2.5, 97.5)  # percentiles of an interval


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A number, its standard error, and the ends of its 95 % interval."""

  value: float
  error: float = float("nan")
  low: float = float("nan")
  high: float = float("nan")

  def __str__(self) -> str:
    return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclasses.dataclass(frozen=True)
class Groups:
  """The groups of rows, and how often each draw takes each group.

  Attributes:
    index: group number of each row [M].
    counts: how often a draw takes a group [B, G].
  """

  index: np.ndarray
  counts: np.ndarray

  @property
  def number(self) -> int:
    """The number of groups G."""
    return self.counts.shape[1]

  def sums(self, values: np.ndarray) -> np.ndarray:
    """Sums over the rows of each group: [M, K] -> [G, K]."""
    result = np.zeros((self.number, values.shape[1]))
    np.add.at(result, self.index, values)
    return result

  def means(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over rows [M, K]: (over all rows [K], over the rows of each draw [B, K])."""
    sums, sizes = self.sums(values), np.bincount(self.index, minlength=self.number)
    return values.mean(axis=0), (self.counts @ sums) / (self.counts @ sizes)[:, None]


def groups_of(groups: Any, *, seed: int = 0, resamples: int = RESAMPLES) -> Groups:
  """Draws whole groups with replacement, as many as there are.

  Args:
    groups: group of each row [M], numbers or text.
    seed: seed of the draws; statistics with the same seed and groups are paired.
    resamples: number of draws.

  Raises:
    errors.UserError: fewer than two groups.
  """
  names, index = np.unique(np.asarray(groups).reshape(-1), return_inverse=True)
  if len(names) < 2:
    raise errors.UserError(f"an interval needs at least 2 groups, found {len(names)}")
  rng = np.random.default_rng(seed)
  counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
  return Groups(index, counts.astype(np.float64))


def estimate(value: npt.ArrayLike, draws: np.ndarray) -> Estimate:
  """A value (one number) with the standard error and the interval of its draws [B]."""
  low, high = np.percentile(draws, LEVELS)
  return Estimate(float(np.asarray(value)), float(np.std(draws, ddof=1)), float(low), float(high))


def of_means(
  values: Any, groups: Groups, statistic: Callable[[np.ndarray], np.ndarray]
) -> Estimate:
  """Estimate of a statistic of column means.

  Args:
    values: [M, K].
    groups: groups of the rows, with the draws.
    statistic: means [..., K] -> [...].
  """
  mean, draws = groups.means(np.asarray(values, dtype=np.float64))
  return estimate(float(statistic(mean)), statistic(draws))
