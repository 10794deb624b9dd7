"""The command `como-jax cache`: what the caches hold, their limit, and removing it."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import time
from collections.abc import Sequence

from como_jax import errors
from como_jax.storage import cache as cache_lib

# folder below the root -> what is in it
PARTS = {
  "remote": "copies of remote files; the limit is theirs",
  "runs": "local copies of runs whose workdir is in a store",
  "folders": "local copies of label sets, weights and runs that are read",
  "shards": "data converted from videos and LeRobot data sets",
  "language": "vectors of instructions",
}
USAGE = "como-jax cache list | size | limit [SIZE] | clear [" + " | ".join(PARTS) + "]"


def run(words: Sequence[str]) -> str:
  """Carries out a command; returns what it says.

  Args:
    words: what comes after "cache".

  Raises:
    errors.UserError: they are no command.
  """
  action, rest = (words[0], list(words[1:])) if words else ("", [])
  actions = {"list": _list, "size": _size, "limit": _limit, "clear": _clear}
  if action not in actions:
    raise errors.UserError(f"cache {action!r} is unknown: {errors.nearest(action, actions)}")
  if len(rest) > (action in ("limit", "clear")):
    raise errors.UserError(f"cache {action}: {rest[-1]!r} is too much: {USAGE}")
  return actions[action](*rest)


def _list() -> str:
  """Every entry with its size and age, the largest first."""
  lines = []
  for part in PARTS:
    entries = [(_bytes(path), path) for path in _entries(part)]
    lines += [
      f"{_words(size):>10}  {_age(path)}  {path.relative_to(cache_lib.root())}"
      for size, path in sorted(entries, key=lambda entry: (-entry[0], str(entry[1])))
    ]
  return "\n".join([f"{cache_lib.root()}", *(lines or ["it is empty"])])


def _size() -> str:
  """Bytes of each part."""
  sizes = {part: sum(map(_bytes, _entries(part))) for part in PARTS}
  lines = [f"{_words(size):>10}  {part:<9} {PARTS[part]}" for part, size in sizes.items()]
  total = f"{_words(sum(sizes.values())):>10}  in all; remote may hold {_words(_cache().limit)}"
  return "\n".join([f"{cache_lib.root()}", *lines, total])


def _limit(size: str = "") -> str:
  """Shows or sets the limit of the copies of remote files."""
  cache = _cache()
  if size:
    cache.set_limit(cache_lib.parse_size(size))
  return f"{cache.folder} may hold {_words(cache.limit)}"


def _clear(part: str = "remote") -> str:
  """Removes the entries of a part; a run that is live stays."""
  if part not in PARTS:
    raise errors.UserError(f"cache clear {part}: {errors.nearest(part, PARTS)}")
  if part == "remote":
    return f"removed {_words(_cache().clear())} from {_cache().folder}"
  removed, kept = 0, []
  for path in _entries(part):
    if part == "runs" and _live(path):
      kept.append(path.name)
      continue
    removed += _bytes(path)
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path)
    else:
      path.unlink()
  told = f"removed {_words(removed)} from {cache_lib.root() / part}"
  return told + (f"; in use and kept: {', '.join(kept)}" if kept else "")


def _cache() -> cache_lib.Cache:
  return cache_lib.Cache()


def _entries(part: str) -> list[pathlib.Path]:
  folder = cache_lib.root() / part
  if part == "remote":
    return [path for path, _, _ in _cache().files()]
  return sorted(folder.glob("[!.]*"))


def _bytes(path: pathlib.Path) -> int:
  if path.is_file():
    return path.stat().st_size
  total = 0
  for folder, _, names in os.walk(path):
    for name in names:
      with contextlib.suppress(FileNotFoundError):
        total += os.lstat(os.path.join(folder, name)).st_size
  return total


def _live(folder: pathlib.Path) -> bool:
  """Whether a run holds the lock of its local copy (train/lock.py)."""
  try:
    with (folder / ".lock").open("r+") as file:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except FileNotFoundError:
    return False
  except BlockingIOError:
    return True
  return False


def _age(path: pathlib.Path) -> str:
  return time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))


def _words(size: int) -> str:
  """A number of bytes, short."""
  power = next((i for i in range(4) if size < 1000 ** (i + 1)), 4)
  number, unit = size / 1000**power, ("B", "KB", "MB", "GB", "TB")[power]
  return f"{number:.1f} {unit}" if power else f"{size} {unit}"
