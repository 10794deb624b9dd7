"""Rows of the probe that need no training: how well the frozen encoder alone predicts the targets.

Legend: N windows to fit on, M held-out windows, P values of a picture, Z latent width, A target
dimensions.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax.evaluate import probes
from como_jax.exam import kernel_ridge, motion_score
from como_jax.inference import motion_evaluator
from como_jax.tasks import probe_rows, probe_targets

FIRST, SECOND, BOTH = "first-only", "second-only", "both-pictures"  # rows
ACROSS = (
  "probes fitted on one half of the cameras, scored on held-out motions seen by the other, in "
  "both directions"
)
# Maximum number of windows, evenly spaced, for the fit of a kernel probe: its cost grows with the
# cube.
STRONG = 1_000
# Row -> name of the trained model's gain over it.
GAINS = {"untrained": "lp_gain", "difference": "lp_gain_difference", FIRST: "lp_gain_first"}


def difference(
  fit: motion_evaluator.Labels,
  held_out: motion_evaluator.MotionEvaluation,
  targets: Sequence[probe_targets.Target],
  *,
  seed: int,
) -> tuple[np.ndarray, dict, dict[str, Any]]:
  """Probes principal components of the encoder's feature difference, as many as z has dimensions.

  A motion model without training could have this latent. The components are computed from the
  windows to fit on.

  Args:
    fit: windows to fit on.
    held_out: held-out windows.
    targets: targets of the probes.
    seed: seed of the probes.

  Returns:
    (components [N + M, Z], row, results).
  """
  change = [
    windows.pictures[:, 1].astype(np.float32) - windows.pictures[:, 0]
    for windows in (fit, held_out)
  ]
  return _probe_components("difference", change, held_out.z.shape[1], targets, seed)


def one_picture(
  fit: motion_evaluator.Labels,
  held_out: motion_evaluator.MotionEvaluation,
  targets: Sequence[probe_targets.Target],
  *,
  seed: int,
) -> dict[str, tuple[dict, dict[str, Any]]]:
  """Probes principal components of either picture alone, as many as z has dimensions.

  These are the published metrics for a latent without any motion. Arguments are as for
  `difference`.

  Returns:
    name -> (row, results).
  """
  sides = {FIRST: 0, SECOND: 1}
  pictures = {
    name: [windows.pictures[:, side].astype(np.float32) for windows in (fit, held_out)]
    for name, side in sides.items()
  }
  return {
    name: _probe_components(name, values, held_out.z.shape[1], targets, seed)[1:]
    for name, values in pictures.items()
  }


def _probe_components(
  name: str,
  inputs: Sequence[np.ndarray],
  count: int,
  targets: Sequence[probe_targets.Target],
  seed: int,
) -> tuple[np.ndarray, dict, dict[str, Any]]:
  """Probes the first principal components of inputs.

  Args:
    name: name of the row, for notes.
    inputs: (inputs of the windows to fit on [N, P], of the held-out windows [M, P]).
    count: number of components.
    targets: targets of the probes.
    seed: seed of the probes.

  Returns:
    (components [N + M, count], row, results).
  """
  z = np.concatenate(components(*inputs, count, seed=seed))
  row, results = {}, {"probes": {}, "notes": []}
  for target in targets:
    if target.robots:
      metrics, results["probes"][target.name], notes = probe_rows.read(z, target, seed=seed)
      row |= metrics
      results["notes"] += [f"{name}, {note}" for note in notes]
  return z, row, results


def strong(
  latent: Mapping[str, np.ndarray],
  pictures: np.ndarray,
  targets: Sequence[probe_targets.Target],
  cameras: np.ndarray,
  *,
  seed: int,
) -> tuple[dict[str, dict], list[str]]:
  """Probes latents, single pictures and both pictures with a nonlinear probe; motion scores.

  The probe is kernel ridge regression. The motion score is how much of the gain of both pictures
  over one picture a latent has.

  Args:
    latent: row of the table -> latents of all windows [N + M, Z].
    pictures: tokens of both pictures of each window [N + M, 2, P].
    targets: targets of the probes.
    cameras: camera of each window [N + M].
    seed: seed of the probes.

  Returns:
    (rows with the metrics of the kernel probe, notes).
  """
  targets = [target for target in targets if target.robots]
  if not targets:
    return {}, []
  both = pictures.reshape(len(pictures), -1)
  inputs = dict(latent) | {FIRST: pictures[:, 0], SECOND: pictures[:, 1], BOTH: both}

  def errors(name, robots, max_windows):
    """Errors of each robot of each target."""
    flat = iter(
      _errors(
        inputs[name], sum(robots, ()), whiten=name in latent, max_windows=max_windows, seed=seed
      )
    )
    return [[next(flat) for _ in of_target] for of_target in robots]

  rows: dict[str, dict] = {name: {} for name in inputs}
  for name in inputs:
    for target, by_robot in zip(
      targets, errors(name, [target.robots for target in targets], STRONG), strict=False
    ):
      values = np.concatenate([np.nanmean(of_robot, axis=1) for of_robot in by_robot])
      groups = np.concatenate([robot.groups[robot.held_out] for robot in target.robots])
      finite = np.isfinite(values)  # a robot with constant targets has no error
      if finite.any():
        rows[name][probe_rows.PREFIXES[target.name] + "kr_mse"] = (
          float(values[finite].mean()),
          probes.bootstrap(values[finite], groups[finite]),
        )
  notes = [
    "KR-MSE: linear or RBF kernel ridge regression, chosen on held-out episodes, fitted on at most "
    f"{STRONG} windows; of pictures, all tokens of the frozen encoder"
  ]
  halves = {target.name: _halves(target, cameras, seed) for target in targets}
  for name, parts in halves.items():
    if isinstance(parts, str):
      notes.append(f"motion score of {name}: withheld: {parts}")
  scored = {name: parts for name, parts in halves.items() if not isinstance(parts, str)}

  def across(name):
    return dict(
      zip(
        scored, map(np.concatenate, errors(name, list(scored.values()), STRONG // 2)), strict=False
      )
    )

  return _scores(rows, notes, scored, across, tuple(latent), seed)


def _scores(rows, notes, halves, across, latent, seed) -> tuple[dict[str, dict], list[str]]:
  """Adds the motion scores of the latents to rows and notes.

  Args:
    rows: row -> metrics.
    notes: the notes.
    halves: target -> the two parts that are scored.
    across: row -> {target: errors on both parts [M, A]}.
    latent: rows of latents; they are probed only if the score of a target is not withheld.
    seed: seed of the bootstrap.

  Returns:
    (rows, notes).
  """
  if not halves:
    return rows, notes
  first, second, both = (across(name) for name in (FIRST, SECOND, BOTH))
  kept = {name: np.isfinite(values).all(axis=0) for name, values in both.items()}
  groups = {
    name: np.concatenate([part.groups[part.held_out] for part in parts])
    for name, parts in halves.items()
  }

  def score(name, latent_errors):
    def select(errors):
      return errors[name][:, kept[name]]

    return motion_score.score(
      [select(first), select(second)],
      select(latent_errors),
      select(both),
      motion_score.Moves(groups[name]),
      seed=seed,
    )

  pictures = {name: score(name, both) for name in halves}
  not_withheld = [name for name in halves if not pictures[name].withheld]
  errors_of = {row: across(row) for row in latent} if not_withheld else {}
  for name, of_pictures in pictures.items():
    prefix = probe_rows.PREFIXES[name]
    rows[BOTH][prefix + "motion_gain"] = (of_pictures.gain.value, of_pictures.gain.error)
    note = f"e of one picture {of_pictures.single}, of both {of_pictures.both}"
    if of_pictures.withheld:
      notes.append(f"motion score of {name}: withheld: {of_pictures.withheld}; {ACROSS}; {note}")
      continue
    for row, latent_errors in errors_of.items():
      result = score(name, latent_errors)
      rows[row][prefix + "motion_score"] = (result.s.value, result.s.error)
      note += f", of {row} {result.z}"
    notes.append(f"motion score of {name}: {ACROSS}; {note}")
  return rows, notes


def _halves(
  target: probe_targets.Target, cameras: np.ndarray, seed: int
) -> tuple[probe_targets.Robot, ...] | str:
  """Two splits of windows that fit on one half of the cameras and score on the other half.

  With several robots, it uses the robot with the most held-out windows.

  Returns:
    The windows of both splits, or the reason why there are none.
  """
  robot = max(target.robots, key=lambda robot: robot.held_out.sum())
  names = np.unique(cameras[robot.rows])
  if len(names) < 2:
    return "there is one camera only"
  half = np.isin(
    cameras[robot.rows], np.random.default_rng(seed).permutation(names)[: len(names) // 2]
  )
  parts = tuple(_part(robot, robot.held_out != side) for side in (half, ~half))
  for part in parts:
    if min(len(np.unique(part.groups[side])) for side in (part.held_out, ~part.held_out)) < 2:
      return "a half of the cameras saw fewer than 2 motions to fit on or to score"
    if probes.scale_of(part.values[~part.held_out])[2].all():
      return "the target is constant"
  return parts


def _part(robot: probe_targets.Robot, chosen: np.ndarray) -> probe_targets.Robot:
  """Selects windows of a robot by a mask, bool [N + M]."""
  return dataclasses.replace(
    robot,
    rows=robot.rows[chosen],
    held_out=robot.held_out[chosen],
    groups=robot.groups[chosen],
    values=robot.values[chosen],
    scored=robot.scored[chosen[robot.held_out]],
  )


def components(
  fit: np.ndarray, new: np.ndarray, count: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Projects fit and new on the first principal axes of fit.

  It uses subspace iteration, which needs only a few products with fit. Source: Halko, Martinsson
  and Tropp 2011, algorithm 4.4.

  Args:
    fit: [N, P].
    new: [M, P].
    count: number of axes; fewer if fit has fewer.
    seed: seed of the initial axes.

  Returns:
    (projections of fit [N, count], of new [M, count]).
  """
  mean = fit.mean(axis=0)
  centered = fit - mean
  axes = (
    np.random.default_rng(seed)
    .normal(size=(fit.shape[1], min(count + 10, *fit.shape)))
    .astype(fit.dtype)
  )
  for _ in range(4):
    axes, _ = np.linalg.qr(centered.T @ (centered @ axes))
  _, _, rotation = np.linalg.svd(centered @ axes, full_matrices=False)
  axes = axes @ rotation[:count].T
  return centered @ axes, (new - mean) @ axes


