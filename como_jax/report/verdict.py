"""The verdict of the report: does z hold motion?

It puts the questions of `questions` to the rows of metrics.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax.report.explain import TRUE_CHANGE, TRUE_STATE, value_of
from como_jax.report.questions import ASKS, HALF, Ask, Rows, better_than


@dataclasses.dataclass(frozen=True)
class Check:
  """The answer to a question, with the numbers that support it."""

  question: str
  passed: bool
  evidence: str


@dataclasses.dataclass(frozen=True)
class Verdict:
  """The verdict.

  Attributes:
    headline: the verdict as a sentence.
    level: "good", "mixed" or "bad".
    checks: the answered questions.
    missing: (question, reason) of the questions that could not be answered.
  """

  headline: str
  level: str
  checks: tuple[Check, ...]
  missing: tuple[tuple[str, str], ...]


def judge(metrics: Mapping[str, Mapping[str, Any]]) -> Verdict | None:
  """Judges from metrics whether z holds motion.

  The questions about probes use the action as target, or the change of the robot's state if actions
  are positions or missing. Whether actions are positions is in "action_positions". If actions and
  states cannot be compared, it is estimated from the rows of the robot's state.

  Args:
    metrics: row -> metric -> value or (value, standard error), as in `ReportData`.

  Returns:
    The verdict; None if there is no "trained" row, or if no question can be answered and the row
    has no probe.
  """
  rows = {name: _finite_values(row) for name, row in metrics.items()}
  rows = {"trained": {}, "untrained": {}, "difference": {}} | rows
  prefix, reason = _target(rows)
  target = "change of the robot's state" if prefix else "action"
  checks, missing, failed, unknown = [], [], [], ""
  for ask in ASKS:
    question, answer = ask.question.format(target=target), ask.answer(rows, prefix)
    if isinstance(answer, str):
      missing.append((question, answer))
      unknown = unknown or (answer if ask.motion else "")
      continue
    checks.append(
      Check(question, answer[0], answer[1] + (f"; {reason}" if reason and not checks else ""))
    )
    if not answer[0]:
      failed.append(ask)
  if not checks and not any("lp_mse" in name for name in rows["trained"]):
    return None
  return Verdict(*_headline(failed, missing, unknown, target), tuple(checks), tuple(missing))


def _headline(
  failed: Sequence[Ask], missing: Sequence[Any], unknown: str, target: str
) -> tuple[str, str]:
  """The headline and the level of a verdict.

  Args:
    failed: questions with the answer no.
    missing: questions without an answer.
    unknown: why it is not known whether z holds motion; "" if it is known.
    target: target of the probes.
  """
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
  """The target of the probes: ("" for the action or "state_", why not the action)."""

  def measured(prefix):
    return prefix + "lp_mse" in rows["trained"]

  if not measured("state_"):
    return "", ""
  share = rows["trained"].get("action_positions", (0.0, None))[0]
  if share > 0:
    return "state_", f"{100 * share:.0f} % of the actions are positions, not motions"
  guess = "" if _predicts_action(rows) else _positions(rows)
  return ("state_", guess) if guess or not measured("") else ("", "")


def _predicts_action(rows: Rows) -> bool:
  """Whether z predicts most of the action itself, so that actions need not be positions."""
  answer = better_than("untrained", "lp_gain")(rows, "")
  return not isinstance(answer, str) and answer[0] and rows["trained"]["lp_mse"][0] < HALF


def _positions(rows: Rows) -> str:
  """Why actions look like positions, if they cannot be compared with the states; else "".

  They look like positions if the robot's true change explains less than half of their variance, and
  its state clearly more. Without states in the data it is not known, and the result is "".
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


def _finite_values(row: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
  values = {name: value_of(entry) for name, entry in row.items() if entry is not None}
  return {name: value for name, value in values.items() if np.isfinite(value[0])}
