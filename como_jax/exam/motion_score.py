"""How much of the move z tells, between what one picture and what both pictures tell.

Legend: M pairs, A target dimensions.

e = mean over dimensions of min(1, sum over pairs of the squared error / sum of the squared target):
0 = the move is known, 1 = nothing is known (an error above that of the mean counts as 1: being
worse than knowing nothing says nothing). Both sums are over the same pairs, in a bootstrap's draw
too: whether the moves drawn are large or small is no part of the error. S = (e_single - e_z) /
(e_single - e_both): 0 = no more than the better of two single pictures, 1 = as much as both.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.exam import resampling
from como_jax.exam.resampling import Estimate

# e of a few hundred moves is known to about 0.01 to 0.02. Where both pictures gain less than this
# over one, dividing by the gain makes that 0.2 to 0.4 of S; a gain of 0 makes S meaningless. Then S
# is withheld.
CLEAR = 0.05


@dataclasses.dataclass(frozen=True)
class Moves:
  """The pairs that are asked about.

  Attributes:
    groups: of the pairs [M] (moves or chains): all pairs of one are drawn together.
    squares: of the targets [M, A], in the unit of the errors; None: 1 for every pair.
    limit: the smallest e that any reader of one picture can have, where it is known from how the
      moves were drawn. It counts as a control of one picture that has no sampling error.
  """

  groups: Any
  squares: Any = None
  limit: float | None = None

  def __getitem__(self, rows: Any) -> "Moves":
    squares = None if self.squares is None else np.asarray(self.squares)[rows]
    return Moves(np.asarray(self.groups).reshape(-1)[rows], squares, self.limit)


@dataclasses.dataclass(frozen=True)
class Score:
  """S of a latent; nan, with the reason in `withheld`, where pictures do not tell moves well enough
  to ask.

  Attributes:
    s: S with its interval.
    z, single, both: e of the latent, of the better single-picture control, of the better control on
      both.
    gain: e_single - e_both, paired.
    by_dimension: the latent's error in each dimension [A], not capped.
    chosen_single, chosen_both: positions of the controls that were taken; -1: the limit of one
      picture.
    withheld: reason, or "".
    groups: number of groups drawn.
  """

  s: Estimate
  z: Estimate
  single: Estimate
  both: Estimate
  gain: Estimate
  by_dimension: np.ndarray
  chosen_single: int
  chosen_both: int
  withheld: str
  groups: int


@dataclasses.dataclass(frozen=True)
class Spread:
  """The score of each level of a view's property (camera, scene), the moves being the same;
  `deviation` and `range` of S over the levels where it is not withheld (nan where there are fewer
  than two).
  """

  levels: tuple[Any, ...]
  scores: tuple[Score, ...]
  deviation: float
  range: float


def pair_errors(predicted: Any, target: Any, variance: Any) -> np.ndarray:
  """Squared errors in units of each dimension's variance, [M, A].

  Args:
    predicted, target: [M, A].
    variance: [A], above 0: of the targets, over the test's moves.

  Raises:
    errors.UserError: unequal shapes, a variance that is not above 0.
  """
  predicted, target, variance = (
    np.asarray(v, dtype=np.float64) for v in (predicted, target, variance)
  )
  if (
    predicted.shape != target.shape or predicted.ndim != 2 or variance.shape != predicted.shape[1:]
  ):
    raise errors.UserError(
      f"pair_errors: predicted, target and variance are {list(predicted.shape)}, "
      f"{list(target.shape)} and {list(variance.shape)}, expected [M, A], [M, A] and [A]"
    )
  if not (variance > 0).all():
    raise errors.UserError(f"variance: expected numbers above 0, found {variance.min():g}")
  return (predicted - target) ** 2 / variance


def capped(means: np.ndarray) -> np.ndarray:
  """E [...] of mean errors [..., A]."""
  return np.minimum(1.0, means).mean(axis=-1)


def e(values: Any, squares: Any = None) -> float:
  """E of errors [M, A]; `squares` as in `Moves`."""
  values = _table(values, "errors")
  return float(
    capped(
      values.mean(axis=0) / (1.0 if squares is None else _squares(squares, values).mean(axis=0))
    )
  )


def e_estimate(
  values: Any, moves: Moves, *, seed: int = 0, resamples: int = resampling.RESAMPLES
) -> Estimate:
  """E of errors [M, A] with its interval over groups."""
  (mean,), (drawn,), _ = _means([_table(values, "errors")], moves, seed, resamples)
  return resampling.estimate(capped(mean), capped(drawn))


def difference(
  one: Any, other: Any, moves: Moves, *, seed: int = 0, resamples: int = resampling.RESAMPLES
) -> Estimate:
  """e_one - e_other of errors [M, A] of the same pairs: below 0 where the first knows more.

  Paired draws.
  """
  one = _table(one, "errors")
  means, drawn, _ = _means([one, _same(other, one, "the other's errors")], moves, seed, resamples)
  return resampling.estimate(*(capped(a) - capped(b) for a, b in (means, drawn)))


def score(
  single: Any,
  z: Any,
  both: Any,
  moves: Moves,
  *,
  seed: int = 0,
  resamples: int = resampling.RESAMPLES,
) -> Score:
  """S of a latent, with intervals over groups.

  Args:
    single: errors [M, A] of a control that sees one picture, or a list of such: the one with the
      smallest e counts.
    z: errors of the latent [M, A], of the same pairs.
    both: as `single`, of controls that see both pictures.
    moves: the pairs.
    seed, resamples: of the bootstrap.

  Raises:
    errors.UserError: unequal shapes, fewer than two groups, values that are not finite.
  """
  z = _table(z, "z's errors")
  singles = [_same(values, z, "single's errors") for values in _candidates(single)]
  boths = [_same(values, z, "both's errors") for values in _candidates(both)]
  chosen = [
    int(np.argmin([e(values, moves.squares) for values in some])) for some in (singles, boths)
  ]
  asked = [singles[chosen[0]], z, boths[chosen[1]]]
  means, drawn, number = _means(asked, moves, seed, resamples)
  (one, ours, two), (one_b, ours_b, two_b) = (
    tuple(capped(m) for m in some) for some in (means, drawn)
  )
  if moves.limit is not None and moves.limit < one:
    one, one_b, chosen[0] = moves.limit, np.full_like(one_b, moves.limit), -1
  gain = resampling.estimate(one - two, one_b - two_b)
  withheld = ""
  s = Estimate(float("nan"))
  if gain.low > CLEAR:
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw in 2,000 may have no gain
      ratio = (one_b - ours_b) / (one_b - two_b)
    s = resampling.estimate((one - ours) / (one - two), ratio[np.isfinite(ratio)])
  else:
    withheld = (
      f"both pictures are not clearly better than one: e_single - e_both is {gain}, expected an "
      f"interval above {CLEAR:g}, below which the noise of e is a large part of S"
    )
  return Score(
    s=s,
    z=resampling.estimate(ours, ours_b),
    single=resampling.estimate(one, one_b),
    both=resampling.estimate(two, two_b),
    gain=gain,
    by_dimension=means[1],
    chosen_single=chosen[0],
    chosen_both=chosen[1],
    withheld=withheld,
    groups=number,
  )


def spread(
  single: Any,
  z: Any,
  both: Any,
  moves: Moves,
  *,
  levels: Any,
  seed: int = 0,
  resamples: int = resampling.RESAMPLES,
) -> Spread:
  """The score in each level [M] (camera, scene) of the pairs alone; arguments as for `score`.

  The controls are chosen over all pairs, so that every level is asked the same question.

  Raises:
    errors.UserError: as `score`; a level with pairs of fewer than two groups.
  """
  levels = np.asarray(levels).reshape(-1)
  whole = score(single, z, both, moves, seed=seed, resamples=2)
  limit = moves.limit if whole.chosen_single < 0 else None
  one = _table(_candidates(single)[max(0, whole.chosen_single)], "single's errors")
  two = _table(_candidates(both)[whole.chosen_both], "both's errors")
  z, moves = _table(z, "z's errors"), dataclasses.replace(moves, limit=limit)
  names = tuple(np.unique(levels).tolist())
  scores = tuple(
    score(one[rows], z[rows], two[rows], moves[rows], seed=seed, resamples=resamples)
    for rows in (levels == name for name in names)
  )
  known = np.array([found.s.value for found in scores if not found.withheld])
  many = len(known) > 1
  return Spread(
    names,
    scores,
    float(known.std(ddof=1)) if many else float("nan"),
    float(np.ptp(known)) if many else float("nan"),
  )


def _candidates(values: Any) -> Sequence[Any]:
  return values if isinstance(values, list | tuple) else [values]


def _table(values: Any, name: str) -> np.ndarray:
  values = np.asarray(values, dtype=np.float64)
  if values.ndim != 2 or not values.size:
    raise errors.UserError(f"{name}: expected [pairs, dimensions], found {list(values.shape)}")
  wrong = int((~np.isfinite(values)).any(axis=1).sum())
  if wrong:
    raise errors.UserError(f"{name}: {wrong} of {len(values)} rows hold values that are not finite")
  return values


def _same(values: Any, like: np.ndarray, name: str) -> np.ndarray:
  values = _table(values, name)
  if values.shape != like.shape:
    raise errors.UserError(
      f"{name}: expected {list(like.shape)}, as z's errors, found {list(values.shape)}"
    )
  return values


def _squares(values: Any, like: np.ndarray) -> np.ndarray:
  values = _same(values, like, "squares")
  if not (values.sum(axis=0) > 0).all():
    raise errors.UserError("squares: a number that is asked for never moves")
  return values


def _means(
  tables: list[np.ndarray], moves: Moves, seed: int, resamples: int
) -> tuple[list[np.ndarray], list[np.ndarray], int]:
  """Of errors [M, A] of the same pairs: (each one's mean in units of the mean square [A], that of
  each draw [B, A], number of groups).
  """
  groups = np.asarray(moves.groups).reshape(-1)
  if len(groups) != len(tables[0]):
    raise errors.UserError(
      f"groups: expected [{len(tables[0])}], one for each pair, found [{len(groups)}]"
    )
  draws = resampling.groups_of(groups, seed=seed, resamples=resamples)
  means, drawn = map(list, zip(*(draws.means(values) for values in tables), strict=False))
  if moves.squares is None:
    return means, drawn, draws.number
  unit, unit_drawn = draws.means(_squares(moves.squares, tables[0]))
  return [m / unit for m in means], [m / unit_drawn for m in drawn], draws.number
