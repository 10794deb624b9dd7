"""Success of recipes that were trained several times: the run is the unit, not the episode.

Episodes of one trained policy share its weights, so many of them say much about that policy and
little about its recipe: two recipes are compared by the differences of R runs that are paired (same
seed, same initial states). Where runs hang on a model before them (a policy on the labels of a
motion model), claims about kinds of that model have the model as the unit: `by_model`.

Sources: Student's t (scipy.stats); Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
Legend: R runs, N episodes. Rates and differences are fractions, a "point" is 0.01 of them.
"""

import dataclasses
import math
import statistics
from collections.abc import Hashable, Sequence

import numpy as np

from como_jax import errors
from como_jax.evaluate import success


@dataclasses.dataclass(frozen=True)
class Comparison:
  """First minus second recipe.

  Attributes:
    difference: mean over the units, its limits, and how many units it rests on. Without an interval
      the limits are -1 and 1.
    p: two-sided, of "the recipes are equal"; 1 without an interval.
    deviation: standard deviation of the units' differences, n - 1; 0 for one unit.
    unit: what was counted: "run" or "motion model".
  """

  difference: success.Interval
  p: float
  deviation: float
  unit: str = "run"

  @property
  def known(self) -> bool:
    """Whether there is an interval: more than one unit, and units that differ."""
    return self.deviation > 0

  def __str__(self) -> str:
    limits = (self.difference.value, self.difference.low, self.difference.high)
    value, low, high = (round(100 * x, 1) + 0.0 for x in limits)  # + 0.0: no "-0.0"
    count = f"n = {self.difference.count} {self.unit}{'s' * (self.difference.count != 1)}"
    return (
      f"{value:+.1f} points [{low:+.1f}, {high:+.1f}], p = {self.p:.3f}, {count}"
      if self.known
      else f"{value:+.1f} points, {count}: no interval"
    )


@dataclasses.dataclass(frozen=True)
class Components:
  """Standard deviations of a paired difference: `between` runs of endless episodes, and `within`:
  of one episode of one run.
  """

  between: float
  within: float

  def deviation(self, episodes: int) -> float:
    """Of the difference of two paired runs of N episodes each: what `detectable` asks for."""
    return math.sqrt(self.between**2 + self.within**2 / episodes)


def paired(
  first: Sequence[float], second: Sequence[float], *, level: float = 0.95, unit: str = "run"
) -> Comparison:
  """Student's t over the differences of paired runs.

  Args:
    first: success rate of each run, [R].
    second: of the run with the same seed and initial states of the other recipe, [R].

  Raises:
    errors.UserError: unequal lengths, no run, or rates outside 0..1.
  """
  a, b = _rates(first), _rates(second)
  if len(a) != len(b):
    raise errors.UserError(
      f"a comparison of {len(a)} and {len(b)} runs: expected as many of both, paired by seed"
    )
  differences = a - b
  value, deviation = (
    float(differences.mean()),
    float(differences.std(ddof=1)) if len(a) > 1 else 0.0,
  )
  # one unit, or units without any spread: the episodes were too few to show it
  if not deviation > 1e-12:
    return Comparison(success.Interval(value, -1.0, 1.0, len(a)), 1.0, 0.0, unit)
  from scipy import stats

  found = stats.ttest_1samp(differences, 0.0)
  low, high = found.confidence_interval(level)
  interval = success.Interval(value, float(low), float(high), len(a))
  return Comparison(interval, float(found.pvalue), deviation, unit)


def by_model(
  first: Sequence[float],
  second: Sequence[float],
  models: Sequence[Hashable],
  *,
  level: float = 0.95,
) -> Comparison:
  """`paired` with the motion model as the unit: what may be said about kinds of motion models.

  Args:
    first, second: as for `paired`, [R].
    models: which motion model (or pair of them) a run hangs on, [R].
  """
  a, b = _rates(first), _rates(second)
  if not len(a) == len(b) == len(models):
    raise errors.UserError(
      f"{len(a)} and {len(b)} runs of {len(models)} motion models: expected one for each pair "
      "of runs"
    )
  names = list(dict.fromkeys(models))
  means = [
    [
      float(np.mean([rate for rate, one in zip(rates, models, strict=False) if one == name]))
      for name in names
    ]
    for rates in (a, b)
  ]
  return paired(*means, level=level, unit="motion model")


