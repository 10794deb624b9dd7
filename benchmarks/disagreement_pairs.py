"""Pairs of latents that two kinds of measurement put in opposite order, with p-values.

A disagreement of a pair is shown if every difference in it is shown: of LP-MSE, of S-PCFC where it
is known, and of the exam's error. Its p is the largest p of these differences (intersection-union
test: Berger, Technometrics 24 (1982) 295-300), and 1 where the values do not disagree. Holm's
correction is over all pairs.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from disagreement_exam import Exam
from disagreement_rows import Measured, Row
from scipy import stats

from como_jax import errors
from como_jax.evaluate import consistency, runs
from como_jax.exam import exam_set, motion_score, resampling

PUBLISHED, EXAM = ("lp_mse", "s_pcfc"), "e_z"  # of all of them lower is better
LEVEL = 0.05
_SAME_WINDOWS = ("dataset", "episode", "time", "camera", "group")


@dataclasses.dataclass(frozen=True)
class Gap:
  """Difference of two latents: the first minus the second.

  Attributes:
    value: the difference.
    low: lower limit of the 95 % interval.
    high: upper limit.
    p: two-sided, of the hypothesis "equal".
    unit: what the interval is over, for example seeds.
  """

  value: float
  low: float = -math.inf
  high: float = math.inf
  p: float = 1.0
  unit: str = ""

  @property
  def clear(self) -> bool:
    """Whether the interval excludes 0."""
    return self.low > 0 or self.high < 0

  def __str__(self) -> str:
    return (
      f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
      if math.isfinite(self.low)
      else f"{self.value:+.3f}, no interval"
    )


# metric -> difference of two single latents
Within = Mapping[str, Callable[[Measured, Measured], Gap]]


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two latents whose values disagree.

  Attributes:
    published: the latent that LP-MSE (and S-PCFC) prefer.
    exam: the latent that the exam prefers.
    gaps: metric -> published minus exam; below 0 for the published metrics, above 0 for e_z.
    p: of the disagreement.
    holm: p after Holm's correction.
  """

  published: Row
  exam: Row
  gaps: dict[str, Gap]
  p: float
  holm: float = 1.0

  @property
  def clear(self) -> bool:
    """Whether the disagreement is shown."""
    return self.holm < LEVEL and all(gap.clear for gap in self.gaps.values())

  @property
  def unit(self) -> str:
    """What the intervals are over."""
    return "; ".join(dict.fromkeys(gap.unit for gap in self.gaps.values() if gap.unit))


@dataclasses.dataclass(frozen=True)
class Search:
  """Result of a search.

  Attributes:
    looked: number of compared pairs.
    pairs: pairs whose values disagree, in ascending order of p.
  """

  looked: int
  pairs: list[Pair]

  @property
  def clear(self) -> list[Pair]:
    """The pairs whose disagreement is shown."""
    return [pair for pair in self.pairs if pair.clear]


def search(rows: Sequence[Row], within: Within) -> Search:
  """Compares all pairs of rows."""
  combinations = list(itertools.combinations(rows, 2))
  compared = [_compare(a, b, within) for a, b in combinations]
  corrected = runs.holm([1.0 if pair is None else pair.p for pair in compared])
  pairs = [
    dataclasses.replace(pair, holm=p)
    for pair, p in zip(compared, corrected, strict=False)
    if pair is not None
  ]
  pairs.sort(key=lambda pair: (pair.holm, pair.p, -_strength(pair)))
  return Search(len(combinations), pairs)


def _strength(pair: Pair) -> float:
  """Minimum of the differences, each in units of half its interval."""
  return min(
    2 * abs(gap.value) / (gap.high - gap.low) if gap.high > gap.low else math.inf
    for gap in pair.gaps.values()
  )


def _compare(a: Row, b: Row, within: Within) -> Pair | None:
  """Compares two rows; None where their values do not disagree."""
  known = {
    metric: value for metric in (*PUBLISHED, EXAM) if (value := _value(a, b, metric)) is not None
  }
  signs = {np.sign(value) for metric, value in known.items() if metric != EXAM}
  if len(signs) != 1 or not (sign := signs.pop()) or np.sign(known[EXAM]) != -sign:
    return None
  first, second = (a, b) if sign < 0 else (b, a)
  gaps = {metric: gap(first, second, metric, within) for metric in known}
  return Pair(first, second, gaps, max(difference.p for difference in gaps.values()))


def gap(a: Row, b: Row, metric: str, within: Within) -> Gap:
  """Difference a - b of two rows.

  With two or more common seeds it is over seeds. Otherwise it is of two single latents.

  Args:
    a: first row.
    b: second row.
    metric: of the difference.
    within: differences of two single latents.
  """
  pairs = _matched(a, b, metric)
  if len(pairs) > 1:
    return over_seeds([first.value(metric) - second.value(metric) for first, second in pairs])
  return within[metric](*pairs[0])


def over_seeds(differences: Sequence[float]) -> Gap:
  """Student's t-test of paired differences."""
  values, unit = np.asarray(differences, np.float64), f"{len(differences)} seeds"
  if not values.std() > 1e-12:  # equal values have no spread
    return Gap(float(values.mean()), unit=unit)
  result = stats.ttest_1samp(values, 0.0)
  low, high = result.confidence_interval(0.95)
  return Gap(float(values.mean()), float(low), float(high), float(result.pvalue), unit)


def _value(a: Row, b: Row, metric: str) -> float | None:
  """Mean difference of two rows; None where a metric is unknown."""
  pairs = _matched(a, b, metric)
  if not pairs:
    return None
  return float(np.mean([first.value(metric) - second.value(metric) for first, second in pairs]))


