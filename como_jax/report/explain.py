"""How to read each number, and the verdict: has the model learnt motion?"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Metric:
  title: str
  better: str  # "lower", "higher" or "" (only with the others)
  reading: str  # what good and bad look like
  digits: int = 3


METRICS: dict[str, Metric] = {
  "lp_mse": Metric(
    "LP-MSE",
    "lower",
    "Error of a linear layer that reads the true action from z, on held-out episodes, in units of the action's "
    "variance. "
    "1: z says nothing about the action; 0: everything. Good: clearly below the untrained model. Actions that are positions "
    "(absolute targets) rather than motions stay near 1 whatever z is: then the state's change is what to read.",
  ),
  "lp_gain": Metric(
    "LP gain",
    "higher",
    "LP-MSE of the untrained model minus this one's, sample by sample on the same held-out episodes: the error bar says "
    "whether the gain is real. Good: above twice its error.",
  ),
  "lp_mse_raw": Metric(
    "LP-MSE, raw", "lower", "The same in squared units of the action, so it compares only runs on the same data.", 4
  ),
  "lp_r2": Metric(
    "LP R²",
    "higher",
    "Share of the action's held-out variance that the linear layer explains. 0: nothing, 1: everything, below 0: worse "
    "than the mean.",
  ),
  "mlp_mse": Metric(
    "MLP-MSE", "lower", "As LP-MSE with a two-layer network. Far below LP-MSE: the action is in z, but not linearly."
  ),
  "state_lp_mse": Metric(
    "LP-MSE, state",
    "lower",
    "LP-MSE with the change of the robot's state over the pair as target: what really moved, where actions can be blocked.",
  ),
  "state_lp_gain": Metric("LP gain, state", "higher", "LP gain for the change of the robot's state."),
  "state_lp_mse_raw": Metric("LP-MSE, state, raw", "lower", "The same in squared units of the state.", 4),
  "state_lp_r2": Metric("LP R², state", "higher", "LP R² for the change of the robot's state."),
  "state_mlp_mse": Metric("MLP-MSE, state", "lower", "MLP-MSE for the change of the robot's state."),
  "s_pcfc": Metric(
    "S-PCFC",
    "",
    "Cosine of z(t−n → t) and z(t+n → t). 1: z only encodes the second frame (or has collapsed). Below 1 is necessary, "
    "not sufficient: "
    "an untrained or a quantised model may be lower still. Read it with LP-MSE.",
  ),
  "s_pcfc_centred": Metric(
    "S-PCFC, centred",
    "",
    "S-PCFC after the mean z is taken away. Much lower than S-PCFC: its height came from a constant offset.",
  ),
  "effective_rank": Metric(
    "Effective rank",
    "higher",
    "How many directions z uses. 1: all motions lie on one line, z has collapsed. Upper limit: the width of z.",
    2,
  ),
  "participation_ratio": Metric(
    "Participation ratio", "higher", "A stricter count of the directions z uses; dominated by the strongest.", 2
  ),
  "copy_ratio": Metric(
    "MSE / copy",
    "lower",
    "Error of the predicted frame divided by that of showing the current frame again. Below 1: z helps; 1: the model "
    "copies.",
  ),
  "copy_ratio_moving": Metric(
    "MSE / copy, moving",
    "lower",
    "The same over moving pixels only: a static background can no longer flatter. The number to trust.",
  ),
  "reconstruction_mse": Metric(
    "Frame MSE", "lower", "Mean squared error of the predicted frame, pixel values in [0, 1].", 5
  ),
  "psnr": Metric(
    "PSNR [dB]",
    "higher",
    "Peak signal-to-noise ratio. Compare with the copy row: static scenes make copying look good.",
    2,
  ),
  "ssim": Metric("SSIM", "higher", "Structural similarity, 1 = identical. Compare with the copy row."),
  "camera_excess": Metric(
    "Camera from z",
    "lower",
    "Which camera filmed, read linearly from z: 0 is chance, 1 is always right. High: z carries appearance.",
  ),
  "task_excess": Metric(
    "Task from z",
    "",
    "Which task it is, read linearly from z: 0 is chance, 1 is always right. Some is natural, as tasks move "
    "differently.",
  ),
  "motion_contrast": Metric(
    "Motion contrast",
    "higher",
    "How much more similar z is for the same moment of a motion in another scene or camera than for the motion's other moments there. "
    "0: z does not carry over, or knows only the objects.",
  ),
  "appearance_contrast": Metric(
    "Appearance contrast",
    "lower",
    "How much more similar z is from the same view than from another, across motions. 0: the view leaves no trace.",
  ),
  "retrieval": Metric(
    "Retrieval",
    "higher",
    "Cosine between the action and that of the nearest z in other views and episodes. 1: the same motion is found; "
    "compare with chance.",
  ),
  "retrieval_chance": Metric("Retrieval, chance", "", "Retrieval with a neighbour drawn at random."),
}

RANK_FLOOR, PCFC_CEILING = 1.5, 0.99
HALF = 0.5  # of a target's variance: what leaves more of it tells less than half
PROBE_GAP, DRAWING_GAP = 0.02, 0.02  # by which a model has to be better: of the untrained one's error, of the copy's
# Rows of linear layers that read the action from the robot's own numbers: what the best z could tell, and what no motion can.
TRUE_CHANGE, TRUE_STATE = "true-state-change", "true-state"


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


def value_of(entry: Any) -> tuple[float, float | None]:
  """(value, standard error or None) of a table entry."""
  if isinstance(entry, (tuple, list)):
    return float(entry[0]), None if len(entry) < 2 or entry[1] is None else float(entry[1])
  return float(entry), None


def verdict(metrics: Mapping[str, Mapping[str, Any]]) -> Verdict | None:
  """Is it motion? None when there is no "trained" row or none of its numbers speaks to the question.

  A probe error counts as below the untrained one when the gap exceeds 2 % of it and twice its standard error: that of the
  paired difference ("lp_gain") where known, else the joint one. Where the actions look like positions, of which the robot's true
  change tells less than half and its state clearly more, and z does not tell most of them itself, the state's change is asked for
  instead. (A controller's steps towards one goal look like that too: its state tells them.)
  """
  trained, untrained = (_known(metrics.get(row, {})) for row in ("trained", "untrained"))
  checks, missing = [], []

  def ask(question: str, passed: bool | None, evidence: str, *, why: str = "not measured") -> None:
    if passed is None:
      missing.append((question, why))
    else:
      checks.append(Check(question, bool(passed), evidence))

  known = "lp_mse" in trained and "lp_mse" in untrained
  told = known and trained["lp_mse"][0] < HALF and _probe("", trained, untrained)[0]
  positions = "" if told else _positions(metrics)
  if known and not positions:
    ask("Does z tell the action better than the untrained model?", *_probe("", trained, untrained))
  elif "state_lp_mse" in trained and "state_lp_mse" in untrained:
    passed, evidence = _probe("state_", trained, untrained)
    ask("Does z tell the change of the robot's state better than the untrained model?", passed, evidence + (f"; {positions}" if known else ""))
  else:
    ask("Does z tell the action better than the untrained model?", None, "", why=positions or "not measured: no probe of the action")
  known = bool(checks)
  moving = trained.get("copy_ratio_moving") or trained.get("copy_ratio")
  kind = " on moving pixels" if "copy_ratio_moving" in trained else ""
  ask(
    "Does z help to draw the future?",
    moving and moving[0] < 1 - DRAWING_GAP,
    f"error is {moving[0]:.3f} of the copy's{kind} (needed: below {1 - DRAWING_GAP:g})" if moving else "",
  )
  rank = trained.get("effective_rank")
  ask(
    "Does z use several directions?",
    rank and rank[0] > RANK_FLOOR,
    f"effective rank {rank[0]:.2f} (needed: {RANK_FLOOR}{_beside(untrained, 'effective_rank', 2)})" if rank else "",
  )
  pcfc = trained.get("s_pcfc")
  ask(
    "Does z depend on where the motion came from?",
    pcfc and pcfc[0] < PCFC_CEILING,
    f"S-PCFC {pcfc[0]:.3f} (needed: below {PCFC_CEILING}{_beside(untrained, 's_pcfc', 3)})" if pcfc else "",
  )
  if not checks:
    return None
  passed = sum(check.passed for check in checks)
  if passed == len(checks):
    if not known:
      level, headline = "mixed", "Not known: no action and no state was compared with z, and a model that has learnt nothing can pass the other signs."
    elif missing:
      level, headline = "mixed", "So far yes, but not everything was measured."
    else:
      level, headline = "good", "Yes: every sign says that z is motion."
  elif not checks[0].passed or passed * 2 < len(checks):
    level, headline = "bad", "Not yet: z is not a usable description of motion."
  else:
    level, headline = "mixed", "Partly: some signs of motion are there, others are missing."
  return Verdict(headline, level, tuple(checks), tuple(missing))


def _probe(prefix: str, trained: Mapping[str, Any], untrained: Mapping[str, Any]) -> tuple[bool, str]:
  """(whether z tells the target of a probe better than the untrained model's, the numbers); prefix: "" or "state_"."""
  probe, before, paired = trained[prefix + "lp_mse"], untrained[prefix + "lp_mse"], trained.get(prefix + "lp_gain")
  error = paired[1] or 0.0 if paired else np.hypot(probe[1] or 0.0, before[1] or 0.0)
  margin = max(PROBE_GAP * before[0], 2 * error)
  useful = trained[prefix + "lp_r2"][0] > 0 if prefix + "lp_r2" in trained else probe[0] < 1
  return (bool(before[0] - probe[0] > margin and useful),
          f"{METRICS[prefix + 'lp_mse'].title} {probe[0]:.3f} against {before[0]:.3f} untrained (gap needed: {margin:.3f})")


def _positions(metrics: Mapping[str, Mapping[str, Any]]) -> str:
  """Why the actions cannot be asked for; "" where they can, or where the data have no state to know it from."""
  motion, position = (_known(metrics.get(row, {})).get("lp_mse") for row in (TRUE_CHANGE, TRUE_STATE))
  if not motion or not position or motion[0] < HALF or motion[0] - position[0] <= 2 * np.hypot(motion[1] or 0.0, position[1] or 0.0):
    return ""
  return (f"not asked for: the actions, which look like positions rather than motions (LP-MSE {position[0]:.3f} from the robot's state, "
          f"{motion[0]:.3f} from its true change)")


def _beside(untrained: Mapping[str, Any], name: str, digits: int) -> str:
  return f"; untrained: {untrained[name][0]:.{digits}f}" if name in untrained else ""


def _known(row: Mapping[str, Any]) -> dict[str, tuple[float, float | None]]:
  values = {name: value_of(entry) for name, entry in row.items() if entry is not None}
  return {name: value for name, value in values.items() if np.isfinite(value[0])}
