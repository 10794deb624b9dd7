"""Takes the exam: everything that is asked of one latent.

Legend: P pairs, M test pairs, A numbers asked for, Z width.
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
  """What the exam found of one latent.

  Parts that the set or the latents do not allow are None or empty.

  Attributes:
    verdict: one of `MOTION`, `APPEARANCE`, `NOTHING`, `WITHHELD`; `sentence` says it with numbers.
    score: S in unseen cameras and scenes, the move in the camera's frame.
    score_robot: S in unseen scenes seen by the cameras of the fit, the move in the robot's frame.
    controls: name -> e of every stored control on the test's pairs.
    cameras, scenes: S in each; of the cameras those that stand still, where there are such (a
      control may not know how a camera moves, and is chosen over all pairs).
    identities: class -> how well it is read (`leakage.Identity`), on held-out chains of the fit
      part.
    numbers: name -> how well the view's numbers are read in unseen cameras and scenes.
    future: how well the pictures of the test's pairs are rebuilt from z, on held-out chains of the
      test.
    shares: of z's variance over complete twins.
    crossed: e of moves of one camera read with another's probe.
    dose: speed of the camera -> e, in the test's moving cameras.
    additivity, reversal, shifted, static: relations of z, whitened (`shares.Relation`,
      `shares.static`).
    errors, errors_robot: of the test's pairs [M, A], in units of the variance: for paired
      differences of latents.
    moves: the test's pairs: their chains, and the squares of what is asked.
    names, names_robot: of the numbers asked for.
    width: of z.
    text: the probe of the moves.
    seconds: that it took.
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
    """Classes of appearance that are readable, and `FUTURE` where the second picture is."""
    classes = tuple(name for name, found in self.identities.items() if found.flagged)
    return classes + ((FUTURE,) if self.future and self.future.flagged else ())

  def row(self) -> dict[str, float]:
    """Plain numbers by name, nan where something was withheld: a row of a table of many latents."""
    found = {
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
      found |= {
        f"error_robot/{n}": v
        for n, v in zip(self.names_robot, self.score_robot.by_dimension.tolist(), strict=False)
      }
    estimates |= {f"excess/{name}": some.excess for name, some in self.identities.items()}
    estimates |= {f"read/{name}": some.share for name, some in self.numbers.items()}
    if self.future:
      first, second = self.future.first.share, self.future.second.share
      estimates |= {"future/first": first, "future/second": second, "future/gap": self.future.gap}
    estimates |= {
      f"share/{name}": some for name, some in (self.shares.shares if self.shares else {}).items()
    }
    estimates |= {f"e_at_speed/{level:g}": some for level, some in self.dose.items()}
    for name in ("additivity", "reversal", "shifted"):
      if (relation := getattr(self, name)) is not None:
        estimates |= {name: relation.error, f"{name}_cosine": relation.cosine}
    for name, some in estimates.items():
      found |= {
        name: some.value,
        f"{name}_error": some.error,
        f"{name}_low": some.low,
        f"{name}_high": some.high,
      }
    found |= {
      f"error/{n}": v for n, v in zip(self.names, self.score.by_dimension.tolist(), strict=False)
    }
    found |= {f"e_control/{name}": value for name, value in self.controls.items()}
    found |= {"e_own_camera": self.crossed.own, "e_other_camera": self.crossed.other}
    found |= {"s_range_cameras": self.cameras.range, "s_range_scenes": self.scenes.range}
    return found | ({} if self.static is None else {"static": self.static})


def evaluate(
  exam: sets.ExamSet,
  z: Any,
  *,
  seed: int = 0,
  resamples: int = resampling.RESAMPLES,
  log: Callable[[str], None] = lambda _: None,
) -> Result:
  """Scores a latent.

  Args:
    exam: the set.
    z: `exam_set.Latents`, or z alone [P, Z].
    seed: of inner splits, held-out chains and bootstraps.
    resamples: draws of a bootstrap.
    log: told what is under way.

  Raises:
    errors.UserError: latents that do not fit the set; a set without controls of one picture and of
      both.
  """
  begin = time.monotonic()
  given = (
    {f.name: getattr(z, f.name) for f in dataclasses.fields(z)}
    if isinstance(z, sets.Latents)
    else {"z": z}
  )
  latents = sets.latents(
    {name: values for name, values in given.items() if values is not None}, exam
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
  wanted = np.concatenate(tables, axis=1)
  probe = kernel_ridge.fit(
    latents.z[fit], wanted[fit], groups=chains[fit], seed=seed, blocks=blocks
  )
  ends = np.cumsum([0] + [t.shape[1] for t in tables])
  sides = [slice(a, b) for a, b in zip(ends[:-1], ends[1:], strict=False)]
  predicted = probe.predict(latents.z[test])
  found = motion_score.pair_errors(predicted[:, sides[0]], exam.target[test], exam.variance)
  stored = {name: values / exam.variance for name, values in exam.errors.items()}
  moves = motion_score.Moves(chains[test], exam.target[test] ** 2 / exam.variance, exam.limit)
  single, both = _controls(stored, "errors", exam.limit)
  score = motion_score.score(single, found, both, moves, **options)
  speed = exam.camera_speed.reshape(-1)
  moving = np.isin(cameras[test], np.unique(cameras[test][speed[test] > 0]))
  every = np.arange(len(test))
  levels = {"camera": np.flatnonzero(~moving) if not moving.all() else every, "scene": every}
  spreads = [
    motion_score.spread(
      [values[some] for values in single],
      found[some],
      [values[some] for values in both],
      moves[some],
      levels=exam.of_pairs(name)[test][some],
      **options,
    )
    for name, some in levels.items()
  ]
  robot = errors_robot = None
  if len(same) and exam.errors_robot:
    errors_robot = motion_score.pair_errors(
      probe.predict(latents.z[same])[:, sides[1]], exam.target_robot[same], exam.variance_robot
    )
    known = {name: values / exam.variance_robot for name, values in exam.errors_robot.items()}
    moves_robot = motion_score.Moves(
      chains[same], exam.target_robot[same] ** 2 / exam.variance_robot, exam.limit
    )
    first_or_second, two = _controls(known, "errors_robot", exam.limit)
    robot = motion_score.score(first_or_second, errors_robot, two, moves_robot, **options)

  log("classes and numbers of appearance")
  labels = {name: exam.of_pairs(name)[fit] for name in sets.LABELS}
  labels = {name: values for name, values in labels.items() if len(np.unique(values)) > 1}
  identities = leakage.identities(latents.z[fit], labels, chains[fit], **options) if labels else {}
  numbers = {
    name: leakage.reading(
      predicted[:, side],
      wanted[test, side],
      wanted[fit, side].mean(axis=0),
      groups=chains[test],
      **options,
    )
    for name, side in zip(exam.numbers, sides[2:], strict=False)
  }

  future = None
  if exam.pictures is not None and len(np.unique(chains[test])) >= leakage.LEAST:
    log("the future picture")
    rebuilt = (exam.pictures[:, some].reshape(len(test), -1) for some in (slice(0, 2), slice(1, 3)))
    future = leakage.future(latents.z[test], *rebuilt, chains=chains[test], **options)

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
    score_robot=robot,
    controls={name: motion_score.e(values) for name, values in stored.items()},
    cameras=spreads[0],
    scenes=spreads[1],
    identities=identities,
    numbers=numbers,
    future=future,
    shares=_shares(exam, scaling(latents.z), options),
    crossed=crossed,
    dose=shares.dose(found[moving], speed[test][moving], moves[moving], seed=seed)
    if moving.any()
    else {},
    **_relations(exam, latents, scaling, seed),
    errors=found,
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
  """(verdict, one plain sentence with the numbers that it rests on)."""
  if score.withheld:
    return WITHHELD, f"{WITHHELD}: {score.withheld}"
  told = f"S is {score.s}"
  classes = [f"{name} {some.excess}" for name, some in identities.items() if some.flagged]
  flagged = [f"{', '.join(classes)} of the way from chance to perfect reading"] if classes else []
  if future and future.flagged:
    flagged.append(
      f"{FUTURE}: z tells {future.second.share} of the second picture and knows it better than "
      f"the first by {future.gap} of their variance"
    )
  read = "; ".join(flagged)
  if not score.s.low > 0:
    also = f"; appearance is readable: {read}" if flagged else ""
    return NOTHING, f"{NOTHING}: {told}, an interval that does not lie above 0{also}"
  if flagged:
    return APPEARANCE, f"{APPEARANCE}: {read}; {told}"
  if not identities:
    also = "so only this was asked"
    if future:
      also = (
        f"and z, which tells {future.second.share} of the second picture, is not shown to know "
        "it better than the first"
      )
    return MOTION, f"{MOTION}: {told}; the set has no classes of appearance to read, {also}"
  name, most = max(identities.items(), key=lambda item: item[1].excess.high)
  return MOTION, (
    f"{MOTION}: {told}; no class of appearance is shown to be read beyond {leakage.FLAG:g} of the "
    f"way from chance to perfect (largest upper end {most.excess.high:.3f}: {name})"
  )


def twins(exam: sets.ExamSet) -> np.ndarray | None:
  """Views int [chains, cameras, scenes] of the test's complete twins under fixed cameras; None
  where there are fewer than two of any.
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
  """(errors of controls of one picture, of both). The true pose of one picture is a control of one
  picture: a latent that holds the second pose, read better than any probe of the picture does,
  holds no motion all the same. Where the set says what that pose can tell at best, its sample is
  not needed.
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
  if block is None or not z.shape[1]:  # z is the same everywhere
    return None
  pairs = np.concatenate([2 * block, 2 * block + 1])  # both moves of a chain
  return shares.components(
    z[pairs], groups=np.tile(np.arange(len(block)), 2), whiten=False, **options
  )


def _relations(
  exam: sets.ExamSet, latents: sets.Latents, scaling: kernel_ridge.Scaling, seed: int
) -> dict[str, Any]:
  """Of the test's views, z whitened by the fit part."""
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
