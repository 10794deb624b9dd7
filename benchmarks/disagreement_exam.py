"""A set of the exam: the latents of a row on it, and the error of every pair.

Legend: P pairs of the exam, Z dimensions of a latent.
"""

import functools
import json
import pathlib

import numpy as np
from disagreement_rows import DIFFERENCE, FIRST, FLOW, FUTURE, Measured

from como_jax import errors, model_presets
from como_jax.evaluate import exam_baselines, exam_components
from como_jax.exam import exam_set, kernel_ridge, motion_score
from como_jax.exam import rows as rows_lib
from como_jax.exam.pictures import Pictures
from como_jax.inference import exam_pictures
from como_jax.tasks import exam
from como_jax.tasks import exam_set as exam_set_task

NEAR = 0.01  # tolerance of e between a recomputed row and the stored one


class Exam:
  """A set of the exam, and the errors of its pairs by latent (computed on demand)."""

  def __init__(self, folder: pathlib.Path):
    self.folder, self.set = folder, exam_set.load(folder)
    self.stored = json.loads((folder / rows_lib.ROWS).read_text())
    self.chains = self.set.of_pairs("chain")
    self.errors = functools.cache(self._errors)
    self.probe = functools.cache(self._probe)
    self.latents = functools.cache(self._latents)

  def s(self, e_z: float) -> float:
    """S of an error of the move, with the set's controls; a run's file may have older ones."""
    row = self.stored[DIFFERENCE]
    return (row["e_single"] - e_z) / (row["e_single"] - row["e_both"])

  def _latents(self, latent: Measured) -> np.ndarray:
    """Latents z [P, Z]."""
    if latent.folder is not None:
      return exam_set.load_latents(latent.folder / "exam" / exam.LATENTS, self.set).z
    return components(self.folder, latent.stored)

  def _probe(self, latent: Measured) -> kernel_ridge.Probe:
    """Probe of the moves, fitted on the fit part as in `como_jax.exam.run`.

    Raises:
      errors.UserError: its error on the test differs from the stored one.
    """
    fit, test = self.set.rows(exam_set.FIT), self.set.rows(exam_set.TEST)
    z = self.latents(latent)
    probe = kernel_ridge.fit(z[fit], self.set.target[fit], groups=self.chains[fit])
    e_z = motion_score.e(
      motion_score.pair_errors(probe.predict(z[test]), self.set.target[test], self.set.variance)
    )
    if abs(e_z - latent.e_z) > NEAR:
      raise errors.UserError(
        f"{latent.folder or latent.stored}: error of the move {e_z:.3f} read from its latents, "
        f"{latent.e_z:.3f} stored: latents and exam.json are of different sets"
      )
    return probe

  def _errors(self, latent: Measured) -> np.ndarray:
    """Errors of the test's pairs, in units of the variance."""
    if latent.stored:
      with np.load(self.folder / exam_set.TABLE) as file:
        if f"rows/{latent.stored}" in file.files:
          return file[f"rows/{latent.stored}"].astype(np.float64)
    test = self.set.rows(exam_set.TEST)
    prediction = self.probe(latent).predict(self.latents(latent)[test])
    return motion_score.pair_errors(prediction, self.set.target[test], self.set.variance)


def components(folder: pathlib.Path, name: str) -> np.ndarray:
  """Latents z [P, Z] of a row of components; `exam_baselines.build` would need the true poses."""
  if name == FLOW:  # needs no encoder
    values = exam_pictures.frames(folder, model_presets.preset("motion", "debug")["image_size"])
    change = exam_pictures.moved_cells(Pictures.first(values), Pictures.second(values))
  else:
    values = exam_set_task.load(folder).tokens.astype(np.float32)
    first, second = Pictures.first(values), Pictures.second(values)
    read = {DIFFERENCE: lambda: second - first, FIRST: lambda: first, FUTURE: lambda: second}[name]
    change = read()
  change = change.reshape(len(change), -1)
  fit = exam_set.load(folder).rows(exam_set.FIT)
  chosen = fit[:: max(1, len(fit) // 4_000)]
  picture = first.reshape(change.shape) if name == FUTURE else change
  project = exam_components.components(picture[chosen], exam_baselines.COMPONENTS)
  return project(change)
