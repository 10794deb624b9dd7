"""Compares recipes that were trained several times: the unit is the run, not the episode.

The episodes of one trained policy share its weights. Many of them say much about that policy, but
little about its recipe. So two recipes are compared by the differences of R paired runs (same seed,
same initial states). If runs depend on an earlier model (a policy on the labels of a motion model),
the unit for statements about kinds of that model is the model: `by_model`.

Rates and differences are fractions; a "point" is 0.01.

Sources: Student's t (scipy.stats); Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
Legend: R runs, N episodes.
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
  """The first recipe minus the second.

  Attributes:
    difference: mean difference over the units, its limits, and the number of units. Without an
      interval the limits are -1 and 1.
    p: two-sided p-value of "the recipes are equal"; 1 without an interval.
    deviation: standard deviation of the differences (with n - 1); 0 for one unit.
    unit: "run" or "motion model".
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
  """Standard deviations of a paired difference.

  Attributes:
    between: between runs, if each had infinitely many episodes.
    within: of one episode within a run.
  """

  between: float
  within: float

  def deviation(self, episodes: int) -> float:
    """Standard deviation of the difference of two paired runs of N episodes, for `detectable`."""
    return math.sqrt(self.between**2 + self.within**2 / episodes)


def paired(
  first: Sequence[float], second: Sequence[float], *, level: float = 0.95, unit: str = "run"
) -> Comparison:
  """Student's t test over the differences of paired runs.

  Args:
    first: success rate of each run [R].
    second: success rate of the other recipe's run with the same seed and initial states [R].
    level: confidence level of the interval.
    unit: see `Comparison`.

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
  # One unit, or equal differences: there were too few episodes to show a spread.
  if not deviation > 1e-12:
    return Comparison(success.Interval(value, -1.0, 1.0, len(a)), 1.0, 0.0, unit)
  from scipy import stats

  test = stats.ttest_1samp(differences, 0.0)
  low, high = test.confidence_interval(level)
  interval = success.Interval(value, float(low), float(high), len(a))
  _, p = np.asarray(test)
  return Comparison(interval, float(p), deviation, unit)


def by_model(
  first: Sequence[float],
  second: Sequence[float],
  models: Sequence[Hashable],
  *,
  level: float = 0.95,
) -> Comparison:
  """`paired` with the motion model as the unit, for statements about kinds of motion models.

  Args:
    first: as for `paired` [R].
    second: as for `paired` [R].
    models: motion model (or pair of motion models) that each run depends on [R].
    level: confidence level of the interval.

  Raises:
    errors.UserError: unequal lengths, no run, or rates outside 0..1.
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
      float(np.mean([rate for rate, model in zip(rates, models, strict=False) if model == name]))
      for name in names
    ]
    for rates in (a, b)
  ]
  return paired(*means, level=level, unit="motion model")


def components(first: Sequence[Sequence[bool]], second: Sequence[Sequence[bool]]) -> Components:
  """Random-effects variance of paired runs, estimated by moments.

  It separates the variance between runs from the variance of their episodes.

  Args:
    first: outcomes [R][N].
    second: outcomes of the other recipe from the same initial states [R][N].

  Raises:
    errors.UserError: fewer than two runs or two episodes, or unequal numbers of them.
  """
  sizes = {len(outcomes) for outcomes in (*first, *second)}
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
  """The smallest true difference that `paired` detects with probability `power`.

  It is the power of the t test, integrated over the distribution of the estimated standard
  deviation of few units. It is infinite for one unit.

  Args:
    units: number of runs or of motion models.
    deviation: standard deviation of their paired differences (`Comparison.deviation`, `pooled`, or
      `Components.deviation`).
    comparisons: number of comparisons in the table; Holm's first step divides the level by it.
    power: probability of detection.
    level: confidence level.
  """
  if units < 2:
    return math.inf
  from scipy import optimize, stats

  critical = float(stats.t.ppf(1 - (1 - level) / (2 * comparisons), units - 1))
  # The ratio of the estimated to the true standard deviation, at the midpoints of 4,000 equally
  # likely intervals. (scipy.stats.nct is not finite everywhere.)
  spread = np.sqrt(stats.chi2.ppf((np.arange(4000) + 0.5) / 4000, units - 1) / (units - 1))

  def excess_power(shift: float) -> float:
    """Power minus the target power, for a true difference of `shift` standard errors."""
    return (
      float(
        np.mean(
          stats.norm.cdf(shift - critical * spread) + stats.norm.cdf(-shift - critical * spread)
        )
      )
      - power
    )

  high = 2.0 * critical
  while excess_power(high) < 0:
    high *= 2
  root = optimize.brentq(excess_power, 0.0, high)
  assert isinstance(root, float)  # a pair only with full_output
  return root * deviation / math.sqrt(units)


def detectable_episodes(
  episodes: int, *, rate: float = 0.5, power: float = 0.8, level: float = 0.95
) -> float:
  """The smallest detectable difference of two trained policies (not recipes).

  It uses the normal approximation, for unrelated episodes.

  Args:
    episodes: number of episodes N of each policy.
    rate: success rate near which both policies are; 0.5 is the worst case.
    power: probability of detection.
    level: confidence level.

  Raises:
    errors.UserError: fewer than one episode.
  """
  if episodes < 1:
    raise errors.UserError(f"{episodes} episodes: expected at least one")
  normal = statistics.NormalDist()
  quantiles = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)
  return min(1.0, quantiles * math.sqrt(2 * rate * (1 - rate) / episodes))


def pooled(deviations: Sequence[float]) -> float:
  """Pools the standard deviations of comparisons with equal numbers of runs: root mean square."""
  return (
    math.sqrt(math.fsum(deviation * deviation for deviation in deviations) / len(deviations))
    if len(deviations)
    else 0.0
  )


def holm(p: Sequence[float]) -> list[float]:
  """Adjusts the p-values of several comparisons by Holm's method.

  The probability that any adjusted value below 0.05 is a false positive is at most 5 %.
  """
  adjusted, worst = [0.0] * len(p), 0.0
  for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
    worst = max(worst, min(1.0, (len(p) - rank) * p[i]))
    adjusted[i] = worst
  return adjusted


def equivalent(low: float, high: float, margin: float) -> bool:
  """Whether two recipes are equivalent: the whole interval is within plus or minus the margin.

  Args:
    low: lower limit of the interval.
    high: upper limit of the interval.
    margin: in the unit of the limits.

  Raises:
    errors.UserError: the margin is not positive.
  """
  if not margin > 0:
    raise errors.UserError(f"margin = {margin}: expected a number above 0")
  return -margin <= low and high <= margin


def _rates(values: Sequence[float]) -> np.ndarray:
  rates = np.asarray(values, np.float64)
  if rates.ndim != 1 or not len(rates) or not ((rates >= 0) & (rates <= 1)).all():
    raise errors.UserError(
      f"success of runs {rates.tolist()}: expected one rate within 0..1 for each of at least "
      "one run"
    )
  return rates
