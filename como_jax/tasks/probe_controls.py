"""Rows of the probe's table that need no training: what the frozen encoder alone tells of the same
targets.

Legend: N windows to fit on, M held-out windows, P numbers of a picture, Z numbers of a motion.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax.evaluate import probes
from como_jax.exam import kernel_ridge, motion_score
from como_jax.tasks import latents, probe_rows, probe_targets

FIRST, SECOND, BOTH = "first-only", "second-only", "both-pictures"  # rows
ACROSS = (
  "probes fitted on one half of the cameras, scored on held-out motions seen by the other, in "
  "both directions"
)
# Windows that a kernel probe is fitted on at most, evenly spread: its cost grows with the cube.
STRONG = 1_000
# Row -> name of the trained model's gain over it.
GAINS = {"untrained": "lp_gain", "difference": "lp_gain_difference", FIRST: "lp_gain_first"}


def difference(
  fit: latents.Labels,
  held_out: latents.MotionEvaluation,
  targets: Sequence[probe_targets.Target],
  *,
  seed: int,
) -> tuple[np.ndarray, dict, dict[str, Any]]:
  """(components [N + M, Z], row, results) of the encoder's feature difference, as many principal
  components
  as z has numbers: what a motion model that learned nothing could say with as many numbers. The
  components are those of the windows to fit on.
  """
  change = [one.pictures[:, 1].astype(np.float32) - one.pictures[:, 0] for one in (fit, held_out)]
  return _of_components("difference", change, held_out.z.shape[1], targets, seed)


def one_picture(
  fit: latents.Labels,
  held_out: latents.MotionEvaluation,
  targets: Sequence[probe_targets.Target],
  *,
  seed: int,
) -> dict[str, tuple[dict, dict[str, Any]]]:
  """(row, results) of the same probes on as many principal components of either picture alone: what
  the published numbers are of a latent without any motion.
  """
  sides = {FIRST: 0, SECOND: 1}
  pictures = {
    name: [one.pictures[:, side].astype(np.float32) for one in (fit, held_out)]
    for name, side in sides.items()
  }
  return {
    name: _of_components(name, seen, held_out.z.shape[1], targets, seed)[1:]
    for name, seen in pictures.items()
  }


def _of_components(
  name: str,
  seen: Sequence[np.ndarray],
  count: int,
  targets: Sequence[probe_targets.Target],
  seed: int,
) -> tuple[np.ndarray, dict, dict[str, Any]]:
  """(components [N + M, count], row, results) of what is seen in the windows to fit on and in the
  held-out ones.
  """
  z = np.concatenate(components(*seen, count, seed=seed))
  row, results = {}, {"probes": {}, "notes": []}
  for target in targets:
    if target.robots:
      numbers, results["probes"][target.name], notes = probe_rows.read(z, target, seed=seed)
      row |= numbers
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
  """(rows of the kernel probe's numbers, notes): what latents, one picture and both pictures tell
  with a probe that may bend, and how much of what both pictures add to one picture a latent tells
  (motion score).

  Args:
    latent: rows of the table -> latents of all windows [N + M, Z].
    pictures: what the encoder says of both pictures of each window [N + M, 2, P].
    targets: what is predicted.
    cameras: of each window [N + M].
    seed: of the probes.
  """
  targets = [target for target in targets if target.robots]
  if not targets:
    return {}, []
  both = pictures.reshape(len(pictures), -1)
  inputs = dict(latent) | {FIRST: pictures[:, 0], SECOND: pictures[:, 1], BOTH: both}

  def errors(name, robots, most):  # robots of each target -> their errors
    flat = iter(_errors(inputs[name], sum(robots, ()), whiten=name in latent, most=most, seed=seed))
    return [[next(flat) for _ in some] for some in robots]

  rows: dict[str, dict] = {name: {} for name in inputs}
  for name in inputs:
    for target, found in zip(
      targets, errors(name, [target.robots for target in targets], STRONG), strict=False
    ):
      values = np.concatenate([np.nanmean(one, axis=1) for one in found])
      groups = np.concatenate([robot.groups[robot.held_out] for robot in target.robots])
      told = np.isfinite(values)  # a robot whose targets never change has no error
      if told.any():
        rows[name][probe_rows.PREFIXES[target.name] + "kr_mse"] = (
          float(values[told].mean()),
          probes.bootstrap(values[told], groups[told]),
        )
  notes = [
    "KR-MSE: linear or RBF kernel ridge regression, chosen on held-out episodes, fitted on at most "
    f"{STRONG} windows; of pictures, all tokens of the frozen encoder"
  ]
  halves = {target.name: _halves(target, cameras, seed) for target in targets}
  for name, found in halves.items():
    if isinstance(found, str):
      notes.append(f"motion score of {name}: withheld: {found}")
  known = {name: found for name, found in halves.items() if not isinstance(found, str)}

  def across(name):
    return dict(
      zip(known, map(np.concatenate, errors(name, list(known.values()), STRONG // 2)), strict=False)
    )

  return _scores(rows, notes, known, across, tuple(latent), seed)


def _scores(rows, notes, halves, across, latent, seed) -> tuple[dict[str, dict], list[str]]:
  """Motion scores of the latents into rows and notes.

  Args:
    halves: targets -> the two parts that are scored.
    across: row -> {target: errors on both parts [M, A]}.
    latent: rows of latents; they are probed only where the pictures tell enough to ask.
  """
  if not halves:
    return rows, notes
  first, second, both = (across(name) for name in (FIRST, SECOND, BOTH))
  kept = {name: np.isfinite(of).all(axis=0) for name, of in both.items()}
  groups = {
    name: np.concatenate([one.groups[one.held_out] for one in of]) for name, of in halves.items()
  }

  def score(name, of):
    def cut(errors):
      return errors[name][:, kept[name]]

    return motion_score.score(
      [cut(first), cut(second)], cut(of), cut(both), motion_score.Moves(groups[name]), seed=seed
    )

  pictures = {name: score(name, both) for name in halves}
  asked = [name for name in halves if not pictures[name].withheld]
  told = {row: across(row) for row in latent} if asked else {}
  for name, found in pictures.items():
    prefix = probe_rows.PREFIXES[name]
    rows[BOTH][prefix + "motion_gain"] = (found.gain.value, found.gain.error)
    note = f"e of one picture {found.single}, of both {found.both}"
    if found.withheld:
      notes.append(f"motion score of {name}: withheld: {found.withheld}; {ACROSS}; {note}")
      continue
    for row, of in told.items():
      one = score(name, of)
      rows[row][prefix + "motion_score"] = (one.s.value, one.s.error)
      note += f", of {row} {one.z}"
    notes.append(f"motion score of {name}: {ACROSS}; {note}")
  return rows, notes


def _halves(
  target: probe_targets.Target, cameras: np.ndarray, seed: int
) -> tuple[probe_targets.Robot, ...] | str:
  """Windows to fit on seen by one half of the cameras with the held-out ones seen by the other
  half, and the other way round; of several robots those of the one with the most held-out windows.
  Or why there are none.
  """
  robot = max(target.robots, key=lambda one: one.held_out.sum())
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
  """Some windows of a robot (bool mask)."""
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
  """Fit [N, P] and new [M, P] on the first `count` principal axes of fit (fewer where it has
  fewer).

  By subspace iteration, whose cost is a few products with fit (Halko, Martinsson and Tropp 2011,
  algorithm 4.4).
  """
  mean = fit.mean(axis=0)
  centerd = fit - mean
  axes = (
    np.random.default_rng(seed)
    .normal(size=(fit.shape[1], min(count + 10, *fit.shape)))
    .astype(fit.dtype)
  )
  for _ in range(4):
    axes, _ = np.linalg.qr(centerd.T @ (centerd @ axes))
  _, _, turn = np.linalg.svd(centerd @ axes, full_matrices=False)
  axes = axes @ turn[:count].T
  return centerd @ axes, (new - mean) @ axes


def _errors(
  inputs: np.ndarray, robots: Sequence[probe_targets.Robot], *, whiten: bool, most: int, seed: int
) -> list[np.ndarray]:
  """Squared errors of a kernel probe on each robot's held-out windows, in units of the variance of
  its windows to fit on [M, A]; nan in dimensions that are constant there. Targets of the same
  windows share the work.
  """
  found: list[np.ndarray] = [np.zeros(0)] * len(robots)
  kinds: dict[bytes, list[int]] = {}
  for i, robot in enumerate(robots):
    kinds.setdefault(robot.rows.tobytes() + robot.held_out.tobytes(), []).append(i)
  for same in kinds.values():
    one = robots[same[0]]
    values = np.concatenate([robots[i].values for i in same], axis=1)
    _, scale, constant = probes.scale_of(values[~one.held_out])
    fitted = np.flatnonzero(~one.held_out)
    fitted = fitted[np.unique(np.linspace(0, len(fitted) - 1, min(len(fitted), most)).astype(int))]
    given = inputs[one.rows].astype(np.float64)
    probe = kernel_ridge.fit(
      given[fitted], values[fitted], groups=one.groups[fitted], seed=seed, whiten=whiten
    )
    squared = ((probe.predict(given[one.held_out]) - values[one.held_out]) / scale) ** 2
    squared[:, constant] = np.nan
    for i, part in zip(
      same,
      np.split(squared, np.cumsum([robots[i].values.shape[1] for i in same])[:-1], axis=1),
      strict=False,
    ):
      found[i] = part
  return found
