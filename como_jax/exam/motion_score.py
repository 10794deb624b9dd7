"""The motion score S: how well z predicts the move, compared with one picture and with both.

Legend: M pairs, A target dimensions.

e = mean over dimensions of min(1, sum over pairs of the squared error / sum of the squared target).
0 = the move is known, 1 = nothing is known. An error above that of the mean counts as 1, because a
prediction that is worse than the mean carries no information. Both sums are over the same pairs, in
every bootstrap draw too, so that e does not depend on the size of the moves that were drawn.

S = (e_single - e_z) / (e_single - e_both). 0 = no better than the better of two single pictures,
1 = as good as both pictures.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.exam import resampling
from como_jax.exam.resampling import Estimate

# Minimum gain e_single - e_both. On a few hundred moves, e has a standard error of 0.01 to 0.02. A
# gain of 0.05 turns that into 0.2 to 0.4 of S; with a gain of 0, S has no meaning. If the gain is
# not clearly above this value, S is withheld.
CLEAR = 0.05


@dataclasses.dataclass(frozen=True)
class Moves:
  """The pairs that are scored.

  Attributes:
    groups: group (move or chain) of each pair [M]; the pairs of a group are drawn together.
    squares: squared targets [M, A], in the unit of the errors; None: 1 for every pair.
    limit: the smallest e that is possible from one picture, if it is known from the distribution of
      the moves. It counts as a single-picture control without sampling error.
  """

  groups: Any
  squares: Any = None
  limit: float | None = None

  def __getitem__(self, rows: Any) -> "Moves":
    squares = None if self.squares is None else np.asarray(self.squares)[rows]
    return Moves(np.asarray(self.groups).reshape(-1)[rows], squares, self.limit)


@dataclasses.dataclass(frozen=True)
class Score:
  """S of a latent.

  Attributes:
    s: S with its interval; nan if it is withheld.
    z, single, both: e of the latent, of the best single-picture control, and of the best control on
      both pictures.
    gain: e_single - e_both, paired.
    by_dimension: error of the latent in each dimension [A], not capped at 1.
    chosen_single, chosen_both: indices of the best controls; -1: the limit of one picture.
    withheld: why S is withheld, or "": the controls on both pictures are not clearly better than
      those on one.
    groups: number of groups.
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


