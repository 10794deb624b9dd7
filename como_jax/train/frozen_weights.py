"""The frozen weights of a run: one file beside its checkpoints, named by its checksum.

Nothing trains them, so they are written once, before the first step is saved. A step holds their
checksum and not the weights. The file keeps their types: not a bit changes. A step of an earlier
version holds all weights itself and has no checksum here.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from como_jax import errors, trees, weights
from como_jax.parallel import distributed
from como_jax.train import integrity

FOLDER = "frozen"  # in the run directory
KEY = "frozen"  # of the checksum in the data item of a step
_UNFINISHED = ".params.safetensors.new"


def file(workdir: pathlib.Path, checksum: str) -> pathlib.Path:
  """The file of frozen weights in a run directory."""
  return workdir / FOLDER / f"{checksum}.safetensors"


def checksum_of(step: pathlib.Path) -> str:
  """Checksum of the frozen weights that belong to a step; "" where the step holds all weights."""
  try:
    return str(weights.read_json(step / integrity.DATA / "metadata").get(KEY, ""))
  except errors.UserError:
    return ""  # the step is damaged, which `integrity.check` reports


def problem(workdir: pathlib.Path, checksum: str) -> str:
  """Describes what is wrong with the file of frozen weights; "" for nothing, or without one."""
  path = file(workdir, checksum)
  name = f"{FOLDER}/{path.name}"
  try:
    if not checksum or weights.digest(path) == checksum:
      return ""
    return f"{name} holds other bytes than were written"
  except FileNotFoundError:
    return f"{name} is missing"
  except PermissionError as error:
    raise errors.StorageError(f"cannot read {path}: {error.strerror}") from None
  except OSError as error:
    return f"{name} cannot be read: {error.strerror or error}"


def problem_of(step: pathlib.Path) -> str:
  """Describes what is wrong with the frozen weights that belong to a step; "" for nothing."""
  return problem(step.parent.parent, checksum_of(step))


def add(params: Mapping[str, Any], step: pathlib.Path) -> dict[str, Any]:
  """The parameters of a step, read from it, with the frozen ones in place.

  Raises:
    errors.UserError: the file of frozen weights is missing or damaged.
  """
  checksum, workdir = checksum_of(step), step.parent.parent
  if not checksum:
    return dict(params)
  if wrong := problem(workdir, checksum):
    raise errors.UserError(f"the frozen weights of checkpoint {step} cannot be used: {wrong}")
  return trees.join(params, weights.read_safetensors(file(workdir, checksum)))


def write(workdir: pathlib.Path, frozen: Mapping[str, Any], *, only: str = "") -> str:
  """Writes frozen weights; returns their checksum. The file appears whole or not at all.

  Args:
    workdir: the run directory.
    frozen: nested dict of arrays.
    only: with another checksum than this one, nothing is left; "" = any.
  """
  folder = workdir / FOLDER
  folder.mkdir(parents=True, exist_ok=True)
  unfinished = folder / _UNFINISHED
  try:
    weights.write_safetensors(
      unfinished, {name: np.asarray(leaf) for name, leaf in trees.flatten(frozen).items()}
    )
    checksum = weights.digest(unfinished)
    if only in ("", checksum):
      os.replace(unfinished, file(workdir, checksum))
  finally:
    unfinished.unlink(missing_ok=True)
  return checksum


class FrozenWeights:
  """The frozen weights of one run, which a step leaves out.

  Attributes:
    checksum: of their file; "" until this process has written or read it.
  """

  def __init__(self, workdir: pathlib.Path, patterns: tuple[str, ...]):
    """Reads and writes nothing yet.

    Args:
      workdir: the run directory.
      patterns: of the frozen parameters (`trees.split`).
    """
    self._workdir, self._patterns, self.checksum = workdir, patterns, ""

  def split(self, state: Any) -> tuple[Any, dict[str, Any]]:
    """(A state without its frozen parameters, these as a nested dict)."""
    if not self._patterns:
      return state, {}
    trained, frozen = trees.split(state.params, self._patterns)
    return dataclasses.replace(state, params=trained), frozen

  def save(self, frozen: Mapping[str, Any]) -> str:
    """Writes the file, at the first call; returns its checksum. Every process must call it.

    Args:
      frozen: as returned by `split`.

    Raises:
      OSError: process 0 cannot write it.
    """
    if not self.checksum:
      primary = distributed.is_primary()
      whole = distributed.gather(frozen, keep=primary)
      self.checksum = distributed.broadcast_from_primary(
        write(self._workdir, whole) if primary else ""
      )
    return self.checksum

  def restore(self, trained: Any, checksum: str, target: Mapping[str, Any], start: Any) -> Any:
    """The state with its frozen weights, which process 0 reads. Every process must call it.

    Where their file is missing or damaged, it is written again from the state with which the run
    began, if that has the same weights.

    Args:
      trained: the state without them.
      checksum: of their file.
      target: their shapes, types and shardings.
      start: the state with which the run began.

    Raises:
      errors.UserError: the file cannot be used, or is of another model.
    """
    primary = distributed.is_primary()
    wrong = distributed.run_on_all_processes(
      lambda: problem(self._workdir, checksum) if primary else ""
    )
    if wrong := distributed.broadcast_from_primary(wrong):
      self._write_again(checksum, start, wrong)
    source = distributed.run_on_all_processes(
      lambda: self._read(checksum, target) if primary else None
    )
    self.checksum = checksum
    params = trees.join(trained.params, place(source, target))
    return dataclasses.replace(trained, params=params)

  def _write_again(self, checksum: str, start: Any, wrong: str) -> None:
    """Replaces a file that cannot be used by that of the state with which the run began."""
    primary = distributed.is_primary()
    whole = distributed.gather(self.split(start)[1], keep=primary)

    def replace() -> None:
      if primary and write(self._workdir, whole, only=checksum) != checksum:
        raise errors.UserError(
          f"--resume: the frozen weights of the run cannot be used ({wrong}), and those of the "
          f"config are others: put {file(self._workdir, checksum)} back"
        )

    distributed.run_on_all_processes(replace)
    if primary:
      print(f"frozen weights: {wrong}: written again from those that the run began with")

  def _read(self, checksum: str, target: Mapping[str, Any]) -> dict[str, np.ndarray]:
    source = weights.read_safetensors(file(self._workdir, checksum))
    if other := differences(source, target):
      raise errors.UserError(f"{file(self._workdir, checksum)}: {other}")
    return source


def place(source: Mapping[str, np.ndarray] | None, target: Any) -> dict[str, Any]:
  """Puts weights that process 0 has read onto the devices of all processes, leaf by leaf.

  Not a bit changes: the bytes are sent, as the sum of -0.0 and 0 would lose a sign.

  Args:
    source: path name -> array; None in the other processes.
    target: nested dict of shapes, types and shardings.
  """
  several, placed = jax.process_count() > 1, {}
  for name, leaf in trees.flatten(target).items():
    # a copy: the file may go away
    values = np.zeros(leaf.shape, leaf.dtype) if source is None else np.array(source[name])
    if several:
      sent = multihost_utils.broadcast_one_to_all(values.reshape(-1).view(np.uint8))
      values = np.asarray(sent).view(leaf.dtype).reshape(leaf.shape)
    placed[name] = jax.make_array_from_callback(
      leaf.shape, leaf.sharding, lambda part, values=values: values[part]
    )
  return trees.unflatten(placed)


def differences(source: Mapping[str, np.ndarray], target: Any) -> str:
  """How the weights of a file differ from what a state expects, in words; "" for not at all."""
  expected = {
    name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in trees.flatten(target).items()
  }
  found = {name: (leaf.shape, leaf.dtype) for name, leaf in source.items()}
  other = sorted(
    name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
  )
  return f"{', '.join(other[:3])} is missing or of another shape or type" if other else ""
