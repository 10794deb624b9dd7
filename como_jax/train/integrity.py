"""Integrity of saved checkpoints: checksums of their files, and handling of damaged steps.

Orbax checks its index but not the arrays: it loads an array with a flipped bit without an error.
Every step therefore gets a file `checksums.json` beside its items, written in the background after
the commit. For a step without this file (saved by an earlier version, or killed before it was
written), only the structure is checked.
"""

import json
import pathlib

from como_jax import errors, weights
from como_jax.train import atomic

CHECKSUMS = "checksums.json"
STATE, DATA = "state", "data"  # the items of a step
# Of a checkpoint, in its data item. 0: written before there were versions; 1: holds the frozen
# weights; 2: holds their checksum (frozen_weights.py).
VERSION = 2
ASIDE = "damaged-"


class Damaged(errors.UserError):
  """A checkpoint that differs from what was written; the message names the file."""


def steps(folder: pathlib.Path) -> list[int]:
  """Lists the committed steps in a folder of checkpoints, newest first; [] without the folder."""
  if not folder.is_dir():
    return []
  return sorted(
    (int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()),
    reverse=True,
  )


def seal(step: pathlib.Path) -> None:
  """Writes the checksums of a committed step; does nothing if the step was deleted meanwhile.

  Raises:
    OSError: a file cannot be read, or the checksums cannot be written.
  """
  try:
    files = {
      name: [(step / name).stat().st_size, weights.digest(step / name)] for name in _names(step)
    }
    if files:
      atomic.write(
        step / CHECKSUMS,
        json.dumps({"version": VERSION, "kind": "xxh3_64", "files": files}, indent=0),
      )
  except FileNotFoundError:
    return


def check_version(step: pathlib.Path) -> None:
  """Refuses a step of a later format version.

  Raises:
    errors.UserError: names the step and both versions.
  """
  try:
    version = weights.read_json(step / DATA / "metadata").get("version")
  except errors.UserError:
    return  # the step is damaged, which `check` reports
  if isinstance(version, int) and version > VERSION:
    raise errors.UserError(
      f"checkpoint {step} has format version {version}, this program reads up to {VERSION}: "
      "update como_jax"
    )


def check(step: pathlib.Path, *, index: int = 0, count: int = 1) -> bool:
  """Compares a step with its checksums.

  Args:
    step: folder of the step.
    index: of this process; with several processes, each reads every count-th file.
    count: number of processes.

  Returns:
    Whether the step has checksums; otherwise only its structure was checked.

  Raises:
    Damaged: names the first file that differs from what was written.
    errors.StorageError: this user has no permission to read the file.
  """
  if not (step / CHECKSUMS).is_file():
    _structure(step)
    return False
  try:
    files = {
      str(name): (int(size), str(digest))
      for name, (size, digest) in weights.read_json(step / CHECKSUMS)["files"].items()
    }
  except (errors.UserError, KeyError, AttributeError, TypeError, ValueError):
    raise Damaged(f"{CHECKSUMS} cannot be read") from None
  for name in sorted(files)[index::count]:
    size, digest = files[name]
    try:
      current_size = (step / name).stat().st_size
      if current_size != size:
        raise Damaged(f"{name} has {current_size} bytes, {size} were written")
      if weights.digest(step / name) != digest:
        raise Damaged(f"{name} holds other bytes than were written")
    except FileNotFoundError:
      raise Damaged(f"{name} is missing") from None
    except PermissionError as error:
      raise errors.StorageError(f"cannot read {step / name}: {error.strerror}") from None
    except OSError as error:
      raise Damaged(f"{name} cannot be read: {error.strerror or error}") from None
  return True


def problem(step: pathlib.Path) -> str:
  """Describes the damage that `check` finds; "" for none."""
  try:
    check(step)
  except Damaged as error:
    return str(error)
  return ""


def _structure(step: pathlib.Path) -> None:
  """Checks a step that has no checksums.

  Raises:
    Damaged: a file is missing, empty or inconsistent.
  """
  try:
    position = weights.read_json(step / DATA / "metadata").get("position")
    weights.read_json(step / STATE / "_METADATA")
  except errors.UserError as error:
    raise Damaged(str(error).replace(f"{step}/", "")) from None
  if position != int(step.name):
    raise Damaged(f"{DATA}/metadata gives the data position {position!r}")
  manifest = step / STATE / "manifest.ocdbt"
  if not manifest.is_file() or not manifest.stat().st_size:
    raise Damaged(f"{STATE}/{manifest.name} is missing or empty")


def set_aside(step: pathlib.Path) -> pathlib.Path:
  """Renames a damaged step, so that it no longer counts as a step; returns its new folder."""
  number, name = 1, f"{ASIDE}{step.name}"
  while (step.parent / name).exists():
    number += 1
    name = f"{ASIDE}{step.name}-{number}"
  return step.rename(step.parent / name)


def _names(step: pathlib.Path) -> list[str]:
  return sorted(
    str(path.relative_to(step))
    for item in (STATE, DATA)
    for path in (step / item).rglob("*")
    if path.is_file()
  )