def _errors(
  inputs: np.ndarray,
  robots: Sequence[probe_targets.Robot],
  *,
  whiten: bool,
  max_windows: int,
  seed: int,
) -> list[np.ndarray]:
  """Squared errors of a kernel probe on the held-out windows of each robot.

  Targets with the same windows are fitted together.

  Args:
    inputs: inputs of all windows [N + M, ...].
    robots: the robots, with their targets.
    whiten: as for `kernel_ridge.fit`.
    max_windows: maximum number of windows to fit on, evenly spaced.
    seed: seed of the fit.

  Returns:
    Errors of each robot [M, A], in units of the variance of its windows to fit on; nan in
    dimensions that are constant there.
  """
  result: list[np.ndarray] = [np.zeros(0)] * len(robots)
  same_windows: dict[bytes, list[int]] = {}
  for i, robot in enumerate(robots):
    same_windows.setdefault(robot.rows.tobytes() + robot.held_out.tobytes(), []).append(i)
  for members in same_windows.values():
    shared = robots[members[0]]
    values = np.concatenate([robots[i].values for i in members], axis=1)
    _, scale, constant = probes.scale_of(values[~shared.held_out])
    fitted = np.flatnonzero(~shared.held_out)
    fitted = fitted[
      np.unique(np.linspace(0, len(fitted) - 1, min(len(fitted), max_windows)).astype(int))
    ]
    shared_inputs = inputs[shared.rows].astype(np.float64)
    probe = kernel_ridge.fit(
      shared_inputs[fitted], values[fitted], groups=shared.groups[fitted], seed=seed, whiten=whiten
    )
    squared = (
      (probe.predict(shared_inputs[shared.held_out]) - values[shared.held_out]) / scale
    ) ** 2
    squared[:, constant] = np.nan
    for i, part in zip(
      members,
      np.split(squared, np.cumsum([robots[i].values.shape[1] for i in members])[:-1], axis=1),
      strict=False,
    ):
      result[i] = part
  return result
