"""Success rates and what may be said about them.

Everything is exact arithmetic on counts: no sampling, no seed.

Ten episodes are plus or minus thirty points, so every rate comes with an interval, and two policies
that met the same initial states are compared in pairs.

Sources: Wilson 1927 (one rate); Newcombe, Statistics in Medicine 17 (1998) 873-890 method 10 (two
independent rates) and 2635-2650 method 10 (paired rates); Zou and Donner 2008 (the same
construction for a mean of several rates); Fisher's exact test; McNemar's exact test. Legend: N
episodes, T tasks.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from como_jax import errors

# Two-sided 95 % points of Student's t by degrees of freedom; `_t95` goes on from there.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclasses.dataclass(frozen=True)
class Interval:
  """An estimate with its limits, as fractions; `count` is what it rests on (episodes, pairs or
  runs).
  """

  value: float
  low: float
  high: float
  count: int

  def __str__(self) -> str:
    return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

  def to_json(self) -> dict[str, float | int]:
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """First minus second rate with its interval, and the exact two-sided p-value of "they are
  equal".
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
  """Of one number over repeated runs (training seeds).

  Attributes:
    mean: of the runs.
    deviation: standard deviation with n - 1, 0 for a single run.
    low, high: smallest and largest run.
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
    errors.UserError: no episode, or counts that cannot be.
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
  # At 0 and n one limit is exactly the estimate; rounding must not put it on the other side.
  low, high = 0.0 if successes == 0 else middle - half, 1.0 if successes == n else middle + half
  return Interval(p, low, high, n)


def mean_over_tasks(counts: Mapping[str, tuple[int, int]], *, level: float = 0.95) -> Interval:
  """Unweighted mean of the tasks' rates with a stratified interval.

  The tasks are fixed, only their episodes are drawn, so the limits add up as independent errors:
  each task contributes the distance to its own Wilson limit. One task gives Wilson's interval
  again.

  Args:
    counts: task -> (successes, episodes).

  Raises:
    errors.UserError: no task, or a task without episodes.
  """
  if not counts:
    raise errors.UserError("a mean over tasks needs at least one task")
  rates = [rate(*pair, level=level) for pair in counts.values()]
  mean = math.fsum(one.value for one in rates) / len(rates)
  below = math.sqrt(math.fsum((one.value - one.low) ** 2 for one in rates)) / len(rates)
  above = math.sqrt(math.fsum((one.high - one.value) ** 2 for one in rates)) / len(rates)
  return Interval(
    mean, max(0.0, mean - below), min(1.0, mean + above), sum(one.count for one in rates)
  )


def compare(first: tuple[int, int], second: tuple[int, int], *, level: float = 0.95) -> Comparison:
  """Two policies on unrelated episodes: Newcombe's interval and Fisher's exact test.

  Args:
    first: (successes, episodes).
    second: the same of the policy that is subtracted.
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
  """Two policies on the same N initial states: Newcombe's paired interval and McNemar's exact test.

  Args:
    first: success of each episode, [N].
    second: success of the other policy from the same initial states, [N].

  Raises:
    errors.UserError: unequal lengths or nothing to compare.
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
  """Fisher's expansion beyond the table, where it is right to 2e-4 (Abramowitz and Stegun
  26.7.5).
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
  """Newcombe's phi, continuity-corrected when positive; 0 when a margin is empty."""
  product = (
    (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
  )
  if not product:
    return 0.0
  cross = both * neither - only_first * only_second
  half = (both + only_first + only_second + neither) / 2
  return (max(cross - half, 0.0) if cross > 0 else cross) / math.sqrt(product)


def _fisher(first: int, n_first: int, second: int, n_second: int) -> float:
  """Sum over all tables with these margins that are no likelier than the one seen (integers, so
  ties are exact).
  """
  total = first + second

  def weight(x: int) -> int:
    return math.comb(n_first, x) * math.comb(n_second, total - x)

  seen = weight(first)
  weights = [weight(x) for x in range(max(0, total - n_second), min(n_first, total) + 1)]
  return sum(w for w in weights if w <= seen) / sum(weights)


def _mcnemar(only_first: int, only_second: int) -> float:
  """Two-sided binomial test of the pairs that differ."""
  n, least = only_first + only_second, min(only_first, only_second)
  return min(1.0, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2**n)
