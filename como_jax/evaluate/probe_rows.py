"""The rows of the probe: metrics of z, and probes of the robot's state.

Legend: N windows to fit on, M held-out windows, P values of a picture, Z latent width.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from como_jax.evaluate import (
  appearance,
  consistency,
  linear_probe,
  mlp_probe,
  probe_targets,
  probes,
  reconstruction,
  retrieval,
  similarity,
)

PREFIXES = {"action": "", "state": "state_"}  # target -> prefix of the names of its metrics
MIN_MOTIONS = 5  # minimum number of held-out motions for a comparison of cameras
MAX_GROUPS = 40  # maximum number of groups whose similarity is drawn

Metric = float | tuple[float, float | None]  # value, or (value, standard error)
Row = dict[str, Metric]


class Windows(Protocol):
  """What the rows use of windows: the names behind the ids of their columns."""

  @property
  def tasks(self) -> Sequence[str]:
    """Names of the tasks."""
    ...

  @property
  def cameras(self) -> Sequence[str]:
    """Names of the cameras."""
    ...


class Evaluation(Protocol):
  """Latents and frame errors of held-out windows, as `inference.motion_evaluator` returns them."""

  @property
  def z(self) -> np.ndarray:
    """Latents of t -> t + n [M, Z]."""
    ...

  @property
  def past(self) -> np.ndarray:
    """Latents of t - n -> t [M, Z]."""
    ...

  @property
  def future(self) -> np.ndarray:
    """Latents of t + n -> t [M, Z]."""
    ...

  @property
  def frames(self) -> reconstruction.Reconstruction:
    """Errors of the predicted frames."""
    ...

  @property
  def columns(self) -> Mapping[str, np.ndarray]:
    """Ids and labels of the windows, each [M, ...]."""
    ...

  @property
  def pictures(self) -> np.ndarray | None:
    """Tokens of the frames t and t + n [M, 2, P]; None: not requested."""
    ...


@dataclasses.dataclass(frozen=True)
class Details:
  """What a row was computed from, for plots and notes.

  Attributes:
    probes: target -> result of its linear probe.
    notes: how the metrics were measured.
    s_pcfc: S-PCFC of each window; None: not measured.
    matrix: similarity of z between cameras and tasks; None: too few or too many of them.
  """

  probes: dict[str, probes.ProbeResult]
  notes: list[str]
  s_pcfc: consistency.Consistency | None = None
  matrix: similarity.SimilarityMatrix | None = None


def score(
  evaluated: Evaluation,
  fit: np.ndarray,
  windows: Windows,
  targets: Sequence[probe_targets.Target],
  *,
  seed: int,
) -> tuple[Row, Details]:
  """Computes all metrics of a model.

  Args:
    evaluated: latents and frame errors of the held-out windows.
    fit: z of the windows on which probes are fitted [N, Z].
    windows: the held-out windows, for the names of tasks and cameras.
    targets: targets of the probes.
    seed: seed of the probes.

  Returns:
    (row of the table, its details).
  """
  pcfc = consistency.s_pcfc(evaluated.past, evaluated.future)
  rank = consistency.effective_rank(evaluated.z)
  row: Row = {
    "s_pcfc": pcfc.mean,
    "s_pcfc_centered": pcfc.mean_centered,
    "effective_rank": rank.entropy,
    "participation_ratio": rank.participation,
    "copy_ratio": evaluated.frames.ratio,
    "copy_ratio_moving": evaluated.frames.moving_ratio,
    "reconstruction_mse": evaluated.frames.mse,
    "psnr": evaluated.frames.psnr,
    "ssim": evaluated.frames.ssim,
  }
  results, notes = {}, [evaluated.frames.text, pcfc.text]
  z = np.concatenate([fit, evaluated.z])
  for target in targets:
    notes += target.notes
    if target.robots:
      metrics, results[target.name], texts = probe(z, target, seed=seed)
      row |= metrics
      notes += texts
      if target.positions is not None:
        row["action_positions"] = target.positions
  environments, text = _environments(evaluated, targets[0], seed)
  matrix = _similarity(evaluated, windows)
  return row | environments, Details(results, [*notes, text], pcfc, matrix)


def probe(
  z: np.ndarray, target: probe_targets.Target, *, seed: int
) -> tuple[Row, probes.ProbeResult, list[str]]:
  """Probes a target with the linear probe and the MLP probe.

  Args:
    z: inputs [N + M, Z].
    target: the target.
    seed: seed of the probes.

  Returns:
    (metrics of a row, result of the linear probe, notes).
  """
  linear, mlp = (target.probe(module.probe, z, seed=seed) for module in (linear_probe, mlp_probe))
  prefix = PREFIXES[target.name]
  row: Row = {
    prefix + "lp_mse": (linear.mse, linear.standard_error),
    prefix + "lp_mse_raw": linear.mse_raw,
    prefix + "lp_r2": linear.r2,
    prefix + "mlp_mse": (mlp.mse, mlp.standard_error),
  }
  if linear.half is not None:
    row[prefix + "lp_half"] = linear.half
  row |= {
    f"{prefix}r2/{name}": float(value)
    for name, value in zip(linear.names, linear.r2_by_dimension, strict=False)
  }
  return row, linear, [f"{target.name}: {linear.text}", f"{target.name}, MLP: {mlp.text}"]


def state_rows(
  target: probe_targets.Target,
  fit: probe_targets.Columns,
  held_out: probe_targets.Columns,
  *,
  seed: int,
) -> dict[str, Row]:
  """Probes how well the robot's true change of state, and its state, predict the action.

  The verdict uses these rows to detect actions that are positions, for robots whose actions and
  states cannot be compared directly.

  Args:
    target: the action.
    fit: columns of the windows to fit on.
    held_out: columns of the held-out windows.
    seed: seed of the probes.

  Returns:
    {"state_delta": row, "state": row}; {} if there is no such robot.
  """
  if "state" not in held_out:
    return {}
  has_state = np.concatenate([fit["has_state"], held_out["has_state"]])
  robots = [
    robot for robot in target.robots if robot.positions is None and has_state[robot.rows].all()
  ]
  if not robots:
    return {}
  part = probe_targets.Target(target.name, tuple(robots), ())
  rows: dict[str, Row] = {}
  for name in ("state_delta", "state"):
    inputs = np.concatenate([fit[name][:, 1], held_out[name][:, 1]])
    result = part.probe(linear_probe.probe, inputs, seed=seed)
    rows[name] = {"lp_mse": (result.mse, result.standard_error)}
  return rows


def _environments(
  evaluated: Evaluation, action: probe_targets.Target, seed: int
) -> tuple[Row, str]:
  """Metrics of the camera in z, and of the same motion in other cameras and scenes.

  Splits are by group, not by episode, so that episodes of the same motion are on the same side.

  Returns:
    (metrics of a row, note).
  """
  ids, row = evaluated.columns, Row()
  motions, tasks, cameras = ids["group"], ids["task"], ids["camera"]
  if len(np.unique(cameras)) > 1 and len(np.unique(motions)) >= MIN_MOTIONS:
    identity = appearance.identity(evaluated.z, cameras, episodes=motions, groups=tasks, seed=seed)
    row["camera_excess"] = (identity.excess, identity.standard_error)
    row |= _retrieval(evaluated, action, seed)
  contrast = similarity.contrast(
    evaluated.z, similarity.Moments(motions, ids["time"], cameras, ids["episode"], ids["stride"])
  )
  if np.isfinite(contrast.motion):
    row["motion_contrast"] = (contrast.motion, contrast.standard_error)
  if np.isfinite(contrast.appearance):
    row["appearance_contrast"] = contrast.appearance
  return row, f"motion contrast: {contrast.text}"


def _retrieval(evaluated: Evaluation, action: probe_targets.Target, seed: int) -> Row:
  """Metrics of the action of the nearest neighbor in other cameras, mean over robots; {}: none."""
  motions, cameras = evaluated.columns["group"], evaluated.columns["camera"]
  retrievals = []
  for robot in action.robots:
    rows = robot.scored
    if len(np.unique(cameras[rows])) > 1 and len(np.unique(motions[rows])) >= MIN_MOTIONS:
      values = robot.values[robot.held_out]
      retrievals.append(
        retrieval.across_views(
          evaluated.z[rows], values, views=cameras[rows], episodes=motions[rows], seed=seed
        )
      )
  if not retrievals:
    return {}
  weights = [result.queries for result in retrievals]
  error = _joint_error([result.standard_error for result in retrievals], weights)
  return {
    "retrieval": float(np.average([result.cosine for result in retrievals], weights=weights)),
    "retrieval_chance": float(
      np.average([result.chance for result in retrievals], weights=weights)
    ),
    "retrieval_gain": (
      float(np.average([result.gain for result in retrievals], weights=weights)),
      error,
    ),
  }


def _similarity(evaluated: Evaluation, windows: Windows) -> similarity.SimilarityMatrix | None:
  """Similarity of z between cameras and tasks; None: there is one, or there are too many."""
  tasks, cameras = evaluated.columns["task"], evaluated.columns["camera"]
  if len(np.unique(tasks)) < 2 and len(np.unique(cameras)) < 2:
    return None
  groups = np.array(
    [
      f"{windows.tasks[task] or 'clip'} | {windows.cameras[camera]}"
      for task, camera in zip(tasks, cameras, strict=False)
    ]
  )
  if len(np.unique(groups)) > MAX_GROUPS:
    return None
  return similarity.matrix(evaluated.z, groups, views=cameras)


def _joint_error(errors: Sequence[float | None], weights: Sequence[float]) -> float | None:
  """Standard error of a weighted mean of independent values; None if one error is not known."""
  known = [error for error in errors if error is not None]
  if len(known) < len(errors):
    return None
  return float(np.sqrt(np.sum((np.array(known) * weights) ** 2)) / np.sum(weights))
