"""The rows of the probe's table: what is read from z, and from the robot's own numbers.

Legend: N windows to fit on, M held-out windows, Z numbers of a motion.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from como_jax import report
from como_jax.evaluate import appearance, consistency, linear_probe, mlp_probe, similarity
from como_jax.tasks import latents, probe_targets

PREFIXES = {"action": "", "state": "state_"}  # of the names of the numbers, by target
LEAST = 5  # held-out motions, below which cameras are not compared


def score(
  one: latents.MotionEvaluation,
  fit: np.ndarray,
  windows,
  targets: Sequence[probe_targets.Target],
  *,
  seed: int,
) -> tuple[dict, dict]:
  """(row of numbers for the table, results to draw) of one model.

  Args:
    one: of the held-out windows.
    fit: z of the windows to fit probes on [N, Z].
    windows: the held-out ones, for their names.
    targets: what the probes predict.
    seed: of the probes.
  """
  pcfc, rank = consistency.s_pcfc(one.past, one.future), consistency.effective_rank(one.z)
  row = {
    "s_pcfc": pcfc.mean,
    "s_pcfc_centerd": pcfc.mean_centerd,
    "effective_rank": rank.entropy,
    "participation_ratio": rank.participation,
    "copy_ratio": one.frames.ratio,
    "copy_ratio_moving": one.frames.moving_ratio,
    "reconstruction_mse": one.frames.mse,
    "psnr": one.frames.psnr,
    "ssim": one.frames.ssim,
  }
  results: dict[str, Any] = {
    "s_pcfc": pcfc,
    "notes": [one.frames.text, pcfc.text],
    "probes": {},
    "targets": targets,
  }
  z = np.concatenate([fit, one.z])
  for target in targets:
    results["notes"] += target.notes
    if target.robots:
      numbers, results["probes"][target.name], notes = read(z, target, seed=seed)
      row |= numbers
      results["notes"] += notes
      if target.positions is not None:
        row["action_positions"] = target.positions
  environments, notes, results["similarity"] = _environments(one, windows, targets[0], seed)
  return row | environments, results | {"notes": [*results["notes"], *notes]}


def read(z: np.ndarray, target: probe_targets.Target, *, seed: int) -> tuple[dict, Any, list[str]]:
  """(numbers of a row, result of the linear probe, notes): a target read from inputs z [N + M,
  Z].
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


def own_numbers(
  target: probe_targets.Target, fit: dict, held_out: dict, *, seed: int
) -> dict[str, dict]:
  """Rows of what the robot's state and its true change tell of the action, where the two cannot be
  compared
  directly: by these the verdict knows actions that are positions. {} without any.

  Args:
    target: the action.
    fit, held_out: columns of the windows that probes are fitted on, and scored on.
  """
  if "state" not in held_out:
    return {}
  has = np.concatenate([fit["has_state"], held_out["has_state"]])
  robots = [one for one in target.robots if one.positions is None and has[one.rows].all()]
  if not robots:
    return {}
  part = probe_targets.Target(target.name, tuple(robots), ())
  whole = {
    name: np.concatenate([fit[name][:, 1], held_out[name][:, 1]])
    for name in ("state", "state_delta")
  }
  found = {
    row: part.probe(linear_probe.probe, whole[name], seed=seed)
    for row, name in ((report.TRUE_CHANGE, "state_delta"), (report.TRUE_STATE, "state"))
  }
  return {row: {"lp_mse": (one.mse, one.standard_error)} for row, one in found.items()}


def _environments(
  one: latents.MotionEvaluation, windows, action: probe_targets.Target, seed: int
) -> tuple[dict, list[str], Any]:
  """(numbers of a row, notes, similarity matrix or None): the camera in z, and the same motion seen
  elsewhere.
  """
  ids, row = one.columns, {}
  # Groups, not episodes: those that show the same motion in other scenes never stand on both sides.
  motions, tasks, cameras = ids["group"], ids["task"], ids["camera"]
  several_views, several_tasks = len(np.unique(cameras)) > 1, len(np.unique(tasks)) > 1
  if several_views and len(np.unique(motions)) >= LEAST:
    identity = appearance.identity(one.z, cameras, episodes=motions, groups=tasks, seed=seed)
    row["camera_excess"] = (identity.excess, identity.standard_error)
    found = []
    for robot in action.robots:
      rows = robot.scored
      if len(np.unique(cameras[rows])) > 1 and len(np.unique(motions[rows])) >= LEAST:
        values = robot.values[robot.held_out]
        found.append(
          similarity.retrieval(
            one.z[rows], values, views=cameras[rows], episodes=motions[rows], seed=seed
          )
        )
    if found:
      weights = [each.queries for each in found]
      row["retrieval"] = float(np.average([each.cosine for each in found], weights=weights))
      row["retrieval_chance"] = float(np.average([each.chance for each in found], weights=weights))
      gain = np.average([each.gain for each in found], weights=weights)
      row["retrieval_gain"] = (
        float(gain),
        _joint([each.standard_error for each in found], weights),
      )
  contrast = similarity.contrast(
    one.z, motions, ids["time"], views=cameras, scenes=ids["episode"], stride=ids["stride"]
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
      similarity.matrix(one.z, groups, views=cameras) if len(np.unique(groups)) <= 40 else None
    )
  return row, [f"motion contrast: {contrast.text}"], matrix


def _joint(errors: Sequence[float | None], weights: Sequence[float]) -> float | None:
  """Standard error of a weighted mean of independent parts; None where one is not known."""
  if any(error is None for error in errors):
    return None
  return float(np.sqrt(np.sum((np.array(errors) * weights) ** 2)) / np.sum(weights))