def pair_errors(predicted: Any, target: Any, variance: Any) -> np.ndarray:
  """Squared errors [M, A] in units of the variance of each dimension.

  Args:
    predicted: [M, A].
    target: [M, A].
    variance: variance of the targets over the moves of the test [A], above 0.

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
  """Mean over dimensions, each capped at 1: mean errors [..., A] -> e [...]."""
  return np.minimum(1.0, means).mean(axis=-1)


def e(values: Any, squares: Any = None) -> float:
  """The value of e for errors [M, A]; `squares` as in `Moves`."""
  values = table(values, "errors")
  return float(
    capped(
      values.mean(axis=0) / (1.0 if squares is None else _squares(squares, values).mean(axis=0))
    )
  )


def e_estimate(
  values: Any, moves: Moves, *, seed: int = 0, resamples: int = resampling.RESAMPLES
) -> Estimate:
  """The value of e for errors [M, A], with its interval over groups."""
  (mean,), (drawn,), _ = _means([table(values, "errors")], moves, seed, resamples)
  return resampling.estimate(capped(mean), capped(drawn))


def difference(
  first: Any, second: Any, moves: Moves, *, seed: int = 0, resamples: int = resampling.RESAMPLES
) -> Estimate:
  """Difference of two e: e of the first errors minus e of the second.

  It is below 0 if the first is better. Both use the same bootstrap draws (paired).

  Args:
    first: errors [M, A] of the same pairs.
    second: as `first`.
    moves: the pairs.
    seed: seed of the bootstrap.
    resamples: number of bootstrap draws.

  Raises:
    errors.UserError: unequal shapes, fewer than two groups, values that are not finite.
  """
  first = table(first, "errors")
  means, drawn, _ = _means(
    [first, _table_like(second, first, "the other's errors")], moves, seed, resamples
  )
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
    single: errors [M, A] of a control that sees one picture, or a list of such errors; the control
      with the smallest e is used.
    z: errors of the latent [M, A] on the same pairs.
    both: as `single`, for controls that see both pictures.
    moves: the pairs.
    seed: seed of the bootstrap.
    resamples: number of bootstrap draws.

  Raises:
    errors.UserError: unequal shapes, fewer than two groups, values that are not finite.
  """
  z = table(z, "z's errors")
  singles = [_table_like(values, z, "single's errors") for values in candidates(single)]
  boths = [_table_like(values, z, "both's errors") for values in candidates(both)]
  chosen = [
    int(np.argmin([e(values, moves.squares) for values in controls]))
    for controls in (singles, boths)
  ]
  tables = [singles[chosen[0]], z, boths[chosen[1]]]
  means, drawn, number = _means(tables, moves, seed, resamples)
  (e_single, e_z, e_both), (drawn_single, drawn_z, drawn_both) = (
    tuple(capped(m) for m in table) for table in (means, drawn)
  )
  if moves.limit is not None and moves.limit < e_single:
    e_single, drawn_single, chosen[0] = moves.limit, np.full_like(drawn_single, moves.limit), -1
  gain = resampling.estimate(e_single - e_both, drawn_single - drawn_both)
  withheld = ""
  s = Estimate(float("nan"))
  if gain.low > CLEAR:
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw in 2,000 may have no gain
      ratio = (drawn_single - drawn_z) / (drawn_single - drawn_both)
    s = resampling.estimate((e_single - e_z) / (e_single - e_both), ratio[np.isfinite(ratio)])
  else:
    withheld = (
      f"both pictures are not clearly better than one: e_single - e_both is {gain}, expected an "
      f"interval above {CLEAR:g}, below which the noise of e is a large part of S"
    )
  return Score(
    s=s,
    z=resampling.estimate(e_z, drawn_z),
    single=resampling.estimate(e_single, drawn_single),
    both=resampling.estimate(e_both, drawn_both),
    gain=gain,
    by_dimension=means[1],
    chosen_single=chosen[0],
    chosen_both=chosen[1],
    withheld=withheld,
    groups=number,
  )


def candidates(values: Any) -> Sequence[Any]:
  """The controls of `score`: errors of one control count as a list of one."""
  return values if isinstance(values, list | tuple) else [values]


def table(values: Any, name: str) -> np.ndarray:
  """Checks errors [M, A] and converts them to float64.

  Args:
    values: the errors.
    name: name of the errors in error messages.

  Raises:
    errors.UserError: another rank, no rows, or values that are not finite.
  """
  values = np.asarray(values, dtype=np.float64)
  if values.ndim != 2 or not values.size:
    raise errors.UserError(f"{name}: expected [pairs, dimensions], found {list(values.shape)}")
  wrong = int((~np.isfinite(values)).any(axis=1).sum())
  if wrong:
    raise errors.UserError(f"{name}: {wrong} of {len(values)} rows hold values that are not finite")
  return values


def _table_like(values: Any, like: np.ndarray, name: str) -> np.ndarray:
  values = table(values, name)
  if values.shape != like.shape:
    raise errors.UserError(
      f"{name}: expected {list(like.shape)}, as z's errors, found {list(values.shape)}"
    )
  return values


def _squares(values: Any, like: np.ndarray) -> np.ndarray:
  values = _table_like(values, like, "squares")
  if not (values.sum(axis=0) > 0).all():
    raise errors.UserError("squares: a number that is asked for never moves")
  return values


def _means(
  tables: list[np.ndarray], moves: Moves, seed: int, resamples: int
) -> tuple[list[np.ndarray], list[np.ndarray], int]:
  """Mean errors in units of the mean squared target, over all pairs and for each bootstrap draw.

  Args:
    tables: errors [M, A] of the same pairs.
    moves: the pairs.
    seed: seed of the bootstrap.
    resamples: number of bootstrap draws.

  Returns:
    (means [A] of each table, means [B, A] of the draws of each table, number of groups).
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
