"""The probe of a motion model: latents, targets and metrics, beside those of the untrained model.

Legend: M held-out windows.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax.data import evaluation
from como_jax.evaluate import probe_table, probe_targets
from como_jax.inference import motion_evaluator


@dataclasses.dataclass(frozen=True)
class Probed:
  """A motion model that was probed.

  Attributes:
    trained: the trained model on the M held-out windows.
    targets: targets of the probes.
    table: all metrics.
  """

  trained: motion_evaluator.MotionEvaluation
  targets: Sequence[probe_targets.Target]
  table: probe_table.Table


def probe(
  evaluator: motion_evaluator.MotionEvaluator,
  params: Mapping[str, Any],
  windows: evaluation.EvaluationWindows,
  fit_windows: evaluation.EvaluationWindows,
  *,
  names: probe_targets.Names,
  state_names: Mapping[str, str],
  seed: int,
) -> Probed:
  """Computes all metrics.

  Args:
    evaluator: of the model.
    params: "trained" and "untrained" -> parameters, with the same encoder.
    windows: the held-out windows.
    fit_windows: the windows on which the probes are fitted.
    names: names of the dimensions, see `label_names`.
    state_names: "state_delta" and "state" -> names of their rows.
    seed: seed of the probes.
  """
  evaluations = {
    probe_table.TRAINED: evaluator(params[probe_table.TRAINED], windows, pictures=True),
    probe_table.UNTRAINED: evaluator(params[probe_table.UNTRAINED], windows),
  }
  fitted = evaluator.labels(params, fit_windows)
  trained = evaluations[probe_table.TRAINED]
  targets = [
    probe_targets.build(
      name, fitted.columns, trained.columns, names=names, datasets=windows.datasets
    )
    for name in probe_targets.TARGETS
  ]
  table = probe_table.build(
    evaluations, fitted, targets, windows, state_names=state_names, seed=seed
  )
  return Probed(trained, targets, table)


def label_names(manifests: Sequence[Mapping[str, Any]]) -> dict[str, list[Sequence[str] | None]]:
  """Names of the dimensions of "action" and "state" in each data set; None if it has no names.

  Args:
    manifests: of the data sets.
  """
  return {key: [manifest[key]["names"] for manifest in manifests] for key in ("action", "state")}


def save_latents(path: pathlib.Path, evaluated: motion_evaluator.MotionEvaluation) -> None:
  """Writes z, past, future and the columns of the windows as an .npz."""
  # `Any`, since numpy.savez also has a keyword that is no array.
  arrays: dict[str, Any] = {"z": evaluated.z, "past": evaluated.past, "future": evaluated.future}
  np.savez(path, **arrays, **dict[str, Any](evaluated.columns))
