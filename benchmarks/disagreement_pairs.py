"""Which pairs of latents two kinds of measurement put in opposite order, and how sure that is.

A disagreement of a pair is shown where every difference in it is: of LP-MSE, of S-PCFC where it is
known, and of the exam's error. Its p is the largest of theirs (intersection-union test: Berger,
Technometrics 24 (1982) 295-300), and 1 where the values do not disagree; Holm's correction is over
all pairs.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from disagreement_rows import Exam, Measured, Row
from scipy import stats

from como_jax import errors
from como_jax.evaluate import consistency, runs
from como_jax.exam import exam_set, motion_score, resampling

PUBLISHED, EXAM = ("lp_mse", "s_pcfc"), "e_z"  # of all of them lower is better
LEVEL = 0.05
_SAME_WINDOWS = ("dataset", "episode", "time", "camera", "group")


@dataclasses.dataclass(frozen=True)
class Gap:
  """First less second latent, with its 95 % interval, two-sided p of "equal", and what the interval
  is over.
  """

  value: float
  low: float = -math.inf
  high: float = math.inf
  p: float = 1.0
  unit: str = ""

  @property
  def clear(self) -> bool:
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
  """Two latents whose values disagree: `published` is the one that LP-MSE (and S-PCFC) prefer,
  `exam` the one that the exam prefers.

  gaps: metric -> published less exam: below 0 for the published metrics, above for e_z. p, holm: of
    the disagreement, the latter corrected.
  """

  published: Row
  exam: Row
  gaps: dict[str, Gap]
  p: float
  holm: float = 1.0

  @property
  def clear(self) -> bool:
    return self.holm < LEVEL and all(gap.clear for gap in self.gaps.values())

  @property
  def unit(self) -> str:
    return "; ".join(dict.fromkeys(gap.unit for gap in self.gaps.values() if gap.unit))


@dataclasses.dataclass(frozen=True)
class Search:
  """`looked`: number of pairs; `pairs`: those whose values disagree, the surest first."""

  looked: int
  pairs: list[Pair]

  @property
  def clear(self) -> list[Pair]:
    return [pair for pair in self.pairs if pair.clear]


def search(rows: Sequence[Row], within: Within) -> Search:
  """Looks at all pairs of rows."""
  every = list(itertools.combinations(rows, 2))
  found = [_judge(a, b, within) for a, b in every]
  corrected = runs.holm([1.0 if pair is None else pair.p for pair in found])
  pairs = [
    dataclasses.replace(pair, holm=p)
    for pair, p in zip(found, corrected, strict=False)
    if pair is not None
  ]
  return Search(len(every), sorted(pairs, key=lambda pair: (pair.holm, pair.p, -_strength(pair))))


def _strength(pair: Pair) -> float:
  """The least of the differences in units of half their intervals."""
  return min(
    2 * abs(gap.value) / (gap.high - gap.low) if gap.high > gap.low else math.inf
    for gap in pair.gaps.values()
  )


def _judge(a: Row, b: Row, within: Within) -> Pair | None:
  """The pair in order, or None where its values do not disagree."""
  known = {
    metric: value for metric in (*PUBLISHED, EXAM) if (value := _value(a, b, metric)) is not None
  }
  signs = {np.sign(value) for metric, value in known.items() if metric != EXAM}
  if len(signs) != 1 or not (sign := signs.pop()) or np.sign(known[EXAM]) != -sign:
    return None
  one, other = (a, b) if sign < 0 else (b, a)
  gaps = {metric: gap(one, other, metric, within) for metric in known}
  return Pair(one, other, gaps, max(each.p for each in gaps.values()))


def gap(a: Row, b: Row, metric: str, within: Within) -> Gap:
  """A less b: over the seeds that both have where there are two or more, else of two latents, over
  what `within` draws again.
  """
  pairs = _matched(a, b, metric)
  return (
    over_seeds([one.value(metric) - other.value(metric) for one, other in pairs])
    if len(pairs) > 1
    else within[metric](*pairs[0])
  )


def over_seeds(differences: Sequence[float]) -> Gap:
  """Student's t of paired differences."""
  values, unit = np.asarray(differences, np.float64), f"{len(differences)} seeds"
  if not values.std() > 1e-12:  # as many equal numbers: they show no spread
    return Gap(float(values.mean()), unit=unit)
  found = stats.ttest_1samp(values, 0.0)
  low, high = found.confidence_interval(0.95)
  return Gap(float(values.mean()), float(low), float(high), float(found.pvalue), unit)


