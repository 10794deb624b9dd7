"""Weights of a run or of a weights folder: where they are, and loading them.

Orbax is imported only here and in checkpointer.py, which saves.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from como_jax import errors, trees, weights
from como_jax.train import checkpoint_store, frozen_weights, integrity

# Orbax warns about optional files, and logs the exceptions that it raises
absl_logging.set_verbosity(absl_logging.FATAL)

FOLDER = checkpoint_store.FOLDER
WEIGHTS = "weights"


@dataclasses.dataclass(frozen=True)
class WeightsLocation:
  """Location of the weights that belong to a path.

  Attributes:
    weights: a weights-only folder, or None when the weights are in `state`.
    state: the state of a checkpoint, or None.
    config: the config that belongs to the weights.
    step: training step of the weights; None where it is unknown.
    notes: lines about the choice that the user must see.
  """

  weights: pathlib.Path | None
  state: pathlib.Path | None
  config: pathlib.Path
  step: int | None
  notes: tuple[str, ...] = ()


def find(path: str | pathlib.Path) -> WeightsLocation:
  """Finds the weights of a weights-only folder, or the newest valid state of a run directory.

  Raises:
    errors.UserError: the path is neither of them, or contains no valid weights.
  """
  path = checkpoint_store.local(path, exported=WEIGHTS)
  if (path / weights.PARAMS).is_file():
    return _explicit(path)
  exported, config, folder = path / WEIGHTS, path / weights.CONFIG, path / FOLDER
  if not path.exists():
    siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise errors.UserError(
      f"checkpoint {str(path)!r} does not exist: {errors.nearest(str(path), siblings)}"
    )
  has_weights = (exported / weights.PARAMS).is_file()
  if not has_weights and not (config.is_file() and folder.is_dir()):
    raise errors.UserError(
      f"{str(path)!r} is neither a run directory (config.json, {FOLDER}/) nor a weights folder "
      f"({weights.PARAMS}, config.json)"
    )
  exported_step = weights.read_step(exported) if has_weights else None
  notes = []
  for step in integrity.steps(folder.absolute()):
    if has_weights and exported_step is not None and exported_step >= step:
      break
    saved = folder.absolute() / str(step)
    integrity.check_version(saved)
    if problem := integrity.problem(saved) or frozen_weights.problem_of(saved):
      notes.append(f"checkpoint {saved} is damaged ({problem}) and is not used")
      continue
    if has_weights:
      notes.append(
        f"{exported} is of step {_format_step(exported_step)}, the newest checkpoint of step "
        f"{step}: the checkpoint is used (give {exported} to use that folder)"
      )
    return WeightsLocation(None, saved / integrity.STATE, config, step, tuple(notes))
  if has_weights:
    return WeightsLocation(exported, None, exported / weights.CONFIG, exported_step, tuple(notes))
  raise errors.UserError("; ".join(notes) or f"{str(folder)!r} holds no committed checkpoint yet")


def _explicit(folder: pathlib.Path) -> WeightsLocation:
  """Uses the weights folder of the user; notes when the run around it has a later checkpoint."""
  step, parent = weights.read_step(folder), folder.absolute().parent
  is_export = folder.absolute().name == WEIGHTS
  newest = next(iter(integrity.steps(parent / FOLDER)), None) if is_export else None
  notes = ()
  if newest is not None and (step is None or newest > step):
    notes = (
      f"{folder} is of step {_format_step(step)}, its run has a checkpoint of step {newest}: the "
      f"folder is used, as given (give {parent} to use the checkpoint)",
    )
  return WeightsLocation(folder, None, folder / weights.CONFIG, step, notes)


def _format_step(step: int | None) -> str:
  return "unknown" if step is None else str(step)


def load(path: str | pathlib.Path) -> tuple[dict, dict]:
  """(Parameters as a nested dict of numpy arrays, config) of what `find` chooses, see `read`."""
  return read(find(path))


def read(location: WeightsLocation) -> tuple[dict, dict]:
  """Loads what `find` chose, and prints its notes. Raises errors.UserError: it is damaged."""
  for note in location.notes:
    print(f"note: {note}")
  if location.weights:
    return weights.load(location.weights)
  assert location.state is not None  # one of the two is there
  config = weights.read_config(location.config)
  try:
    saved = read_state(location.state)
  except (ValueError, KeyError, OSError, AttributeError) as error:
    raise errors.UserError(
      f"checkpoint {str(location.state)!r} cannot be read: {first_line(error)}"
    ) from error
  params = frozen_weights.add(saved["params"], location.state.parent)
  if saved.get("ema"):
    params = trees.unflatten({**trees.flatten(params), **trees.flatten(saved["ema"])})
  return params, config


def read_state(item: pathlib.Path) -> dict:
  """Reads a saved state as numpy arrays, with one device and from any mesh.

  The device is the CPU if jax supports it, else the first device of this machine.
  """
  try:
    device = jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    device = jax.local_devices()[0]
  with ocp.StandardCheckpointer() as reader:
    sharding = jax.sharding.SingleDeviceSharding(device)
    target = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
      reader.metadata(item).item_metadata.tree,
    )
    return jax.tree.map(jax.device_get, reader.restore(item, target))


def first_line(error: Exception) -> str:
  """The first line of an error's text, or its type where it has none."""
  return (str(error).splitlines() or [type(error).__name__])[0][:300]


def all_finite(tree: Any) -> bool:
  """Whether all floating-point values of a pytree of numpy arrays are finite."""
  return all(
    np.isfinite(leaf).all()
    for leaf in jax.tree.leaves(tree)
    if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
  )
