"""Reads the moves and the numbers of the views from z, and scores the moves.

Legend: P pairs, M pairs of the test, A and B dimensions of the moves in the camera's and in the
robot's frame, K numbers of a view.
"""

import dataclasses

import numpy as np

from como_jax import errors
from como_jax.exam import exam_set as sets
from como_jax.exam import kernel_ridge, leakage, motion_score, shares, spread
from como_jax.exam.motion_score import Score
from como_jax.exam.resampling import Estimate
from como_jax.exam.spread import Spread


@dataclasses.dataclass(frozen=True)
class Decoded:
  """One probe of the moves in both frames and of the numbers of the views.

  Attributes:
    probe: fitted on the fit part.
    targets: of all pairs [P, A + B + K].
    predicted: for the pairs of the test [M, A + B + K].
    camera: columns of the moves in the camera's frame.
    robot: columns of the moves in the robot's frame.
    numbers: name -> columns of a number.
  """

  probe: kernel_ridge.Probe
  targets: np.ndarray
  predicted: np.ndarray
  camera: slice
  robot: slice
  numbers: dict[str, slice]


def decode(exam: sets.ExamSet, latents: sets.Latents, seed: int) -> Decoded:
  """Fits the probe; the dimensions of a number share kernel and ridge.

  Args:
    exam: the set.
    latents: of its pairs.
    seed: of the inner split.
  """
  fit = exam.rows(sets.FIT)
  tables = [
    exam.target,
    exam.target_robot,
    *(np.repeat(values, 2, axis=0) for values in exam.numbers.values()),
  ]
  blocks = np.concatenate(
    [
      np.arange(tables[0].shape[1]),
      100 + np.arange(tables[1].shape[1]),
      *(np.full(t.shape[1], 1000 + k) for k, t in enumerate(tables[2:])),
    ]
  )
  targets = np.concatenate(tables, axis=1)
  probe = kernel_ridge.fit(
    latents.z[fit], targets[fit], groups=exam.of_pairs("chain")[fit], seed=seed, blocks=blocks
  )
  ends = np.cumsum([0] + [t.shape[1] for t in tables])
  camera, robot, *numbers = (slice(a, b) for a, b in zip(ends[:-1], ends[1:], strict=False))
  return Decoded(
    probe,
    targets,
    probe.predict(latents.z[exam.rows(sets.TEST)]),
    camera,
    robot,
    dict(zip(exam.numbers, numbers, strict=True)),
  )


@dataclasses.dataclass(frozen=True)
class Scored:
  """Scores of the moves in the camera's frame; the fields are those of `Result`."""

  score: Score
  controls: dict[str, float]
  cameras: Spread
  scenes: Spread
  dose: dict[float, Estimate]
  errors: np.ndarray
  moves: motion_score.Moves


def score_camera(exam: sets.ExamSet, decoded: Decoded, options: dict[str, int]) -> Scored:
  """Scores the moves in the camera's frame.

  Args:
    exam: the set.
    decoded: predictions.
    options: seed and number of draws of the bootstrap.
  """
  test = exam.rows(sets.TEST)
  speed, cameras = exam.camera_speed.reshape(-1)[test], exam.of_pairs("camera")[test]
  moving = np.isin(cameras, np.unique(cameras[speed > 0]))
  z_errors = motion_score.pair_errors(
    decoded.predicted[:, decoded.camera], exam.target[test], exam.variance
  )
  stored = {name: values / exam.variance for name, values in exam.errors.items()}
  moves = motion_score.Moves(
    exam.of_pairs("chain")[test], exam.target[test] ** 2 / exam.variance, exam.limit
  )
  single, both = _controls(stored, "errors", exam.limit)
  all_rows = np.arange(len(test))
  levels = {"camera": np.flatnonzero(~moving) if not moving.all() else all_rows, "scene": all_rows}
  spreads = {
    name: spread.over_levels(
      [values[rows] for values in single],
      z_errors[rows],
      [values[rows] for values in both],
      moves[rows],
      levels=exam.of_pairs(name)[test][rows],
      **options,
    )
    for name, rows in levels.items()
  }
  return Scored(
    motion_score.score(single, z_errors, both, moves, **options),
    {name: motion_score.e(values) for name, values in stored.items()},
    spreads["camera"],
    spreads["scene"],
    shares.dose(z_errors[moving], speed[moving], moves[moving], seed=options["seed"])
    if moving.any()
    else {},
    z_errors,
    moves,
  )


def score_robot(
  exam: sets.ExamSet, latents: sets.Latents, decoded: Decoded, options: dict[str, int]
) -> tuple[Score | None, np.ndarray | None]:
  """Scores the moves in the robot's frame: (S, errors); None if the set has no controls of them."""
  same = exam.rows(sets.SAME_CAMERA)
  if not len(same) or not exam.errors_robot:
    return None, None
  z_errors = motion_score.pair_errors(
    decoded.probe.predict(latents.z[same])[:, decoded.robot],
    exam.target_robot[same],
    exam.variance_robot,
  )
  stored = {name: values / exam.variance_robot for name, values in exam.errors_robot.items()}
  moves = motion_score.Moves(
    exam.of_pairs("chain")[same], exam.target_robot[same] ** 2 / exam.variance_robot, exam.limit
  )
  single, both = _controls(stored, "errors_robot", exam.limit)
  return motion_score.score(single, z_errors, both, moves, **options), z_errors


def score_numbers(
  exam: sets.ExamSet, decoded: Decoded, options: dict[str, int]
) -> dict[str, leakage.R2]:
  """How well the numbers of the test's views are predicted."""
  fit, test = exam.rows(sets.FIT), exam.rows(sets.TEST)
  return {
    name: leakage.r2(
      decoded.predicted[:, side],
      decoded.targets[test, side],
      decoded.targets[fit, side].mean(axis=0),
      groups=exam.of_pairs("chain")[test],
      **options,
    )
    for name, side in decoded.numbers.items()
  }


def _controls(
  stored: dict[str, np.ndarray], prefix: str, limit: float | None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """(errors of the controls of one picture, errors of the controls of both).

  The true pose in one picture counts as a control of one picture: a latent that holds only the
  second pose holds no motion, even if the pose is more exact than any probe of the picture. If the
  set states the limit of one picture, this control is not needed.

  Args:
    stored: control -> errors.
    prefix: name of the errors in exam.npz, for the error message.
    limit: the smallest e that is possible from one picture; None: not known.

  Raises:
    errors.UserError: there is no control of one picture, or none of both.
  """
  oracles = () if limit is not None else ("oracle_second",)
  single, both = (
    [name for prefix in ("first", "second", *oracles) for name in sets.controls(stored, prefix)],
    sets.controls(stored, "both"),
  )
  if not (single and both):
    raise errors.UserError(
      f"exam.npz: expected {prefix}/first_... or {prefix}/second_..., and {prefix}/both..., "
      f"found {sorted(stored)}"
    )
  return [stored[name] for name in single], [stored[name] for name in both]
