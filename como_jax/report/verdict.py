"""The verdict of the report: is it motion?

A table of questions, each answered from the rows of numbers.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from como_jax.report.explain import METRICS, TRUE_CHANGE, TRUE_STATE, value_of

Rows = Mapping[str, Mapping[str, tuple[float, float | None]]]
Answer = tuple[bool, str] | str  # (passed, evidence), or why it is not known

RANK_FLOOR = 1.5
CAMERA = 0.1  # of the way from chance to certainty: so much of the camera may be read from z
HALF = 0.5  # of a target's variance: what leaves more of it tells less than half
# by which a model has to be better: of the other's error, of the copy's
PROBE_GAP, DRAWING_GAP = 0.02, 0.02
UNCERTAIN = "fewer than two held-out motions: no error bar"
TOO_FEW = 0.05  # as `evaluate.linear_probe.TOO_FEW`


@dataclasses.dataclass(frozen=True)
class Check:
  question: str
  passed: bool
  evidence: str


@dataclasses.dataclass(frozen=True)
class Verdict:
  headline: str
  level: str  # "good", "mixed" or "bad"
  checks: tuple[Check, ...]
  missing: tuple[tuple[str, str], ...]  # (question, reason) of those that could not be answered


@dataclasses.dataclass(frozen=True)
class Ask:
  """A question of the verdict.

  Attributes:
    question: with {target} for what the probes predict.
    no: the headline's words where the answer is no.
    answer: (rows, "" or "state_") -> (passed, evidence), or the reason why that is not known.
    needed: whether "no" says that z is not usable.
    motion: whether the headline needs a "yes" to say that z holds motion; the other questions can
      be passed without any.
  """

  question: str
  no: str
  answer: Callable[[Rows, str], Answer]
  needed: bool = True
  motion: bool = False


def judge(metrics: Mapping[str, Mapping[str, Any]]) -> Verdict | None:
  """Is it motion?

  None when there is no "trained" row or none of its numbers speaks to the question.

  The probes' questions are asked for the action, or for the change of the robot's state where
  actions are positions (told directly in "action_positions"; where actions and states cannot be
  compared, guessed from the rows of the robot's own numbers) or are not there.
  """
  rows = {name: _known(row) for name, row in metrics.items()}
  rows = {"trained": {}, "untrained": {}, "difference": {}} | rows
  prefix, why = _target(rows)
  target = "change of the robot's state" if prefix else "action"
  checks, missing, failed, unknown = [], [], [], ""
  for ask in ASKS:
    question, found = ask.question.format(target=target), ask.answer(rows, prefix)
    if isinstance(found, str):
      missing.append((question, found))
      unknown = unknown or (found if ask.motion else "")
      continue
    checks.append(Check(question, found[0], found[1] + (f"; {why}" if why and not checks else "")))
    if not found[0]:
      failed.append(ask)
  if not checks and not any("lp_mse" in name for name in rows["trained"]):
    return None
  return Verdict(*_headline(failed, missing, unknown, target), tuple(checks), tuple(missing))


def _headline(
  failed: Sequence[Ask], missing: Sequence[Any], unknown: str, target: str
) -> tuple[str, str]:
  """(headline, level); unknown: why it is not known whether z holds motion, "" where it is."""
  reasons = "; ".join(ask.no.format(target=target) for ask in failed)
  if any(ask.needed for ask in failed):
    return f"Not yet: {reasons}.", "bad"
  if unknown:
    also = f" What is known: {reasons}." if failed else ""
    return f"Not known: whether z is motion or appearance was not told ({unknown}).{also}", "mixed"
  if failed:
    return f"Partly: z tells motion, but {reasons}.", "mixed"
  if missing:
    return "So far yes, but not everything was measured.", "mixed"
  return (
    (
      "Yes, as far as this data can tell: every sign says that z is motion. The exam "
      "(configs/probe.py:exam) asks where no picture tells."
    ),
    "good",
  )


def _target(rows: Rows) -> tuple[str, str]:
  """("" for the action or "state_", why not the action)."""

  def has(prefix):
    return prefix + "lp_mse" in rows["trained"]

  if not has("state_"):
    return "", ""
  share = rows["trained"].get("action_positions", (0.0, None))[0]
  if share > 0:
    return "state_", f"{100 * share:.0f} % of the actions are positions, not motions"
  guess = "" if _told(rows) else _positions(rows)
  return ("state_", guess) if guess or not has("") else ("", "")


def _told(rows: Rows) -> bool:
  """Whether z tells most of the action itself, so that it need not be motion by another name."""
  found = _better_than("untrained", "lp_gain")(rows, "")
  return not isinstance(found, str) and found[0] and rows["trained"]["lp_mse"][0] < HALF


def _better_than(other: str, gain: str) -> Callable[[Rows, str], Answer]:
  """Whether z tells the target better than another row: by 2 % of its error, and twice the standard
  error of the paired difference (where that is not known, the joint one).
  """

  def answer(rows: Rows, prefix: str) -> Answer:
    name = prefix + "lp_mse"
    if name not in rows["trained"] or name not in rows[other]:
      return "not measured"
    ours, theirs = rows["trained"], rows[other]
    for row in (ours, theirs):
      if row.get(prefix + "lp_half", row[name])[0] - row[name][0] > TOO_FEW:
        half = row[prefix + "lp_half"][0]
        return (
          f"too few windows: fitted on half of them the error is {half:.3f} and not "
          f"{row[name][0]:.3f}"
        )
    paired = ours.get(prefix + gain)
    errors = (paired[1],) if paired else (ours[name][1], theirs[name][1])
    if None in errors:
      return UNCERTAIN
    error = np.hypot(*errors) if len(errors) > 1 else errors[0]
    margin = max(PROBE_GAP * theirs[name][0], 2 * error)
    useful = ours[prefix + "lp_r2"][0] > 0 if prefix + "lp_r2" in ours else ours[name][0] < 1
    evidence = (
      f"{METRICS[name].title} {ours[name][0]:.3f} against {theirs[name][0]:.3f} (gap needed: "
      f"{margin:.3f})"
    )
    return bool(theirs[name][0] - ours[name][0] > margin and useful), evidence

  return answer


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
    f"{needed:.2f}{_beside(rows, 'camera_excess', 2)})",
  )


def _again(rows: Rows, prefix: str) -> Answer:
  for name, kind in (
    # first: the nearest z may be that of the same task
    ("motion_contrast", "cosine above other moments'"),
    ("retrieval_gain", "the nearest z's action is more alike than chance by"),
  ):
    if found := rows["trained"].get(name):
      if found[1] is None:
        return UNCERTAIN
      needed = 2 * found[1]
      return found[0] > needed, f"{kind} {found[0]:.3f} (needed: above {needed:.3f})"
  return "not measured: it takes several cameras or scenes"


def _drawing(rows: Rows, prefix: str) -> Answer:
  name = "copy_ratio_moving" if "copy_ratio_moving" in rows["trained"] else "copy_ratio"
  ratio = rows["trained"].get(name)
  if not ratio:
    return "not measured"
  value, most, kind = (
    ratio[0],
    1 - DRAWING_GAP,
    " on moving pixels" if name == "copy_ratio_moving" else "",
  )
  return value < most, f"error is {value:.3f} of the copy's{kind} (needed: below {most:g})"


def _rank(rows: Rows, prefix: str) -> Answer:
  if "effective_rank" not in rows["trained"]:
    return "not measured"
  rank, beside = rows["trained"]["effective_rank"][0], _beside(rows, "effective_rank", 2)
  return rank > RANK_FLOOR, f"effective rank {rank:.2f} (needed: {RANK_FLOOR}{beside})"


ASKS = (
  Ask(
    "Does z tell the {target} better than the untrained model?",
    "z tells the {target} no better than the untrained model",
    _better_than("untrained", "lp_gain"),
    motion=True,
  ),
  Ask(
    "Does z tell it better than as many components of the untrained feature difference?",
    "z tells the {target} no better than components of the encoder's features, which need no "
    "training",
    _better_than("difference", "lp_gain_difference"),
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
    _again,
    needed=False,
  ),
  Ask(
    "Does z help to draw the future?", "pictures drawn with z are no better than copies", _drawing
  ),
  Ask(
    "Does z use several directions?", "z uses hardly more than one direction", _rank, needed=False
  ),
)


def _positions(rows: Rows) -> str:
  """Why the actions cannot be asked for, where they cannot be compared with the states: the robot's
  true change tells less than half of them and its state clearly more. "" where they can, or where
  the data have no state to know it from.
  """
  motion, position = (rows.get(row, {}).get("lp_mse") for row in (TRUE_CHANGE, TRUE_STATE))
  if (
    not motion
    or not position
    or motion[0] < HALF
    or motion[0] - position[0] <= 2 * np.hypot(motion[1] or 0.0, position[1] or 0.0)
  ):
    return ""
  return (
    "not asked for: the actions, which look like positions rather than motions (LP-MSE "
    f"{position[0]:.3f} from the robot's state, {motion[0]:.3f} from its true change)"
  )


def _beside(rows: Rows, name: str, digits: int) -> str:
  return (
    f"; untrained: {rows['untrained'][name][0]:.{digits}f}" if name in rows["untrained"] else ""
  )


def _known(row: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
  values = {name: value_of(entry) for name, entry in row.items() if entry is not None}
  return {name: value for name, value in values.items() if np.isfinite(value[0])}