def _value(a: Row, b: Row, metric: str) -> float | None:
  pairs = _matched(a, b, metric)
  return (
    float(np.mean([one.value(metric) - other.value(metric) for one, other in pairs]))
    if pairs
    else None
  )


def _matched(a: Row, b: Row, metric: str) -> list[tuple[Measured, Measured]]:
  """Runs by the seeds that both have (a row without training goes with every seed); without a
  common seed, the first of each.
  """
  if a.trained and b.trained:
    pairs = [(a.runs[seed], b.runs[seed]) for seed in sorted(set(a.runs) & set(b.runs))] or [
      (a.first, b.first)
    ]
  elif a.trained:
    pairs = [(one, b.first) for one in a.runs.values()]
  else:
    pairs = [(a.first, one) for one in b.runs.values()]
  return [pair for pair in pairs if None not in (pair[0].value(metric), pair[1].value(metric))]


def of_latents(exam: Exam) -> Within:
  """Differences of two single latents: claims about these, not about recipes."""
  return {"lp_mse": lp_mse, "s_pcfc": s_pcfc, "e_z": lambda a, b: e_z(exam, a, b)}


def lp_mse(a: Measured, b: Measured) -> Gap:
  """Errors of single windows are not stored, so the standard error is a bound that holds whatever
  the
  correlation: the sum of both gains' over a row that both were compared with window by window, or
  of the two errors' own.
  """
  bounds = [a.lp_mse[1] + b.lp_mse[1]]
  bounds += [
    error + other
    for base, error in a.gains
    for same, other in b.gains
    if math.isclose(base, same, rel_tol=1e-6)
  ]
  return normal(a.lp_mse[0] - b.lp_mse[0], min(bounds), "held-out motions")


def s_pcfc(a: Measured, b: Measured) -> Gap:
  """Over held-out motions, paired by window; without an interval where a latent's past and future
  are not stored.
  """
  value, found = a.s_pcfc - b.s_pcfc, []
  for one in (a, b):
    path = one.folder and one.folder / "probe" / "latents.npz"
    if path is None or not path.is_file():
      return Gap(value)
    with np.load(path) as file:
      found.append(
        {name: file[name] for name in ("past", "future", *_SAME_WINDOWS) if name in file.files}
      )
  scores = [consistency.s_pcfc(each["past"], each["future"]) for each in found]
  same = all(
    name in found[0] and name in found[1] and np.array_equal(found[0][name], found[1][name])
    for name in _SAME_WINDOWS
  )
  if not same or any(score.zeros for score in scores):
    return Gap(value)
  groups = resampling.groups_of(found[0]["group"])
  estimate = resampling.of_means(
    (scores[0].values - scores[1].values)[:, None], groups, lambda mean: mean[..., 0]
  )
  return _estimated(estimate, f"{groups.number} held-out motions")


def e_z(exam: Exam, a: Measured, b: Measured) -> Gap:
  """Over test chains, paired; without an interval where a run's latents are not stored or do not
  fit.
  """
  if not (a.has_latents and b.has_latents):
    return Gap(a.e_z - b.e_z)
  test = exam.set.rows(exam_set.TEST)
  groups = exam.chains[test]
  moves = motion_score.Moves(groups, exam.set.target[test] ** 2 / exam.set.variance)
  try:
    estimate = motion_score.difference(exam.errors(a), exam.errors(b), moves)
  except errors.UserError as error:  # one run's latents do not stop the table
    print(f"no interval: {error}", flush=True)
    return Gap(a.e_z - b.e_z)
  return _estimated(estimate, f"{len(np.unique(groups))} test chains")


def normal(value: float, error: float, unit: str) -> Gap:
  """By the normal approximation; no interval without a standard error."""
  if not 0 < error < math.inf:
    return Gap(value)
  reach = stats.norm.ppf(0.975) * error
  return Gap(
    value, value - reach, value + reach, float(2 * stats.norm.sf(abs(value) / error)), unit
  )


def _estimated(found: resampling.Estimate, unit: str) -> Gap:
  p = float(2 * stats.norm.sf(abs(found.value) / found.error)) if found.error > 0 else 1.0
  return Gap(found.value, found.low, found.high, p, unit)


@dataclasses.dataclass(frozen=True)
class Correlation:
  """Of the ranks of n rows; nan where there are too few. p: two-sided, by permutations of the
  rows.
  """

  spearman: float
  kendall: float
  p_spearman: float
  p_kendall: float
  n: int


LEAST = 4  # rows: of three, no order has a p below 0.3


def correlation(rows: Sequence[Row], metric: str) -> Correlation:
  """A published metric against the exam's error, over the rows that have both (means over
  seeds).
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
