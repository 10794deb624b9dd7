"""Success rates with intervals, and comparisons of success rates.

All results are computed from counts, without sampling and without a seed.

A rate over ten episodes has an uncertainty of plus or minus thirty points, so every rate has an
interval. Two policies that started from the same initial states are compared in pairs.

Sources: Wilson 1927 (one rate); Newcombe, Statistics in Medicine 17 (1998) 873-890 method 10 (two
independent rates) and 2635-2650 method 10 (paired rates); Zou and Donner 2008 (the same
construction for a mean of several rates); Fisher's exact test; McNemar's exact test.
Legend: N episodes, T tasks.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from como_jax import errors

# Two-sided 95 % points of Student's t for 1 to 10 degrees of freedom; `_t95` has the rest.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclasses.dataclass(frozen=True)
class Interval:
  """An estimate with its limits, as fractions.

  Attributes:
    value: the estimate.
    low, high: limits of the interval.
    count: number of episodes, pairs or runs.
  """

  value: float
  low: float
  high: float
  count: int

  def __str__(self) -> str:
    return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

  def to_json(self) -> dict[str, float | int]:
    """The fields as a dict."""
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The first rate minus the second.

  Attributes:
    difference: the difference with its interval.
    p: exact two-sided p-value of "the rates are equal".
  """

  difference: Interval
  p: float

  def __str__(self) -> str:
    value, low, high = (
      100 * x for x in (self.difference.value, self.difference.low, self.difference.high)
    )
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}], p = {self.p:.3g}"


@dataclasses.dataclass(frozen=True)
class Spread:
  """Spread of one number over repeated runs (training seeds).

  Attributes:
    mean: mean of the runs.
    deviation: standard deviation (with n - 1); 0 for a single run.
    low, high: smallest and largest value.
    interval: 95 % t interval of the mean; None for a single run.
    count: number of runs.
  """

  mean: float
  deviation: float
  low: float
  high: float
  interval: tuple[float, float] | None
  count: int


def rate(successes: int, episodes: int, *, level: float = 0.95) -> Interval:
  """Success rate with Wilson's interval.

  Raises:
    errors.UserError: no episode, or impossible counts.
  """
  if episodes < 1 or not 0 <= successes <= episodes:
    raise errors.UserError(
      f"{successes} successes of {episodes} episodes: expected at least one episode and no more "
      "successes than those"
    )
  z2 = _z(level) ** 2
  p, n = successes / episodes, episodes
  middle = (p + z2 / (2 * n)) / (1 + z2 / n)
  half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
  # At 0 and n successes, one limit equals the estimate; rounding must not move it past it.
  low, high = 0.0 if successes == 0 else middle - half, 1.0 if successes == n else middle + half
  return Interval(p, low, high, n)


def mean_over_tasks(counts: Mapping[str, tuple[int, int]], *, level: float = 0.95) -> Interval:
  """Unweighted mean of the rates of tasks, with a stratified interval.

  Tasks are fixed and only their episodes are random, so the limits are combined as independent
  errors: each task contributes the distance to its own Wilson limit. For a single task, this is
  Wilson's interval.

  Args:
    counts: task -> (successes, episodes).
    level: confidence level of the interval.

  Raises:
    errors.UserError: no task, or a task without episodes.
  """
  if not counts:
    raise errors.UserError("a mean over tasks needs at least one task")
  rates = [rate(*pair, level=level) for pair in counts.values()]
  mean = math.fsum(interval.value for interval in rates) / len(rates)
  below = math.sqrt(math.fsum((interval.value - interval.low) ** 2 for interval in rates)) / len(
    rates
  )
  above = math.sqrt(math.fsum((interval.high - interval.value) ** 2 for interval in rates)) / len(
    rates
  )
  return Interval(
    mean, max(0.0, mean - below), min(1.0, mean + above), sum(interval.count for interval in rates)
  )


def compare(first: tuple[int, int], second: tuple[int, int], *, level: float = 0.95) -> Comparison:
  """Compares two policies on unrelated episodes: Newcombe's interval and Fisher's exact test.

  Args:
    first: (successes, episodes).
    second: the same for the policy that is subtracted.
    level: confidence level of the interval.
  """
  a, b = rate(*first, level=level), rate(*second, level=level)
  value = a.value - b.value
  interval = Interval(
    value,
    value - math.hypot(a.value - a.low, b.high - b.value),
    value + math.hypot(a.high - a.value, b.value - b.low),
    a.count + b.count,
  )
  return Comparison(interval, _fisher(*first, *second))