def components(first: Sequence[Sequence[bool]], second: Sequence[Sequence[bool]]) -> Components:
  """Random-effects variance of paired runs, by moments: what runs differ by beyond what their
  episodes explain.

  Args:
    first: outcomes [R][N].
    second: of the other recipe from the same initial states, [R][N].

  Raises:
    errors.UserError: fewer than two runs or two episodes, or unequal numbers of them.
  """
  sizes = {len(one) for one in (*first, *second)}
  if len(first) != len(second) or len(first) < 2 or len(sizes) != 1 or min(sizes) < 2:
    raise errors.UserError(
      f"components of {len(first)} and {len(second)} runs with {sorted(sizes)} episodes: expected "
      "at least two paired runs of one number of episodes"
    )
  differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
  within = float(differences.var(1, ddof=1).mean())
  between = float(differences.mean(1).var(ddof=1)) - within / differences.shape[1]
  return Components(math.sqrt(max(0.0, between)), math.sqrt(within))


def detectable(
  units: int, deviation: float, *, comparisons: int = 1, power: float = 0.8, level: float = 0.95
) -> float:
  """The smallest true difference that `paired` calls clear of zero with probability `power`;
  infinite for one unit.

  The power of the t test, integrated over what the deviation of so few units may come out as.

  Args:
    units: runs, or motion models.
    deviation: standard deviation of their paired differences (`Comparison.deviation`, `pooled`, or
      `Components.deviation`).
    comparisons: of the table; the level of Holm's first step is shared by so many.
  """
  if units < 2:
    return math.inf
  from scipy import optimize, stats

  point = stats.t.ppf(1 - (1 - level) / (2 * comparisons), units - 1)
  # The estimated deviation over the true one, at the middles of 4,000 equally likely parts.
  # (scipy's nct is not finite everywhere.)
  spread = np.sqrt(stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, units - 1) / (units - 1))

  def missing(shift: float) -> float:
    """Power over the wanted one where the true difference is so many standard errors."""
    return (
      float(
        np.mean(stats.norm.cdf(shift - point * spread) + stats.norm.cdf(-shift - point * spread))
      )
      - power
    )

  high = 2.0 * point
  while missing(high) < 0:
    high *= 2
  return float(optimize.brentq(missing, 0.0, high)) * deviation / math.sqrt(units)


def detectable_episodes(
  episodes: int, *, rate: float = 0.5, power: float = 0.8, level: float = 0.95
) -> float:
  """The same for two trained policies (not recipes) on N unrelated episodes each, by the normal
  approximation.

  Args:
    episodes: of each policy.
    rate: about which the two lie; 0.5 is the worst.
  """
  if episodes < 1:
    raise errors.UserError(f"{episodes} episodes: expected at least one")
  normal = statistics.NormalDist()
  reach = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)
  return min(1.0, reach * math.sqrt(2 * rate * (1 - rate) / episodes))


def pooled(deviations: Sequence[float]) -> float:
  """One standard deviation of several comparisons of as many runs each: the root of their mean
  square.
  """
  return (
    math.sqrt(math.fsum(one * one for one in deviations) / len(deviations))
    if len(deviations)
    else 0.0
  )


def holm(p: Sequence[float]) -> list[float]:
  """p-values of several comparisons, so adjusted that the chance of any false one among those below
  0.05 is at most 5 %.
  """
  adjusted, worst = [0.0] * len(p), 0.0
  for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
    worst = max(worst, min(1.0, (len(p) - rank) * p[i]))
    adjusted[i] = worst
  return adjusted


def equivalent(low: float, high: float, margin: float) -> bool:
  """Whether "equal" may be said: the whole interval lies within plus or minus the margin (in the
  same unit).

  Raises:
    errors.UserError: a margin that is not positive.
  """
  if not margin > 0:
    raise errors.UserError(f"margin = {margin}: expected a number above 0")
  return -margin <= low and high <= margin


def _rates(values: Sequence[float]) -> np.ndarray:
  found = np.asarray(values, np.float64)
  if found.ndim != 1 or not len(found) or not ((found >= 0) & (found <= 1)).all():
    raise errors.UserError(
      f"success of runs {found.tolist()}: expected one rate within 0..1 for each of at least "
      "one run"
    )
  return found
