"""Runs all parts of the exam on one latent.

Legend: P pairs, Z latent width.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from como_jax.exam import decoding, leakage, relations, resampling, shares, verdict, whitening
from como_jax.exam import exam_set as sets
from como_jax.exam.result import Result


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
  latents = _latents(exam, z)
  fit, test = exam.rows(sets.FIT), exam.rows(sets.TEST)
  chains, cameras = exam.of_pairs("chain"), exam.of_pairs("camera")
  options = {"seed": seed, "resamples": resamples}

  log("probes of the moves")
  decoded = decoding.decode(exam, latents, seed)
  scored = decoding.score_camera(exam, decoded, options)
  score_robot, errors_robot = decoding.score_robot(exam, latents, decoded, options)

  log("classes and numbers of appearance")
  identities = _identities(exam, latents.z, options)
  numbers = decoding.score_numbers(exam, decoded, options)

  future = None
  if exam.pictures is not None and len(np.unique(chains[test])) >= leakage.MIN_TRAJECTORIES:
    log("the future picture")
    future = _future(exam.pictures, latents.z[test], chains[test], options)

  log("variance over twins, other cameras, relations")
  scaling = whitening.scale_inputs(latents.z[fit])
  crossed = shares.cross_decoding(
    scaling(latents.z[fit]), exam.target[fit], cameras[fit], chains[fit], seed=seed
  )
  word, sentence = verdict.conclude(scored.score, identities, future)
  return Result(
    verdict=word,
    sentence=sentence,
    score=scored.score,
    score_robot=score_robot,
    controls=scored.controls,
    cameras=scored.cameras,
    scenes=scored.scenes,
    identities=identities,
    numbers=numbers,
    future=future,
    shares=_shares(exam, scaling(latents.z), options),
    crossed=crossed,
    dose=scored.dose,
    **_relations(exam, latents, scaling, seed),
    errors=scored.errors,
    errors_robot=errors_robot,
    moves=scored.moves,
    names=exam.names,
    names_robot=exam.names_robot,
    width=latents.z.shape[1],
    text=decoded.probe.text,
    seconds=time.monotonic() - begin,
  )


def _identities(
  exam: sets.ExamSet, z: np.ndarray, options: dict[str, int]
) -> dict[str, leakage.Identity]:
  """How well each label of appearance that varies is read from z, on the fit part."""
  fit = exam.rows(sets.FIT)
  labels = {name: exam.of_pairs(name)[fit] for name in sets.LABELS}
  labels = {name: values for name, values in labels.items() if len(np.unique(values)) > 1}
  if not labels:
    return {}
  return leakage.identities(z[fit], labels, exam.of_pairs("chain")[fit], **options)


def _future(
  pictures: np.ndarray, z: np.ndarray, chains: np.ndarray, options: dict[str, int]
) -> leakage.PictureLeakage:
  """How well z of the test's pairs tells their pictures; `pictures` as in `ExamSet`."""
  first, second = (pictures[:, k].reshape(len(z), -1) for k in (slice(0, 2), slice(1, 3)))
  return leakage.future(z, first, second, chains=chains, **options)


def _latents(exam: sets.ExamSet, z: Any) -> sets.Latents:
  """Checks the latents of `evaluate`."""
  arrays = (
    {f.name: getattr(z, f.name) for f in dataclasses.fields(z)}
    if isinstance(z, sets.Latents)
    else {"z": z}
  )
  return sets.latents({name: values for name, values in arrays.items() if values is not None}, exam)


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


def _shares(exam: sets.ExamSet, z: np.ndarray, options: dict[str, int]) -> shares.Shares | None:
  block = twins(exam)
  if block is None or not z.shape[1]:  # no width: whitening found z to be constant
    return None
  pairs = np.concatenate([2 * block, 2 * block + 1])  # both moves of a chain
  return shares.variance_components(
    z[pairs], groups=np.tile(np.arange(len(block)), 2), whiten=False, **options
  )


def _relations(
  exam: sets.ExamSet, latents: sets.Latents, scaling: whitening.Scaling, seed: int
) -> dict[str, Any]:
  """Relations of z on the views of the test; the fit part defines the whitening."""
  views = np.flatnonzero(exam.views["part"] == sets.TEST)
  pairs = exam.rows(sets.TEST)
  chains, z = exam.views["chain"][views], scaling(latents.z)
  result: dict[str, Any] = dict.fromkeys(("additivity", "reversal", "shifted", "static"))
  if latents.z_ac is not None:
    result["additivity"] = relations.additivity(
      z[2 * views], z[2 * views + 1], scaling(latents.z_ac[views]), groups=chains, seed=seed
    )
  if latents.z_ba is not None:
    result["reversal"] = relations.reversal(
      z[pairs], scaling(latents.z_ba[pairs]), groups=np.repeat(chains, 2), seed=seed
    )
  if latents.z_shifted is not None:
    result["shifted"] = relations.shifted(
      z[2 * views], scaling(latents.z_shifted[views]), groups=chains, seed=seed
    )
  if latents.z_aa is not None:
    result["static"] = relations.static(scaling(latents.z_aa[views]), z[pairs])
  return result
