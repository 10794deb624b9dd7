"""Runs all parts of the exam on one latent.

Legend: P pairs, M pairs of the test, A target dimensions, Z latent width.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.exam import exam_set as sets
from como_jax.exam import kernel_ridge, leakage, motion_score, resampling, shares
from como_jax.exam.motion_score import Score, Spread
from como_jax.exam.resampling import Estimate

MOTION, APPEARANCE, NOTHING, WITHHELD = (
  "motion without readable appearance",
  "appearance is readable",
  "no motion beyond one picture",
  "withheld",
)
FUTURE = "future picture"


@dataclasses.dataclass(frozen=True)
class Result:
  """Result of the exam for one latent.

  Parts that the set or the latents do not allow are None or empty.

  Attributes:
    verdict: one of `MOTION`, `APPEARANCE`, `NOTHING`, `WITHHELD`.
    sentence: the verdict as a sentence with its numbers.
    score: S in unseen cameras and scenes, for moves in the camera's frame.
    score_robot: S in unseen scenes and the cameras of the fit part, for moves in the robot's frame.
    controls: name -> e of each stored control on the pairs of the test.
    cameras, scenes: S in each camera and in each scene. If some cameras do not move, `cameras` has
      only these: controls are chosen over all pairs, and a control may not know how a camera moves.
    identities: label -> how well it is predicted, on held-out chains of the fit part.
    numbers: name -> how well the view's numbers are predicted in unseen cameras and scenes.
    future: how well z predicts the pictures of the test's pairs, on held-out chains of the test.
    shares: shares of the variance of z over complete twins.
    crossed: e of moves of one camera, predicted by the probe of another camera.
    dose: speed of the camera -> e, in the moving cameras of the test.
    additivity, reversal, shifted, static: relations of whitened z (`shares.Relation`,
      `shares.static`).
    errors, errors_robot: errors of the test's pairs [M, A] in units of the variance, for paired
      differences between latents.
    moves: the test's pairs: their chains and squared targets.
    names, names_robot: names of the target dimensions.
    width: Z.
    text: describes the probe of the moves.
    seconds: duration of the exam.
  """

  verdict: str
  sentence: str
  score: Score
  score_robot: Score | None
  controls: dict[str, float]
  cameras: Spread
  scenes: Spread
  identities: dict[str, leakage.Identity]
  numbers: dict[str, leakage.Reading]
  future: leakage.Pictures | None
  shares: shares.Shares | None
  crossed: shares.Crossed
  dose: dict[float, Estimate]
  additivity: shares.Relation | None
  reversal: shares.Relation | None
  shifted: shares.Relation | None
  static: float | None
  errors: np.ndarray
  errors_robot: np.ndarray | None
  moves: motion_score.Moves
  names: tuple[str, ...]
  names_robot: tuple[str, ...]
  width: int
  text: str
  seconds: float

  @property
  def flagged(self) -> tuple[str, ...]:
    """Labels of appearance that are readable, and `FUTURE` if the second picture is."""
    classes = tuple(name for name, label in self.identities.items() if label.flagged)
    return classes + ((FUTURE,) if self.future and self.future.flagged else ())

  def row(self) -> dict[str, float]:
    """The results as numbers by name, for a table of many latents; nan = withheld."""
    row = {
      "width": float(self.width),
      "seconds": self.seconds,
      "flagged": float(bool(self.flagged)),
    }
    estimates = {
      "s": self.score.s,
      "e_z": self.score.z,
      "e_single": self.score.single,
      "e_both": self.score.both,
    }
    if self.score_robot is not None:
      estimates |= {"s_robot": self.score_robot.s, "e_z_robot": self.score_robot.z}
      row |= {
        f"error_robot/{n}": v
        for n, v in zip(self.names_robot, self.score_robot.by_dimension.tolist(), strict=False)
      }
    estimates |= {f"excess/{name}": estimate.excess for name, estimate in self.identities.items()}
    estimates |= {f"read/{name}": estimate.share for name, estimate in self.numbers.items()}
    if self.future:
      first, second = self.future.first.share, self.future.second.share
      estimates |= {"future/first": first, "future/second": second, "future/gap": self.future.gap}
    estimates |= {
      f"share/{name}": estimate
      for name, estimate in (self.shares.shares if self.shares else {}).items()
    }
    estimates |= {f"e_at_speed/{level:g}": estimate for level, estimate in self.dose.items()}
    for name in ("additivity", "reversal", "shifted"):
      if (relation := getattr(self, name)) is not None:
        estimates |= {name: relation.error, f"{name}_cosine": relation.cosine}
    for name, estimate in estimates.items():
      row |= {
        name: estimate.value,
        f"{name}_error": estimate.error,
        f"{name}_low": estimate.low,
        f"{name}_high": estimate.high,
      }
    row |= {
      f"error/{n}": v for n, v in zip(self.names, self.score.by_dimension.tolist(), strict=False)
    }
    row |= {f"e_control/{name}": value for name, value in self.controls.items()}
    row |= {"e_own_camera": self.crossed.own, "e_other_camera": self.crossed.other}
    row |= {"s_range_cameras": self.cameras.range, "s_range_scenes": self.scenes.range}
    return row | ({} if self.static is None else {"static": self.static})


def evaluate(
  exam: sets.ExamSet,
  z: Any,
  *,
  seed: int = 0,
  resamples: int = resampling.RESAMPLES,
  log: Callable[[str], None] = lambda _: None,
) -> Result:
  """Runs the exam on a latent.

  Args:
    exam: the set.
    z: `exam_set.Latents`, or z alone [P, Z].
    seed: seed of inner splits, held-out chains and bootstraps.
    resamples: number of draws of each bootstrap.
    log: receives one line of text at each stage.

  Raises:
    errors.UserError: the latents do not fit the set, or the set has no controls of one picture or
      of both.
  """
  begin = time.monotonic()
  arrays = (
    {f.name: getattr(z, f.name) for f in dataclasses.fields(z)}
    if isinstance(z, sets.Latents)
    else {"z": z}
  )
  latents = sets.latents(
    {name: values for name, values in arrays.items() if values is not None}, exam
  )
  chains, cameras = exam.of_pairs("chain"), exam.of_pairs("camera")
  fit, test, same = (exam.rows(part) for part in (sets.FIT, sets.TEST, sets.SAME_CAMERA))
  options = {"seed": seed, "resamples": resamples}

  log("probes of the moves")
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
    latents.z[fit], targets[fit], groups=chains[fit], seed=seed, blocks=blocks
  )
  ends = np.cumsum([0] + [t.shape[1] for t in tables])
  sides = [slice(a, b) for a, b in zip(ends[:-1], ends[1:], strict=False)]
  predicted = probe.predict(latents.z[test])
  z_errors = motion_score.pair_errors(predicted[:, sides[0]], exam.target[test], exam.variance)
  stored = {name: values / exam.variance for name, values in exam.errors.items()}
  moves = motion_score.Moves(chains[test], exam.target[test] ** 2 / exam.variance, exam.limit)
  single, both = _controls(stored, "errors", exam.limit)
  score = motion_score.score(single, z_errors, both, moves, **options)
  speed = exam.camera_speed.reshape(-1)
  moving = np.isin(cameras[test], np.unique(cameras[test][speed[test] > 0]))
  all_rows = np.arange(len(test))
  levels = {"camera": np.flatnonzero(~moving) if not moving.all() else all_rows, "scene": all_rows}
  spreads = [
    motion_score.spread(
      [values[rows] for values in single],
      z_errors[rows],
      [values[rows] for values in both],
      moves[rows],
      levels=exam.of_pairs(name)[test][rows],
      **options,
    )
    for name, rows in levels.items()
  ]
  score_robot = errors_robot = None
  if len(same) and exam.errors_robot:
    errors_robot = motion_score.pair_errors(
      probe.predict(latents.z[same])[:, sides[1]], exam.target_robot[same], exam.variance_robot
    )
    stored_robot = {
      name: values / exam.variance_robot for name, values in exam.errors_robot.items()
    }
    moves_robot = motion_score.Moves(
      chains[same], exam.target_robot[same] ** 2 / exam.variance_robot, exam.limit
    )
    single_robot, both_robot = _controls(stored_robot, "errors_robot", exam.limit)
    score_robot = motion_score.score(single_robot, errors_robot, both_robot, moves_robot, **options)

  log("classes and numbers of appearance")
  labels = {name: exam.of_pairs(name)[fit] for name in sets.LABELS}
  labels = {name: values for name, values in labels.items() if len(np.unique(values)) > 1}
  identities = leakage.identities(latents.z[fit], labels, chains[fit], **options) if labels else {}
  numbers = {
    name: leakage.reading(
      predicted[:, side],
      targets[test, side],
      targets[fit, side].mean(axis=0),
      groups=chains[test],
      **options,
    )
    for name, side in zip(exam.numbers, sides[2:], strict=False)
  }

  future = None
  if exam.pictures is not None and len(np.unique(chains[test])) >= leakage.LEAST:
    log("the future picture")
    pictures = (exam.pictures[:, k].reshape(len(test), -1) for k in (slice(0, 2), slice(1, 3)))
    future = leakage.future(latents.z[test], *pictures, chains=chains[test], **options)

  log("variance over twins, other cameras, relations")
  scaling = kernel_ridge.scale_inputs(latents.z[fit])
  crossed = shares.cross_decoding(
    scaling(latents.z[fit]), exam.target[fit], cameras[fit], chains[fit], seed=seed
  )
  verdict, sentence = conclude(score, identities, future)
  return Result(
    verdict=verdict,
    sentence=sentence,
    score=score,
    score_robot=score_robot,
    controls={name: motion_score.e(values) for name, values in stored.items()},
    cameras=spreads[0],
    scenes=spreads[1],
    identities=identities,
    numbers=numbers,
    future=future,
    shares=_shares(exam, scaling(latents.z), options),
    crossed=crossed,
    dose=shares.dose(z_errors[moving], speed[test][moving], moves[moving], seed=seed)
    if moving.any()
    else {},
    **_relations(exam, latents, scaling, seed),
    errors=z_errors,
    errors_robot=errors_robot,
    moves=moves,
    names=exam.names,
    names_robot=exam.names_robot,
    width=latents.z.shape[1],
    text=probe.text,
    seconds=time.monotonic() - begin,
  )


def conclude(
  score: Score, identities: dict[str, leakage.Identity], future: leakage.Pictures | None = None
) -> tuple[str, str]:
  """(verdict, one sentence with the numbers that support it)."""
  if score.withheld:
    return WITHHELD, f"{WITHHELD}: {score.withheld}"
  s_text = f"S is {score.s}"
  classes = [f"{name} {label.excess}" for name, label in identities.items() if label.flagged]
  flagged = [f"{', '.join(classes)} of the way from chance to perfect reading"] if classes else []
  if future and future.flagged:
    flagged.append(
      f"{FUTURE}: z tells {future.second.share} of the second picture and knows it better than "
      f"the first by {future.gap} of their variance"
    )
  readable = "; ".join(flagged)
  if not score.s.low > 0:
    also = f"; appearance is readable: {readable}" if flagged else ""
    return NOTHING, f"{NOTHING}: {s_text}, an interval that does not lie above 0{also}"
  if flagged:
    return APPEARANCE, f"{APPEARANCE}: {readable}; {s_text}"
  if not identities:
    also = "so only this was asked"
    if future:
      also = (
        f"and z, which tells {future.second.share} of the second picture, is not shown to know "
        "it better than the first"
      )
    return MOTION, f"{MOTION}: {s_text}; the set has no classes of appearance to read, {also}"
  name, strongest = max(identities.items(), key=lambda item: item[1].excess.high)
  return MOTION, (
    f"{MOTION}: {s_text}; no class of appearance is shown to be read beyond {leakage.FLAG:g} of "
    f"the way from chance to perfect (largest upper end {strongest.excess.high:.3f}: {name})"
  )


def twins(exam: sets.ExamSet) -> np.ndarray | None:
  """Indices of the views of the test's complete twins: int [chains, cameras, scenes].

  These are the chains that every camera that does not move has seen in every scene. None if there
  are fewer than two chains, cameras or scenes.
  """
  views, still = exam.views, (exam.camera_speed == 0).all(axis=1)
  test = views["part"] == sets.TEST
  moving = np.unique(views["camera"][test & ~still])
  chosen = np.flatnonzero(test & ~np.isin(views["camera"], moving))
  names = [
    np.unique(views[name][chosen], return_inverse=True) for name in ("chain", "camera", "scene")
  ]
  block = np.full([len(values) for values, _ in names], -1)
  block[tuple(index for _, index in names)] = chosen
  block = block[(block >= 0).all(axis=(1, 2))]
  return block if block.size and min(block.shape) >= 2 else None


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


def _shares(exam: sets.ExamSet, z: np.ndarray, options: dict[str, int]) -> shares.Shares | None:
  block = twins(exam)
  if block is None or not z.shape[1]:  # no width: whitening found z to be constant
    return None
  pairs = np.concatenate([2 * block, 2 * block + 1])  # both moves of a chain
  return shares.components(
    z[pairs], groups=np.tile(np.arange(len(block)), 2), whiten=False, **options
  )


def _relations(
  exam: sets.ExamSet, latents: sets.Latents, scaling: kernel_ridge.Scaling, seed: int
) -> dict[str, Any]:
  """Relations of z on the views of the test; the fit part defines the whitening."""
  views = np.flatnonzero(exam.views["part"] == sets.TEST)
  pairs = exam.rows(sets.TEST)
  chains, z = exam.views["chain"][views], scaling(latents.z)
  result: dict[str, Any] = dict.fromkeys(("additivity", "reversal", "shifted", "static"))
  if latents.z_ac is not None:
    result["additivity"] = shares.additivity(
      z[2 * views], z[2 * views + 1], scaling(latents.z_ac[views]), groups=chains, seed=seed
    )
  if latents.z_ba is not None:
    result["reversal"] = shares.reversal(
      z[pairs], scaling(latents.z_ba[pairs]), groups=np.repeat(chains, 2), seed=seed
    )
  if latents.z_shifted is not None:
    result["shifted"] = shares.shifted(
      z[2 * views], scaling(latents.z_shifted[views]), groups=chains, seed=seed
    )
  if latents.z_aa is not None:
    result["static"] = shares.static(scaling(latents.z_aa[views]), z[pairs])
  return result