def _matched(a: Row, b: Row, metric: str) -> list[tuple[Measured, Measured]]:
  """Pairs of runs with the same seed.

  A row without training is paired with every seed. Without a common seed, the first runs are a
  pair.
  """
  if a.trained and b.trained:
    pairs = [(a.runs[seed], b.runs[seed]) for seed in sorted(set(a.runs) & set(b.runs))] or [
      (a.first, b.first)
    ]
  elif a.trained:
    pairs = [(run, b.first) for run in a.runs.values()]
  else:
    pairs = [(a.first, run) for run in b.runs.values()]
  return [pair for pair in pairs if None not in (pair[0].value(metric), pair[1].value(metric))]


def of_latents(exam: Exam) -> Within:
  """Differences of two single latents: claims about these latents, not about recipes."""
  return {"lp_mse": lp_mse, "s_pcfc": s_pcfc, "e_z": lambda a, b: e_z(exam, a, b)}


def lp_mse(a: Measured, b: Measured) -> Gap:
  """Difference of LP-MSE, over held-out motions.

  The errors of single windows are not stored. The standard error is therefore an upper bound that
  holds for any correlation: the sum of the standard errors of both LP-MSE, or of both gains over a
  row that both latents were compared with, window by window.
  """
  bounds = [a.lp_mse[1] + b.lp_mse[1]]
  bounds += [
    error_a + error_b
    for base_a, error_a in a.gains
    for base_b, error_b in b.gains
    if math.isclose(base_a, base_b, rel_tol=1e-6)
  ]
  return normal(a.lp_mse[0] - b.lp_mse[0], min(bounds), "held-out motions")


def s_pcfc(a: Measured, b: Measured) -> Gap:
  """Difference of S-PCFC over held-out motions, paired by window.

  It has no interval if the past and the future of a latent are not stored.
  """
  value, arrays = a.s_pcfc - b.s_pcfc, []
  for latent in (a, b):
    path = latent.folder and latent.folder / "probe" / "latents.npz"
    if path is None or not path.is_file():
      return Gap(value)
    with np.load(path) as file:
      arrays.append(
        {name: file[name] for name in ("past", "future", *_SAME_WINDOWS) if name in file.files}
      )
  scores = [consistency.s_pcfc(stored["past"], stored["future"]) for stored in arrays]
  same = all(
    name in arrays[0] and name in arrays[1] and np.array_equal(arrays[0][name], arrays[1][name])
    for name in _SAME_WINDOWS
  )
  if not same or any(score.zeros for score in scores):
    return Gap(value)
  groups = resampling.groups_of(arrays[0]["group"])
  estimate = resampling.of_means(
    (scores[0].values - scores[1].values)[:, None], groups, lambda mean: mean[..., 0]
  )
  return _estimated(estimate, f"{groups.number} held-out motions")


def e_z(exam: Exam, a: Measured, b: Measured) -> Gap:
  """Difference of the exam's error over test chains, paired.

  It has no interval if the latents of a run are not stored or do not belong to the set.
  """
  if not (a.has_latents and b.has_latents):
    return Gap(a.e_z - b.e_z)
  test = exam.set.rows(exam_set.TEST)
  groups = exam.chains[test]
  moves = motion_score.Moves(groups, exam.set.target[test] ** 2 / exam.set.variance)
  try:
    estimate = motion_score.difference(exam.errors(a), exam.errors(b), moves)
  except errors.UserError as error:  # the latents of one run must not stop the table
    print(f"no interval: {error}", flush=True)
    return Gap(a.e_z - b.e_z)
  return _estimated(estimate, f"{len(np.unique(groups))} test chains")


def normal(value: float, error: float, unit: str) -> Gap:
  """Difference by the normal approximation; no interval without a standard error."""
  if not 0 < error < math.inf:
    return Gap(value)
  half_width = stats.norm.ppf(0.975) * error
  p = float(2 * stats.norm.sf(abs(value) / error))
  return Gap(value, value - half_width, value + half_width, p, unit)


def _estimated(estimate: resampling.Estimate, unit: str) -> Gap:
  p = float(2 * stats.norm.sf(abs(estimate.value) / estimate.error)) if estimate.error > 0 else 1.0
  return Gap(estimate.value, estimate.low, estimate.high, p, unit)


@dataclasses.dataclass(frozen=True)
class Correlation:
  """Correlation of the ranks of n rows; nan where there are too few rows.

  Attributes:
    spearman: Spearman's rho.
    kendall: Kendall's tau.
    p_spearman: two-sided p of rho, by permutations of the rows.
    p_kendall: two-sided p of tau.
    n: number of rows.
  """

  spearman: float
  kendall: float
  p_spearman: float
  p_kendall: float
  n: int


LEAST = 4  # minimum number of rows: with three rows, no order has a p below 0.3


def correlation(rows: Sequence[Row], metric: str) -> Correlation:
  """Correlates a published metric with the exam's error.

  It is over the rows that have both, with means over seeds.
  """
  values = [(value, row.mean(EXAM)) for row in rows if (value := row.mean(metric)) is not None]
  if len(values) < LEAST:
    return Correlation(*(math.nan,) * 4, len(values))
  x, y = np.array(values).T
  drawn = stats.permutation_test(
    (x,),
    lambda x: stats.spearmanr(x, y).statistic,
    permutation_type="pairings",
    n_resamples=9_999,
    rng=np.random.default_rng(0),
  )
  kendall = stats.kendalltau(x, y)
  return Correlation(
    float(drawn.statistic),
    float(kendall.statistic),
    float(drawn.pvalue),
    float(kendall.pvalue),
    len(values),
  )
