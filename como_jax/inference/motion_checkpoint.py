"""A trained motion model, loaded to be used: the model, its parameters, and what it was trained on.

Training is over: nothing here changes the parameters.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from como_jax import errors, models, trees
from como_jax.inference import fingerprints
from como_jax.models.motion import como
from como_jax.train import checkpoint, goodput, log, rng


@dataclasses.dataclass(frozen=True, eq=False)
class MotionCheckpoint:
  """A trained motion model.

  Attributes:
    path: run directory or weights folder, as given.
    model: the model.
    params: its parameters.
    section: the model section of its training.
    trained_on: the data section of its training; {} where it is not known.
    fingerprint: checksum of the parameters.
  """

  path: str
  model: como.MotionModel
  params: Mapping[str, Any]
  section: Mapping[str, Any]
  trained_on: Mapping[str, Any]
  fingerprint: str


def read(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads the parameters and the training config of a motion model.

  Args:
    path: run directory or weights folder.

  Raises:
    errors.UserError: there is no checkpoint, or it holds another kind of model.
  """
  return _read(path)[1:]


def load(path: str, *, dtype: str = "") -> MotionCheckpoint:
  """Loads a motion model.

  Args:
    path: run directory or weights folder.
    dtype: in which the model computes; "" = as it was trained.

  Raises:
    errors.UserError: as `read`; or the parameters do not fit the model.
  """
  location, params, config = _read(path)
  section = config["model"]
  model = models.build({**section, "dtype": dtype or section["dtype"]})
  params = trees.merge(
    jax.eval_shape(model.init, rng.key(0, "init")), params, what=f"checkpoint {path}"
  )
  return MotionCheckpoint(
    path=path,
    model=model,
    params=params,
    section=section,
    trained_on=config.get("data", {}),
    fingerprint=fingerprints.of_parameters(location, params),
  )


@dataclasses.dataclass(frozen=True)
class TrainingLog:
  """What the training run of a model has logged.

  Attributes:
    name: name of the run directory.
    curves: "loss" and "validation/loss" -> (steps, values).
    speed: its speeds and times; {} if it wrote none.
    goodput: where its time went (train/goodput.py); {} if it wrote no ledger.
  """

  name: str
  curves: Mapping[str, tuple[list[int], list[float]]]
  speed: Mapping[str, Any]
  goodput: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def training_log(path: str) -> TrainingLog:
  """Reads the log of the run to which a checkpoint belongs.

  Args:
    path: run directory or weights folder.
  """
  folder = pathlib.Path(path)
  folder = folder.parent if folder.name == checkpoint.WEIGHTS else folder
  validation = log.read(folder, kind="validation")
  speed = folder / "speed.json"
  return TrainingLog(
    folder.name,
    log.read(folder, kind="train")
    | {f"validation/{name}": curve for name, curve in validation.items()},
    json.loads(speed.read_text()) if speed.is_file() else {},
    goodput.read(folder),
  )


def _read(path: str) -> tuple[checkpoint.WeightsLocation, dict[str, Any], dict[str, Any]]:
  """(location, parameters, config), see `checkpoint`; other kinds of models are refused."""
  if not path:
    raise errors.UserError(
      "config.checkpoint is empty: give the run directory or weights folder of a motion model"
    )
  location = checkpoint.find(path)
  params, config = checkpoint.read(location)
  if config.get("model", {}).get("kind") != "motion":
    kind = config.get("model", {}).get("kind") or config.get("kind", "unknown")
    raise errors.UserError(
      f"checkpoint {path!r} holds a model of kind {kind!r}, a motion model is expected"
    )
  return location, params, config
