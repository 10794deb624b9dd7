"""Whole remote files in a local folder, up to a number of bytes; the least recently used go first.

Several processes may use one folder at once. A file is named after its address and version, so a
replaced object is another file.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import BinaryIO

import xxhash

from como_jax import errors
from como_jax.storage import addresses, protocol

DEFAULT_LIMIT = 64 << 30  # bytes
_LIMIT = "limit.json"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def root() -> pathlib.Path:
  """The folder of all caches: $COMO_JAX_CACHE, else ~/.cache/como_jax."""
  given = os.environ.get("COMO_JAX_CACHE")
  return pathlib.Path(given) if given else pathlib.Path.home() / ".cache" / "como_jax"


def run_folder(address: str) -> pathlib.Path:
  """Where the local copy of a run directory in a store is; makes nothing."""
  digest = xxhash.xxh3_64_hexdigest(address.rstrip("/").encode())
  return root() / "runs" / f"{addresses.name(address)}-{digest}"


def parse_size(text: str) -> int:
  """Bytes of "200GB", "64 GiB" or "1000".

  Raises:
    errors.UserError: it is no size.
  """
  match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
  units = {unit.lower(): factor for unit, factor in _UNITS.items()}
  if not match or match[2].lower() not in units:
    raise errors.UserError(f"size {text!r}: expected a number with one of {', '.join(_UNITS)[2:]}")
  return int(float(match[1]) * units[match[2].lower()])


class Cache:
  """A folder of whole files."""

  def __init__(self, folder: protocol.Path | None = None, limit: int | None = None):
    """Names a cache; makes nothing.

    Args:
      folder: of the files; None = "remote" below `root`.
      limit: bytes; None = what `set_limit` stored in the folder, else `DEFAULT_LIMIT`.
    """
    self.folder = pathlib.Path(folder) if folder else root() / "remote"
    self._limit = limit

  @property
  def limit(self) -> int:
    """Bytes that all files together may take."""
    if self._limit is not None:
      return self._limit
    try:
      return int(json.loads((self.folder / _LIMIT).read_text())["bytes"])
    except FileNotFoundError:
      return DEFAULT_LIMIT
    except (ValueError, KeyError, TypeError) as error:
      raise errors.UserError(f"{self.folder / _LIMIT} is damaged: delete it") from error

  def set_limit(self, limit: int) -> None:
    """Stores the limit for every process that uses the folder, and makes the files fit it."""
    self.folder.mkdir(parents=True, exist_ok=True)
    temporary = protocol.temporary(self.folder / _LIMIT)
    temporary.write_text(json.dumps({"bytes": limit}))
    os.replace(temporary, self.folder / _LIMIT)
    with self._locked("all"):
      self._make_room(0)

  def files(self) -> list[tuple[pathlib.Path, int, float]]:
    """(File, bytes, time of last use) of each cached file, least recently used first."""
    found = []
    for path in self.folder.glob("[!.]*/[!.]*") if self.folder.is_dir() else ():
      with contextlib.suppress(FileNotFoundError):
        facts = path.stat()
        found.append((path, facts.st_size, facts.st_mtime))
    return sorted(found, key=lambda file: file[2])

  def clear(self) -> int:
    """Removes all files; returns how many bytes they had."""
    if not self.folder.is_dir():
      return 0
    with self._locked("all"):
      return sum(_remove(path, size) for path, size, _ in self.files())

  def fetch(
    self, store: protocol.Store, key: str, version: protocol.Version | None = None
  ) -> pathlib.Path:
    """The local copy of an object. It may be removed when others are fetched: see `open`.

    Args:
      store: that has it.
      key: of the object.
      version: of the object, where it is known: saves a request.

    Raises:
      errors.UserError: it is larger than the limit, or than the disk.
      Other errors: see `protocol.Store`.
    """
    entry = None if version else store.stat(key)
    path = self._place(store, key, version or (entry.version if entry else ""))
    if _use(path):
      return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with self._locked(path.parent.name):  # one download, however many processes want it
      if _use(path):
        return path
      size = entry.size if entry else store.size(key)
      with self._locked("all"):
        self._make_room(size, key)
      store.download(key, path)
    return path

  @contextlib.contextmanager
  def open(
    self, store: protocol.Store, key: str, version: protocol.Version | None = None
  ) -> Iterator[BinaryIO]:
    """The open local copy of an object; it stays readable when it is removed from the cache.

    Args:
      store: that has it.
      key: of the object.
      version: of the object, where it is known: saves a request.
    """
    while True:
      try:
        file = self.fetch(store, key, version).open("rb")
        break
      except FileNotFoundError:
        if not store.exists(key):
          raise
    with file:
      yield file

  def _place(self, store: protocol.Store, key: str, version: str) -> pathlib.Path:
    digest = xxhash.xxh3_128_hexdigest(f"{store.name}\n{key}\n{version}".encode())
    return self.folder / digest / addresses.name(key)

  def _make_room(self, size: int, key: str = "") -> None:
    """Removes the least recently used files until `size` more bytes fit."""
    if size > self.limit:
      raise errors.UserError(
        f"{key} has {size} bytes, the cache {self.folder} may hold {self.limit}: "
        "como-jax cache limit SIZE raises that"
      )
    files = self.files()
    total = sum(each for _, each, _ in files)
    free = shutil.disk_usage(self.folder).free
    for path, each, _ in files:
      if total + size <= self.limit and size <= free:
        break
      total, free = total - each, free + _remove(path, each)
    if size > free:
      raise errors.UserError(f"{key} has {size} bytes, {self.folder} has room for {free}")

  @contextlib.contextmanager
  def _locked(self, name: str) -> Iterator[None]:
    """Holds a lock file of the folder; the system frees it when the process dies."""
    locks = self.folder / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    # few files, however much is cached: a lock may stand for several objects
    lock = name if name == "all" else name[:2]
    with (locks / lock).open("w") as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      yield


def _use(path: pathlib.Path) -> bool:
  """Notes a use; False where there is no such file."""
  try:
    os.utime(path)
  except FileNotFoundError:
    return False
  return True


def _remove(path: pathlib.Path, size: int) -> int:
  """Removes a cached file; returns its size."""
  path.unlink(missing_ok=True)
  with contextlib.suppress(OSError):  # another file has come into its folder
    path.parent.rmdir()
  return size
