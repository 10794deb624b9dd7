"""Kernel probes of latents and pictures, and the motion score of the latents.

Legend: N windows to fit on, M held-out windows, P values of a picture, Z latent width, A target
dimensions.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from como_jax.evaluate import probe_rows, probe_targets, probes
from como_jax.evaluate.probe_controls import BOTH, FIRST, SECOND
from como_jax.exam import kernel_ridge, motion_score

ACROSS = (
  "probes fitted on one half of the cameras, scored on held-out motions seen by the other, in "
  "both directions"
)
# Maximum number of windows, evenly spaced, for the fit of a kernel probe: its cost grows with the
# cube.
MAX_WINDOWS = 1_000


@dataclasses.dataclass(frozen=True)
class _Inputs:
  """Inputs of the kernel probes.

  Attributes:
    values: row -> inputs of all windows [N + M, ...].
    latents: the rows that are latents, which are whitened.
    seed: seed of the fits and of the bootstrap.
  """

  values: Mapping[str, np.ndarray]
  latents: tuple[str, ...]
  seed: int

  def errors(
    self, name: str, robots: Sequence[Sequence[probe_targets.Robot]], max_windows: int
  ) -> list[list[np.ndarray]]:
    """Errors of a row for each robot of each target, see `_errors`.

    Args:
      name: the row.
      robots: robots of each target; robots with the same windows are fitted together.
      max_windows: maximum number of windows to fit on.
    """
    flat = iter(
      _errors(
        self.values[name],
        [robot for of_target in robots for robot in of_target],
        whiten=name in self.latents,
        max_windows=max_windows,
        seed=self.seed,
      )
    )
    return [[next(flat) for _ in of_target] for of_target in robots]


def kernel_rows(
  latent: Mapping[str, np.ndarray],
  pictures: np.ndarray,
  targets: Sequence[probe_targets.Target],
  cameras: np.ndarray,
  *,
  seed: int,
) -> tuple[dict[str, probe_rows.Row], list[str]]:
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
  values = dict(latent) | {FIRST: pictures[:, 0], SECOND: pictures[:, 1], BOTH: both}
  inputs = _Inputs(values, tuple(latent), seed)
  rows = {name: _kernel_row(inputs, name, targets) for name in values}
  notes = [
    "KR-MSE: linear or RBF kernel ridge regression, chosen on held-out episodes, fitted on at most "
    f"{MAX_WINDOWS} windows; of pictures, all tokens of the frozen encoder"
  ]
  halves = {}
  for target in targets:
    parts = _halves(target, cameras, seed)
    if isinstance(parts, str):
      notes.append(f"motion score of {target.name}: withheld: {parts}")
    else:
      halves[target.name] = parts
  if halves:
    scores, score_notes = _motion_scores(inputs, halves)
    rows = {name: row | scores.get(name, {}) for name, row in rows.items()}
    notes += score_notes
  return rows, notes


def _kernel_row(
  inputs: _Inputs, name: str, targets: Sequence[probe_targets.Target]
) -> probe_rows.Row:
  """Errors of the kernel probe of a row, mean over the held-out windows of each target."""
  row = probe_rows.Row()
  errors = inputs.errors(name, [target.robots for target in targets], MAX_WINDOWS)
  for target, by_robot in zip(targets, errors, strict=True):
    # constant dimensions have no error, and a robot that has no others is left out
    scored = [
      (np.nanmean(of_robot, axis=1), robot.groups[robot.held_out])
      for of_robot, robot in zip(by_robot, target.robots, strict=True)
      if not np.isnan(of_robot).all()
    ]
    if scored:
      values, groups = (np.concatenate(parts) for parts in zip(*scored, strict=True))
      row[probe_rows.PREFIXES[target.name] + "kr_mse"] = (
        float(values.mean()),
        probes.bootstrap(values, groups),
      )
  return row


def _motion_scores(
  inputs: _Inputs, halves: Mapping[str, Sequence[probe_targets.Robot]]
) -> tuple[dict[str, probe_rows.Row], list[str]]:
  """Motion scores of the latents, across cameras.

  Args:
    inputs: inputs of the probes.
    halves: target -> the two parts that are scored, see `_halves`.

  Returns:
    (row -> motion scores, notes); latents are probed only if the score of a target is not withheld.
  """

  def across(name: str) -> dict[str, np.ndarray]:
    """Errors of a row on both parts of each target [M, A]."""
    errors = inputs.errors(name, list(halves.values()), MAX_WINDOWS // 2)
    return {target: np.concatenate(parts) for target, parts in zip(halves, errors, strict=True)}

  first, second, both = (across(name) for name in (FIRST, SECOND, BOTH))

  def score(target: str, errors: Mapping[str, np.ndarray]) -> motion_score.Score:
    """The score of a row on a target, over the dimensions that are not constant."""
    kept = np.isfinite(both[target]).all(axis=0)
    groups = np.concatenate([part.groups[part.held_out] for part in halves[target]])
    return motion_score.score(
      [first[target][:, kept], second[target][:, kept]],
      errors[target][:, kept],
      both[target][:, kept],
      motion_score.Moves(groups),
      seed=inputs.seed,
    )

  of_pictures = {target: score(target, both) for target in halves}
  some_scored = any(not result.withheld for result in of_pictures.values())
  errors_of = {name: across(name) for name in inputs.latents} if some_scored else {}
  rows: dict[str, probe_rows.Row] = {name: {} for name in (BOTH, *errors_of)}
  notes = []
  for target, result in of_pictures.items():
    prefix = probe_rows.PREFIXES[target]
    rows[BOTH][prefix + "motion_gain"] = (result.gain.value, result.gain.error)
    note = f"e of one picture {result.single}, of both {result.both}"
    if result.withheld:
      notes.append(f"motion score of {target}: withheld: {result.withheld}; {ACROSS}; {note}")
      continue
    for name, errors in errors_of.items():
      of_latent = score(target, errors)
      rows[name][prefix + "motion_score"] = (of_latent.s.value, of_latent.s.error)
      note += f", of {name} {of_latent.z}"
    notes.append(f"motion score of {target}: {ACROSS}; {note}")
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
  parts = tuple(_select(robot, robot.held_out != side) for side in (half, ~half))
  for part in parts:
    if min(len(np.unique(part.groups[side])) for side in (part.held_out, ~part.held_out)) < 2:
      return "a half of the cameras saw fewer than 2 motions to fit on or to score"
    if probes.scale_of(part.values[~part.held_out])[2].all():
      return "the target is constant"
  return parts


def _select(robot: probe_targets.Robot, chosen: np.ndarray) -> probe_targets.Robot:
  """Selects windows of a robot by a mask, bool [N + M]."""
  return dataclasses.replace(
    robot,
    rows=robot.rows[chosen],
    held_out=robot.held_out[chosen],
    groups=robot.groups[chosen],
    values=robot.values[chosen],
    scored=robot.scored[chosen[robot.held_out]],
  )


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
    ends = np.cumsum([robots[i].values.shape[1] for i in members])
    for i, part in zip(members, np.split(squared, ends[:-1], axis=1), strict=True):
      result[i] = part
  return result
