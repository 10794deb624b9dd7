"""Whether a saved checkpoint still is what was written: a checksum of each of its files, and where
damaged ones go.

Orbax checks its index and not the numbers: one flipped bit in an array is loaded without a word. So
every step gets a file `checksums.json` beside its items, written in the background once the step is
committed. A step without one (saved by an earlier version, or killed in between) is looked at as
far as its structure goes.
"""

import json
import pathlib

from como_jax import errors, weights
from como_jax.train import atomic

CHECKSUMS = "checksums.json"
STATE, DATA = "state", "data"  # the items of a step
VERSION = 1  # of a checkpoint, in its data item; those written before there was one are 0
ASIDE = "damaged-"


class Damaged(errors.UserError):
  """A checkpoint that does not hold what was written; the message says where."""


def steps(folder: pathlib.Path) -> list[int]:
  """Committed steps in a folder of checkpoints, the newest first; [] when there is no such
  folder.
  """
  if not folder.is_dir():
    return []
  return sorted(
    (int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()),
    reverse=True,
  )


def seal(step: pathlib.Path) -> None:
  """Writes the checksums of a committed step; nothing when it has been deleted meanwhile.

  Raises:
    OSError: a file cannot be read, or the checksums cannot be written.
  """
  try:
    found = {
      name: [(step / name).stat().st_size, weights.digest(step / name)] for name in _names(step)
    }
    if found:
      atomic.write(
        step / CHECKSUMS,
        json.dumps({"version": VERSION, "kind": "xxh3_64", "files": found}, indent=0),
      )
  except FileNotFoundError:
    return


def check_version(step: pathlib.Path) -> None:
  """Refuses a step of a later format.

  Raises:
    errors.UserError: naming it and both versions.
  """
  try:
    version = weights.read_json(step / DATA / "metadata").get("version")
  except errors.UserError:
    return  # damaged, which `check` says
  if isinstance(version, int) and version > VERSION:
    raise errors.UserError(
      f"checkpoint {step} has format version {version}, this program reads up to {VERSION}: "
      "update como_jax"
    )


def check(step: pathlib.Path, *, index: int = 0, count: int = 1) -> bool:
  """Compares a step with its checksums.

  Args:
    step: its folder.
    index, count: of several processes, this one reads every count-th file.

  Returns:
    Whether it has checksums; without them only its structure has been looked at.

  Raises:
    Damaged: naming the first file that is not what was written.
    errors.Storage: this user may not read it.
  """
  if not (step / CHECKSUMS).is_file():
    _structure(step)
    return False
  try:
    listed = {
      str(name): (int(size), str(digest))
      for name, (size, digest) in weights.read_json(step / CHECKSUMS)["files"].items()
    }
  except (errors.UserError, KeyError, AttributeError, TypeError, ValueError):
    raise Damaged(f"{CHECKSUMS} cannot be read") from None
  for name in sorted(listed)[index::count]:
    size, digest = listed[name]
    try:
      now = (step / name).stat().st_size
      if now != size:
        raise Damaged(f"{name} has {now} bytes, {size} were written")
      if weights.digest(step / name) != digest:
        raise Damaged(f"{name} holds other bytes than were written")
    except FileNotFoundError:
      raise Damaged(f"{name} is missing") from None
    except PermissionError as error:
      raise errors.Storage(f"cannot read {step / name}: {error.strerror}") from None
    except OSError as error:
      raise Damaged(f"{name} cannot be read: {error.strerror or error}") from None
  return True


def problem(step: pathlib.Path) -> str:
  """What `check` finds, "" for nothing."""
  try:
    check(step)
  except Damaged as error:
    return str(error)
  return ""


def _structure(step: pathlib.Path) -> None:
  """What can be seen without checksums. Raises `Damaged`."""
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
  """Renames a damaged step so that nothing takes it for one; its new folder."""
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
