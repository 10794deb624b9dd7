"""The motion score in each camera or scene.

Legend: M pairs.
"""

import dataclasses
from typing import Any

import numpy as np

from como_jax.exam import motion_score, resampling
from como_jax.exam.motion_score import Score


@dataclasses.dataclass(frozen=True)
class Spread:
  """The scores of the levels of a view's property (camera, scene), on the same moves.

  Attributes:
    levels: the levels.
    scores: the score of each level.
    deviation: standard deviation of S over the levels where S is not withheld; nan if there are
      fewer than two.
    range: range of S over the same levels; nan if there are fewer than two.
  """

  levels: tuple[Any, ...]
  scores: tuple[Score, ...]
  deviation: float
  range: float


def over_levels(
  single: Any,
  z: Any,
  both: Any,
  moves: motion_score.Moves,
  *,
  levels: Any,
  seed: int = 0,
  resamples: int = resampling.RESAMPLES,
) -> Spread:
  """The score in each level of a property (camera, scene), on the pairs of that level alone.

  The controls are chosen over all pairs, so that all levels use the same controls.

  Args:
    single: as for `motion_score.score`.
    z: as for `motion_score.score`.
    both: as for `motion_score.score`.
    moves: as for `motion_score.score`.
    levels: level of each pair [M].
    seed: as for `motion_score.score`.
    resamples: as for `motion_score.score`.

  Raises:
    errors.UserError: as for `motion_score.score`, or a level has pairs of fewer than two groups.
  """
  levels = np.asarray(levels).reshape(-1)
  overall = motion_score.score(single, z, both, moves, seed=seed, resamples=2)
  limit = moves.limit if overall.chosen_single < 0 else None
  single_errors = motion_score.table(
    motion_score.candidates(single)[max(0, overall.chosen_single)], "single's errors"
  )
  both_errors = motion_score.table(
    motion_score.candidates(both)[overall.chosen_both], "both's errors"
  )
  z, moves = motion_score.table(z, "z's errors"), dataclasses.replace(moves, limit=limit)
  names = tuple(np.unique(levels).tolist())
  scores = tuple(
    motion_score.score(
      single_errors[rows], z[rows], both_errors[rows], moves[rows], seed=seed, resamples=resamples
    )
    for rows in (levels == name for name in names)
  )
  known = np.array([level.s.value for level in scores if not level.withheld])
  enough = len(known) > 1
  return Spread(
    names,
    scores,
    float(known.std(ddof=1)) if enough else float("nan"),
    float(np.ptp(known)) if enough else float("nan"),
  )