def compare_paired(
  first: Sequence[bool], second: Sequence[bool], *, level: float = 0.95
) -> Comparison:
  """Compares two policies on the same N initial states.

  It uses Newcombe's paired interval and McNemar's exact test.

  Args:
    first: success of each episode [N].
    second: success of the policy that is subtracted, from the same initial states [N].
    level: confidence level of the interval.

  Raises:
    errors.UserError: unequal lengths, or no episodes.
  """
  if len(first) != len(second) or not len(first):
    raise errors.UserError(
      f"a paired comparison of {len(first)} and {len(second)} episodes: expected the same "
      "episodes of both"
    )
  pairs = [(bool(a), bool(b)) for a, b in zip(first, second, strict=False)]
  both, only_first = pairs.count((True, True)), pairs.count((True, False))
  only_second, neither = pairs.count((False, True)), pairs.count((False, False))
  n = len(pairs)
  a, b = rate(both + only_first, n, level=level), rate(both + only_second, n, level=level)
  phi = _correlation(both, only_first, only_second, neither)
  value = (only_first - only_second) / n

  def distance(x: float, y: float) -> float:
    return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))

  interval = Interval(
    value,
    value - distance(a.value - a.low, b.high - b.value),
    value + distance(a.high - a.value, b.value - b.low),
    n,
  )
  return Comparison(interval, _mcnemar(only_first, only_second))


def over_runs(values: Sequence[float]) -> Spread:
  """Mean and spread of one number over runs that differ in their seed.

  Raises:
    errors.UserError: no run.
  """
  if not len(values):
    raise errors.UserError("a spread over runs needs at least one run")
  values = [float(value) for value in values]
  n, mean = len(values), statistics.fmean(values)
  deviation = statistics.stdev(values) if n > 1 else 0.0
  interval = None
  if n > 1:
    half = _t95(n - 1) * deviation / math.sqrt(n)
    interval = (mean - half, mean + half)
  return Spread(mean, deviation, min(values), max(values), interval, n)


def _z(level: float) -> float:
  if not 0 < level < 1:
    raise errors.UserError(f"level = {level}: expected a number between 0 and 1")
  return statistics.NormalDist().inv_cdf((1 + level) / 2)


def _t95(freedom: int) -> float:
  """Two-sided 95 % point of Student's t: from the table, then by Fisher's expansion.

  The error of the expansion is below 2e-4. Source: Abramowitz and Stegun, 26.7.5.
  """
  if freedom <= len(_T95):
    return _T95[freedom - 1]
  z = _z(0.95)
  terms = (
    (z**3 + z) / 4,
    (5 * z**5 + 16 * z**3 + 3 * z) / 96,
    (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
  )
  return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
  """Newcombe's phi, with a continuity correction if it is positive; 0 if a margin is empty."""
  product = (
    (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
  )
  if not product:
    return 0.0
  cross = both * neither - only_first * only_second
  half = (both + only_first + only_second + neither) / 2
  return (max(cross - half, 0.0) if cross > 0 else cross) / math.sqrt(product)


def _fisher(first: int, n_first: int, second: int, n_second: int) -> float:
  """p-value of Fisher's exact test.

  It sums all tables with these margins that are at most as likely as the observed table, in
  integers, so that ties are exact.
  """
  total = first + second

  def weight(x: int) -> int:
    return math.comb(n_first, x) * math.comb(n_second, total - x)

  observed = weight(first)
  weights = [weight(x) for x in range(max(0, total - n_second), min(n_first, total) + 1)]
  return sum(w for w in weights if w <= observed) / sum(weights)


def _mcnemar(only_first: int, only_second: int) -> float:
  """p-value of McNemar's exact test: a two-sided binomial test of the pairs that differ."""
  n, smaller = only_first + only_second, min(only_first, only_second)
  return min(1.0, 2 * sum(math.comb(n, k) for k in range(smaller + 1)) / 2**n)
