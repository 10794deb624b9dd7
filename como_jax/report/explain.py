"""Explains the metrics of a report."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Metric:
  """How a metric is shown.

  Attributes:
    title: name in the table.
    better: "lower", "higher", or "" if the metric alone is neither good nor bad.
    reading: explains good and bad values.
    digits: digits after the decimal point.
  """

  title: str
  better: str
  reading: str
  digits: int = 3


_PROBES: dict[str, Metric] = {
  "lp_mse": Metric(
    "LP-MSE",
    "lower",
    "Error of a linear layer that reads the true {target} from z, on held-out episodes, in units "
    "of its variance. 1: z says nothing about it; 0: everything. Good: clearly below the "
    "untrained model and the components of the untrained feature difference, which need no "
    "training.",
  ),
  "lp_gain": Metric(
    "LP gain",
    "higher",
    "LP-MSE of the untrained model minus this one's, sample by sample on the same held-out "
    "episodes: the error bar says whether the gain is real. Good: above twice its error.",
  ),
  "lp_gain_difference": Metric(
    "LP gain over the difference",
    "higher",
    "The same over as many principal components of the untrained encoder's feature difference (row "
    "'difference'). "
    "Below 0: no training at all tells more of the {target}.",
  ),
  "lp_gain_first": Metric(
    "LP gain over the first picture",
    "higher",
    "The same over as many principal components of the first picture alone (row 'first-only'), "
    "which holds no motion. Below 0: what the scene looks like tells more of the {target}.",
  ),
  "lp_half": Metric(
    "LP-MSE, half the episodes",
    "",
    "LP-MSE fitted on half of the episodes. Far above LP-MSE: too few windows for so many "
    "numbers, and more windows would lower it; then widths of z cannot be compared.",
  ),
  "lp_mse_raw": Metric(
    "LP-MSE, raw",
    "lower",
    "LP-MSE in squared units of the {target}, so it compares only runs on the same data.",
    4,
  ),
  "lp_r2": Metric(
    "LP R²",
    "higher",
    "Share of the held-out variance of the {target} that the linear layer explains. 0: nothing, 1: "
    "everything, below "
    "0: worse than the mean.",
  ),
  "mlp_mse": Metric(
    "MLP-MSE",
    "lower",
    "As LP-MSE with a two-layer network. Far below LP-MSE: the {target} is in z, but not linearly.",
  ),
  "kr_mse": Metric(
    "KR-MSE",
    "lower",
    "As LP-MSE with kernel ridge regression, the one probe that also reads the encoder's tokens "
    "of the first, the second and both pictures. A z that is no better than one picture need not "
    "hold any motion.",
  ),
  "motion_score": Metric(
    "Motion score S",
    "higher",
    "(e_single - e_z) / (e_single - e_both), e: KR-MSE capped at 1, of probes fitted on some "
    "cameras and scored on others. 0: z tells the {target} no better than the better single "
    "picture; 1: as well as both pictures.",
  ),
  "motion_gain": Metric(
    "Both pictures' gain",
    "",
    "e_single - e_both on other cameras: what S is measured by. Where it is not clearly above 0 "
    "there is no S.",
  ),
}

METRICS: dict[str, Metric] = {
  **{
    name: dataclasses.replace(metric, reading=metric.reading.format(target="action"))
    for name, metric in _PROBES.items()
  },
  "action_positions": Metric(
    "Actions that are positions",
    "",
    "Share of the action's numbers that the robot's next state tells: absolute targets, which no "
    "motion tells. Of these, action minus state is probed, and the verdict asks for the change of "
    "state.",
    2,
  ),
  **{
    f"state_{name}": dataclasses.replace(
      metric,
      title=f"{metric.title}, state",
      reading=metric.reading.format(target="change of the robot's state"),
    )
    for name, metric in _PROBES.items()
  },
  "s_pcfc": Metric(
    "S-PCFC",
    "",
    "Cosine of z(t−n → t) and z(t+n → t). 1: z only encodes the second frame (or has collapsed). "
    "Below 1 is necessary, not sufficient: an untrained or a quantized model may be lower still. "
    "Read it with LP-MSE.",
  ),
  "s_pcfc_centered": Metric(
    "S-PCFC, centered",
    "",
    "S-PCFC after the mean z is taken away. Much lower than S-PCFC: its height came from a "
    "constant offset.",
  ),
  "effective_rank": Metric(
    "Effective rank",
    "higher",
    "How many directions z uses. 1: all motions lie on one line, z has collapsed. Upper limit: "
    "the width of z.",
    2,
  ),
  "participation_ratio": Metric(
    "Participation ratio",
    "higher",
    "A stricter count of the directions z uses; dominated by the strongest.",
    2,
  ),
  "copy_ratio": Metric(
    "MSE / copy",
    "lower",
    "Error of the predicted frame divided by that of showing the current frame again. Below 1: z "
    "helps; 1: the model copies.",
  ),
  "copy_ratio_moving": Metric(
    "MSE / copy, moving",
    "lower",
    "The same over moving pixels only: a static background can no longer flatter. The number to "
    "trust.",
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
  "ssim": Metric(
    "SSIM", "higher", "Structural similarity, 1 = identical. Compare with the copy row."
  ),
  "camera_excess": Metric(
    "Camera from z",
    "lower",
    "Which camera filmed, read linearly from z: 0 is chance, 1 is always right. High: z carries "
    "appearance.",
  ),
  "motion_contrast": Metric(
    "Motion contrast",
    "higher",
    "How much more similar z is for the same moment of a motion in another scene or camera than "
    "for the motion's other moments there. 0: z does not carry over, or knows only the objects.",
  ),
  "appearance_contrast": Metric(
    "Appearance contrast",
    "lower",
    "How much more similar z is from the same view than from another, across motions. 0: the view "
    "leaves no trace.",
  ),
  "retrieval": Metric(
    "Retrieval",
    "higher",
    "Cosine between the action and that of the nearest z in other views and episodes. 1: the same "
    "motion is found; compare with chance.",
  ),
  "retrieval_chance": Metric("Retrieval, chance", "", "Retrieval with a neighbor drawn at random."),
  "retrieval_gain": Metric(
    "Retrieval above chance",
    "higher",
    "How much more alike the found actions are than random ones.",
  ),
}

# Rows of linear layers that predict the action from the robot's state: from its change, as the best
# z could, and from the state itself, which motion does not determine.
TRUE_CHANGE, TRUE_STATE = "true-state-change", "true-state"
# Rows that are references and not compared with latents: these two and the rows of pictures.
REFERENCES = (TRUE_CHANGE, TRUE_STATE, "first-only", "second-only", "both-pictures")


def value_of(entry: Any) -> tuple[float, float | None]:
  """(value, standard error or None) of a table entry."""
  if isinstance(entry, (tuple, list)):
    return float(entry[0]), None if len(entry) < 2 or entry[1] is None else float(entry[1])
  return float(entry), None
