"""The questions of the verdict: does z hold motion?

Each is answered from the rows of metrics.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from como_jax.report.explain import METRICS

Rows = Mapping[str, Mapping[str, tuple[float, float | None]]]
Answer = tuple[bool, str] | str  # (passed, evidence), or why it is not known

RANK_FLOOR = 1.5
CAMERA = 0.1  # maximum excess with which the camera may be predicted from z
HALF = 0.5  # share of a target's variance; with a larger error, less than half is explained
# Margins by which a model must be better, as shares of the error of the other row and of a copy.
PROBE_GAP, DRAWING_GAP = 0.02, 0.02
UNCERTAIN = "fewer than two held-out motions: no error bar"
TOO_FEW = 0.05  # as `evaluate.linear_probe.TOO_FEW`


@dataclasses.dataclass(frozen=True)
class Ask:
  """A question of the verdict.

  Attributes:
    question: the text, with {target} for the target of the probes.
    no: text of the headline if the answer is no.
    answer: (rows, "" or "state_") -> (passed, evidence), or the reason why it is not known.
    needed: whether "no" means that z is not usable.
    motion: whether the headline says that z holds motion only after a "yes". The other questions
      can have a "yes" without any motion in z.
  """

  question: str
  no: str
  answer: Callable[[Rows, str], Answer]
  needed: bool = True
  motion: bool = False


def better_than(other: str, gain: str) -> Callable[[Rows, str], Answer]:
  """Returns the question whether z predicts the target better than another row.

  z must be better by 2 % of the other error, and by twice the standard error of the paired
  difference. If the latter is not known, the standard errors of both rows are combined.

  Args:
    other: name of the other row.
    gain: metric of the paired difference.
  """

  def answer(rows: Rows, prefix: str) -> Answer:
    name = prefix + "lp_mse"
    if name not in rows["trained"] or name not in rows[other]:
      return "not measured"
    trained, reference = rows["trained"], rows[other]
    for row in (trained, reference):
      if row.get(prefix + "lp_half", row[name])[0] - row[name][0] > TOO_FEW:
        half = row[prefix + "lp_half"][0]
        return (
          f"too few windows: fitted on half of them the error is {half:.3f} and not "
          f"{row[name][0]:.3f}"
        )
    paired = trained.get(prefix + gain)
    error = paired[1] if paired else _combined(trained[name][1], reference[name][1])
    if error is None:
      return UNCERTAIN
    margin = max(PROBE_GAP * reference[name][0], 2 * error)
    useful = (
      trained[prefix + "lp_r2"][0] > 0 if prefix + "lp_r2" in trained else trained[name][0] < 1
    )
    evidence = (
      f"{METRICS[name].title} {trained[name][0]:.3f} against {reference[name][0]:.3f} (gap needed: "
      f"{margin:.3f})"
    )
    return bool(reference[name][0] - trained[name][0] > margin and useful), evidence

  return answer


def _combined(first: float | None, second: float | None) -> float | None:
  """Standard error of a difference from those of both numbers; None if one is not known."""
  return None if first is None or second is None else float(np.hypot(first, second))


def _pictures(rows: Rows, prefix: str) -> Answer:
  score, gain = (
    rows["trained"].get(prefix + "motion_score"),
    rows.get("both-pictures", {}).get(prefix + "motion_gain"),
  )
  if score:
    if score[1] is None:
      return UNCERTAIN
    needed = 2 * score[1]
    return score[0] > needed, f"S = {score[0]:.2f} on other cameras (needed: above {needed:.2f})"
  if gain:
    error = gain[1] or 0.0
    return (
      f"withheld: on other cameras both pictures tell {gain[0]:.3f} ± {error:.3f} more than one"
    )
  return "not measured: it takes probes fitted on some cameras and scored on others"


def _camera(rows: Rows, prefix: str) -> Answer:
  excess = rows["trained"].get("camera_excess")
  if not excess:
    return "not measured: it takes several cameras"
  needed = max(CAMERA, 2 * (excess[1] or 0.0))
  return (
    excess[0] <= needed,
    f"{excess[0]:.2f} of the way from chance to certainty (needed: at most "
    f"{needed:.2f}{_untrained_value(rows, 'camera_excess', 2)})",
  )


def _same_motion(rows: Rows, prefix: str) -> Answer:
  for name, kind in (
    # motion_contrast is preferred: for retrieval, the nearest z may only be of the same task.
    ("motion_contrast", "cosine above other moments'"),
    ("retrieval_gain", "the nearest z's action is more alike than chance by"),
  ):
    if gain := rows["trained"].get(name):
      if gain[1] is None:
        return UNCERTAIN
      needed = 2 * gain[1]
      return gain[0] > needed, f"{kind} {gain[0]:.3f} (needed: above {needed:.3f})"
  return "not measured: it takes several cameras or scenes"


def _reconstruction(rows: Rows, prefix: str) -> Answer:
  name = "copy_ratio_moving" if "copy_ratio_moving" in rows["trained"] else "copy_ratio"
  ratio = rows["trained"].get(name)
  if not ratio:
    return "not measured"
  value, maximum, kind = (
    ratio[0],
    1 - DRAWING_GAP,
    " on moving pixels" if name == "copy_ratio_moving" else "",
  )
  return value < maximum, f"error is {value:.3f} of the copy's{kind} (needed: below {maximum:g})"


def _rank(rows: Rows, prefix: str) -> Answer:
  if "effective_rank" not in rows["trained"]:
    return "not measured"
  rank, beside = rows["trained"]["effective_rank"][0], _untrained_value(rows, "effective_rank", 2)
  return rank > RANK_FLOOR, f"effective rank {rank:.2f} (needed: {RANK_FLOOR}{beside})"


def _untrained_value(rows: Rows, name: str, digits: int) -> str:
  return (
    f"; untrained: {rows['untrained'][name][0]:.{digits}f}" if name in rows["untrained"] else ""
  )


ASKS = (
  Ask(
    "Does z tell the {target} better than the untrained model?",
    "z tells the {target} no better than the untrained model",
    better_than("untrained", "lp_gain"),
    motion=True,
  ),
  Ask(
    "Does z tell it better than as many components of the untrained feature difference?",
    "z tells the {target} no better than components of the encoder's features, which need no "
    "training",
    better_than("difference", "lp_gain_difference"),
    motion=True,
  ),
  Ask(
    "Does z tell more of it than either picture alone, on other cameras?",
    "z tells the {target} no better than a single picture",
    _pictures,
    motion=True,
  ),
  Ask("Is the camera hidden from z?", "the camera can be read from z", _camera, needed=False),
  Ask(
    "Is the same motion found again from another camera or scene?",
    "the same motion is not found again elsewhere",
    _same_motion,
    needed=False,
  ),
  Ask(
    "Does z help to draw the future?",
    "pictures drawn with z are no better than copies",
    _reconstruction,
  ),
  Ask(
    "Does z use several directions?", "z uses hardly more than one direction", _rank, needed=False
  ),
)
