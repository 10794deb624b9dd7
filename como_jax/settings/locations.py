"""Checks of names, of inputs that must exist, and of folders that must be writable.

Nothing is read or written; of an object store it is asked what there is.
"""

import os
import pathlib
from collections.abc import Iterable
from typing import Any

from como_jax import errors, storage


def one_of(key: str, value: Any, valid: Iterable[str]) -> None:
  """Checks that the value of a key is one of the valid values.

  Args:
    key: the key, without "config.".
    value: its value; a section is refused like another name.
    valid: the valid values.

  Raises:
    errors.UserError: names the key and the nearest valid value.
  """
  valid = list(valid)
  if value not in valid:
    text = repr(dict(value) if hasattr(value, "keys") else value)
    raise errors.UserError(f"config.{key}={text} is unknown: {errors.nearest(str(value), valid)}")


def exists(name: str, path: str) -> None:
  """Checks that a path exists.

  Args:
    name: of the setting, for the message.
    path: to check.

  Raises:
    errors.UserError: the path does not exist; names the nearest existing one.
  """
  if os.path.exists(path):
    return
  if storage.is_remote(path):
    try:
      there = storage.exists(path)
    except errors.UserError as error:
      raise errors.UserError(f"{name}: {error}") from error
    if not there:
      raise errors.UserError(f"{name}={path} does not exist")
    return
  folder = os.path.dirname(path.rstrip("/")) or "."
  names = os.listdir(folder) if os.path.isdir(folder) else []
  beside = [
    os.path.join(folder, name) if os.path.dirname(path) else name
    for name in names
    if not name.startswith(".")
  ]
  hint = errors.nearest(path, beside)
  raise errors.UserError(
    f"{name}={path} does not exist"
    + (f": {hint.partition(' (')[0]}" if hint.startswith("did") else "")
  )


def writable(name: str, path: str) -> None:
  """Checks that a folder exists or can be made, and that files can be written into it.

  Args:
    name: of the setting, for the message.
    path: the folder.

  Raises:
    errors.UserError: names the folder and the obstacle.
  """
  target = pathlib.Path(path).absolute()
  existing = target
  while not os.path.lexists(existing) and existing != existing.parent:
    existing = existing.parent
  if not existing.is_dir():
    what = (
      "is a file, a directory is expected"
      if existing == target
      else f"cannot be made: {existing} is no directory"
    )
    raise errors.UserError(f"{name} {path} {what}")
  if reason := _too_long(existing, target):
    raise errors.UserError(f"{name} {path[:40]}... is too long a path here: {reason}")
  if not os.access(existing, os.W_OK | os.X_OK):
    raise errors.UserError(
      f"{name} {path} cannot be written: no permission for {existing}; choose another directory"
    )


def _too_long(existing: pathlib.Path, path: pathlib.Path) -> str:
  """Describes what is too long in a path; "" for nothing.

  The files of a run in that folder need room for one more name.

  Args:
    existing: the part of the path that exists.
    path: the whole path.
  """
  max_name, max_path = (os.pathconf(existing, key) for key in ("PC_NAME_MAX", "PC_PATH_MAX"))
  longest = max((len(os.fsencode(part)) for part in path.relative_to(existing).parts), default=0)
  if 0 < max_name < longest:
    return f"a name of {longest} bytes, at most {max_name} are possible"
  size = len(os.fsencode(path))
  if size + max_name > max_path:
    return f"{size} bytes, at most {max_path - max_name} are possible"
  return ""
