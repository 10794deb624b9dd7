"""The rows of the probe: metrics of z, and probes of the robot's state.

Legend: N windows to fit on, M held-out windows, Z latent width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from como_jax import report
from como_jax.evaluate import appearance, consistency, linear_probe, mlp_probe, similarity
from como_jax.inference import motion_evaluator
from como_jax.tasks import probe_targets

PREFIXES = {"action": "", "state": "state_"}  # target -> prefix of the names of its metrics
LEAST = 5  # minimum number of held-out motions for a comparison of cameras


def score(
  evaluated: motion_evaluator.MotionEvaluation,
  fit: np.ndarray,
  windows,
  targets: Sequence[probe_targets.Target],
  *,
  seed: int,
) -> tuple[dict, dict]:
  """Computes all metrics of a model.

  Args:
    evaluated: latents and frame errors of the held-out windows.
    fit: z of the windows on which probes are fitted [N, Z].
    windows: the held-out windows, for the names of tasks and cameras.
    targets: targets of the probes.
    seed: seed of the probes.

  Returns:
    (row of the table: metric -> value or (value, standard error), results for plots).
  """
  pcfc, rank = (
    consistency.s_pcfc(evaluated.past, evaluated.future),
    consistency.effective_rank(evaluated.z),
  )
  row = {
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
  results: dict[str, Any] = {
    "s_pcfc": pcfc,
    "notes": [evaluated.frames.text, pcfc.text],
    "probes": {},
    "targets": targets,
  }
  z = np.concatenate([fit, evaluated.z])
  for target in targets:
    results["notes"] += target.notes
    if target.robots:
      metrics, results["probes"][target.name], notes = read(z, target, seed=seed)
      row |= metrics
      results["notes"] += notes
      if target.positions is not None:
        row["action_positions"] = target.positions
  environments, notes, results["similarity"] = _environments(evaluated, windows, targets[0], seed)
  return row | environments, results | {"notes": [*results["notes"], *notes]}


def read(z: np.ndarray, target: probe_targets.Target, *, seed: int) -> tuple[dict, Any, list[str]]:
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
  row = {
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
  target: probe_targets.Target, fit: dict, held_out: dict, *, seed: int
) -> dict[str, dict]:
  """Probes how well the robot's state, and its true change, predict the action.

  The verdict uses these rows to detect actions that are positions, for robots whose actions and
  states cannot be compared directly. It is {} if there is no such robot.

  Args:
    target: the action.
    fit: columns of the windows to fit on.
    held_out: columns of the held-out windows.
    seed: seed of the probes.
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
  inputs = {
    name: np.concatenate([fit[name][:, 1], held_out[name][:, 1]])
    for name in ("state", "state_delta")
  }
  results = {
    row: part.probe(linear_probe.probe, inputs[name], seed=seed)
    for row, name in ((report.TRUE_CHANGE, "state_delta"), (report.TRUE_STATE, "state"))
  }
  return {row: {"lp_mse": (result.mse, result.standard_error)} for row, result in results.items()}


def _environments(
  evaluated: motion_evaluator.MotionEvaluation, windows, action: probe_targets.Target, seed: int
) -> tuple[dict, list[str], Any]:
  """Metrics of the camera in z, and of the same motion in other cameras and scenes.

  Returns:
    (metrics of a row, notes, similarity matrix or None).
  """
  ids, row = evaluated.columns, {}
  # Splits are by group, not by episode, so that episodes of the same motion are on the same side.
  motions, tasks, cameras = ids["group"], ids["task"], ids["camera"]
  several_views, several_tasks = len(np.unique(cameras)) > 1, len(np.unique(tasks)) > 1
  if several_views and len(np.unique(motions)) >= LEAST:
    identity = appearance.identity(evaluated.z, cameras, episodes=motions, groups=tasks, seed=seed)
    row["camera_excess"] = (identity.excess, identity.standard_error)
    retrievals = []
    for robot in action.robots:
      rows = robot.scored
      if len(np.unique(cameras[rows])) > 1 and len(np.unique(motions[rows])) >= LEAST:
        values = robot.values[robot.held_out]
        retrievals.append(
          similarity.retrieval(
            evaluated.z[rows], values, views=cameras[rows], episodes=motions[rows], seed=seed
          )
        )
    if retrievals:
      weights = [result.queries for result in retrievals]
      row["retrieval"] = float(
        np.average([result.cosine for result in retrievals], weights=weights)
      )
      row["retrieval_chance"] = float(
        np.average([result.chance for result in retrievals], weights=weights)
      )
      gain = np.average([result.gain for result in retrievals], weights=weights)
      row["retrieval_gain"] = (
        float(gain),
        _joint([result.standard_error for result in retrievals], weights),
      )
  contrast = similarity.contrast(
    evaluated.z, motions, ids["time"], views=cameras, scenes=ids["episode"], stride=ids["stride"]
  )
  if np.isfinite(contrast.motion):
    row["motion_contrast"] = (contrast.motion, contrast.standard_error)
  if np.isfinite(contrast.appearance):
    row["appearance_contrast"] = contrast.appearance
  matrix = None
  if several_tasks or several_views:
    groups = np.array(
      [
        f"{windows.tasks[t] or 'clip'} | {windows.cameras[c]}"
        for t, c in zip(tasks, cameras, strict=False)
      ]
    )
    matrix = (
      similarity.matrix(evaluated.z, groups, views=cameras)
      if len(np.unique(groups)) <= 40
      else None
    )
  return row, [f"motion contrast: {contrast.text}"], matrix


def _joint(errors: Sequence[float | None], weights: Sequence[float]) -> float | None:
  """Standard error of a weighted mean of independent values; None if one error is not known."""
  if any(error is None for error in errors):
    return None
  return float(np.sqrt(np.sum((np.array(errors) * weights) ** 2)) / np.sum(weights))
