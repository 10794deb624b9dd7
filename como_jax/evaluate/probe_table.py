"""The table of the probe: the rows of a model, of its untrained start, and of controls.

Legend: N windows to fit on, M held-out windows, P values of a picture, Z latent width.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from como_jax.evaluate import probe_controls, probe_rows, probe_scores, probe_targets, probes
from como_jax.evaluate import reconstruction as reconstruction_lib
from como_jax.evaluate.probe_controls import DIFFERENCE

TRAINED, UNTRAINED, COPY = "trained", "untrained", "copy-current-frame"  # rows


class Fitted(Protocol):
  """Latents of the windows to fit on, as `inference.motion_evaluator` returns them."""

  @property
  def z(self) -> Mapping[str, np.ndarray]:
    """Row -> latents of t -> t + n [N, Z]."""
    ...

  @property
  def pictures(self) -> np.ndarray:
    """Tokens of the frames t and t + n [N, 2, P]."""
    ...

  @property
  def columns(self) -> Mapping[str, np.ndarray]:
    """Ids and labels of the windows, each [N, ...]."""
    ...


@dataclasses.dataclass(frozen=True)
class Table:
  """The table of the probe.

  Attributes:
    rows: row -> metrics.
    notes: how they were measured.
    details: row of a latent -> what it was computed from.
  """

  rows: dict[str, probe_rows.Row]
  notes: list[str]
  details: dict[str, probe_rows.Details]


def build(
  evaluations: Mapping[str, probe_rows.Evaluation],
  fitted: Fitted,
  targets: Sequence[probe_targets.Target],
  windows: probe_rows.Windows,
  *,
  state_names: Mapping[str, str],
  seed: int,
) -> Table:
  """Computes all rows.

  Args:
    evaluations: `TRAINED` and `UNTRAINED` -> the model on the held-out windows; that of the trained
      model has pictures.
    fitted: both models on the windows to fit on.
    targets: targets of the probes, the action first.
    windows: the held-out windows, for the names of tasks and cameras.
    state_names: "state_delta" and "state" -> names of their rows.
    seed: seed of the probes.
  """
  trained = evaluations[TRAINED]
  if trained.pictures is None:
    raise ValueError(f"evaluations[{TRAINED!r}].pictures is None, expected tokens [M, 2, P]")
  pictures, width = (fitted.pictures, trained.pictures), trained.z.shape[1]
  rows, details = {}, {}
  for name, evaluated in evaluations.items():
    rows[name], details[name] = probe_rows.score(
      evaluated, fitted.z[name], windows, targets, seed=seed
    )
  components, rows[DIFFERENCE], details[DIFFERENCE] = probe_controls.difference(
    *pictures, width, targets, seed=seed
  )
  for name, (row, of_row) in probe_controls.one_picture(
    *pictures, width, targets, seed=seed
  ).items():
    rows[name], details[name] = row, of_row
  latents = {
    name: np.concatenate([fitted.z[name], evaluated.z]) for name, evaluated in evaluations.items()
  }
  cameras = np.concatenate([fitted.columns["camera"], trained.columns["camera"]])
  kernel, kernel_notes = probe_scores.kernel_rows(
    latents | {DIFFERENCE: components}, np.concatenate(pictures), targets, cameras, seed=seed
  )
  for name, row in kernel.items():
    rows[name] = rows.get(name, {}) | row
  rows[TRAINED] |= _gains(details, targets)
  states = probe_rows.state_rows(targets[0], fitted.columns, trained.columns, seed=seed)
  rows |= {state_names[name]: row for name, row in states.items()}
  rows[COPY] = _copy_row(trained.frames)
  notes = [*details[TRAINED].notes, *details[DIFFERENCE].notes, *kernel_notes]
  if states:
    notes.append(
      f"{' and '.join(state_names[name] for name in states)}: the action read from the robot's own "
      "numbers by the same linear layer, not from z"
    )
  return Table(rows, notes, details)


def _gains(
  details: Mapping[str, probe_rows.Details], targets: Sequence[probe_targets.Target]
) -> probe_rows.Row:
  """Gains of the trained model over the rows of `probe_controls.GAINS`, for each target."""
  row = probe_rows.Row()
  for target in targets:
    for baseline, gain in probe_controls.GAINS.items():
      if target.robots:
        better, worse = (details[name].probes[target.name] for name in (TRAINED, baseline))
        row[probe_rows.PREFIXES[target.name] + gain] = probes.gain(better, worse, target.groups)
  return row


def _copy_row(frames: reconstruction_lib.Reconstruction) -> probe_rows.Row:
  """Metrics of the current frame as the prediction."""
  return {"reconstruction_mse": frames.copy_mse, "psnr": frames.copy_psnr, "ssim": frames.copy_ssim}
