"""Files and objects by address: local paths, s3://, gs://, hf:// (read-only) and memory://.

`open_store` gives the store of an address and the key in it; the functions below it take whole
addresses. The packages of a store are imported when it is first opened.
"""

import contextlib
import functools
import importlib.util
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from como_jax import errors
from como_jax.storage import folders
from como_jax.storage.addresses import SCHEMES, is_remote, join, name, parent, split
from como_jax.storage.cache import Cache, run_folder
from como_jax.storage.counting import Counter, byte_counter
from como_jax.storage.local import LocalStore
from como_jax.storage.protocol import Conflict, Entry, Path, Store, Version

__all__ = [
  "Cache",
  "Conflict",
  "Counter",
  "Entry",
  "Path",
  "Store",
  "Version",
  "byte_counter",
  "check",
  "exists",
  "is_remote",
  "join",
  "listdir",
  "local_copy",
  "local_folder",
  "name",
  "open_copy",
  "open_store",
  "parent",
  "read_bytes",
  "read_json",
  "read_text",
  "run_folder",
  "size",
  "split",
  "write_bytes",
  "write_json",
  "write_text",
]

_LOCAL = LocalStore()


def check(path: Path, *, write: bool = False) -> None:
  """Refuses an address that nothing here can use; asks no server.

  Args:
    path: a local path or an address.
    write: whether it is to be written to.

  Raises:
    errors.UserError: an unknown scheme, a package that is missing, or a store that is only read.
  """
  scheme, _, _ = split(path)
  if not scheme:
    return
  _, module, extra = SCHEMES[scheme]
  try:
    found = not module or importlib.util.find_spec(module) is not None
  except ModuleNotFoundError:  # the package around the module
    found = False
  if not found:
    raise errors.UserError(
      f"{os.fspath(path)}: {scheme}:// needs a package: pip install 'como-jax[{extra}]'"
    )
  if write and scheme == "hf":
    raise errors.UserError(f"{os.fspath(path)} can only be read: give a local path, gs:// or s3://")


def open_store(path: Path) -> tuple[Store, str]:
  """(Store, key in it) of an address.

  Raises:
    errors.UserError: as `check`, or there are no credentials.
  """
  check(path)
  scheme, bucket, key = split(path)
  if not scheme:
    return _LOCAL, key
  if scheme == "hf":
    bucket, key = "", f"{bucket}/{key}"
  if scheme == "memory":
    return _memory(bucket), key
  # connections belong to a process
  return _opened(scheme, bucket, os.getpid(), _endpoint(scheme)), key


def _endpoint(scheme: str) -> str:
  """What says to which server a scheme goes: another value, another store."""
  names = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gs": ("STORAGE_EMULATOR_HOST",)}
  return "\n".join(os.environ.get(each, "") for each in names.get(scheme, ("HF_ENDPOINT",)))


@functools.cache
def _memory(bucket: str) -> Store:
  from como_jax.storage.memory import MemoryStore

  return MemoryStore(f"memory://{bucket}")


@functools.cache
def _opened(scheme: str, bucket: str, process: int, endpoint: str) -> Store:
  del process, endpoint
  if scheme == "s3":
    from como_jax.storage.s3 import S3Store

    return S3Store(bucket)
  if scheme == "gs":
    from como_jax.storage.gcs import GcsStore

    return GcsStore(bucket)
  from como_jax.storage.hf import HfStore

  return HfStore()


def read_bytes(path: Path, start: int = 0, size: int | None = None) -> bytes:
  """Reads a file, or a range of it: see `protocol.Store.read`."""
  store, key = open_store(path)
  return store.read(key, start, size)


def read_text(path: Path) -> str:
  """Reads a text in UTF-8."""
  return read_bytes(path).decode()


def read_json(path: Path) -> Any:
  """Reads JSON.

  Raises:
    errors.UserError: it is none.
  """
  data = read_bytes(path)
  try:
    return json.loads(data)
  except ValueError as error:
    raise errors.UserError(f"{os.fspath(path)} is no JSON: {error}") from error


def write_bytes(path: Path, data: bytes) -> None:
  """Writes a file as a whole: readers see the old one or the new one."""
  store, key = open_store(path)
  store.write(key, data)


def write_text(path: Path, text: str) -> None:
  """Writes a text in UTF-8, as `write_bytes`."""
  write_bytes(path, text.encode())


def write_json(path: Path, value: Any, *, indent: int | None = None) -> None:
  """Writes JSON, as `write_bytes`."""
  write_text(path, json.dumps(value, indent=indent))


def exists(path: Path) -> bool:
  """Whether there is a file or object, or a folder with something in it."""
  store, key = open_store(path)
  if store is _LOCAL:
    return os.path.exists(key)
  return bool(key and not key.endswith("/") and store.exists(key)) or bool(store.list(key))


def size(path: Path) -> int:
  """Size of a file in bytes."""
  store, key = open_store(path)
  return store.size(key)


def listdir(path: Path) -> list[str]:
  """Names in a folder, sorted; [] where there is none."""
  store, key = open_store(path)
  if store is _LOCAL:
    return sorted(os.listdir(key)) if os.path.isdir(key) else []
  start = len(key.rstrip("/")) + 1 if key.rstrip("/") else 0
  return sorted({entry.key[start:].partition("/")[0] for entry in store.list(key)})


def local_folder(path: Path, *, select: folders.Select | None = None) -> pathlib.Path:
  """A local folder with the content of a path: itself, or a copy below `cache.root`.

  Args:
    path: of a folder.
    select: chooses the files of a remote one, see `folders.copy`.

  Raises:
    errors.UserError: there is nothing at an address.
  """
  store, key = open_store(path)
  if store is _LOCAL:
    return pathlib.Path(key)
  return folders.copy(store, key, os.fspath(path), select=select)


def local_copy(path: Path, *, cache: Cache | None = None) -> pathlib.Path:
  """A local file with the content of a path: itself, or a copy in the cache.

  Args:
    path: of a file.
    cache: None = the one in `cache.root`.
  """
  store, key = open_store(path)
  return pathlib.Path(key) if store is _LOCAL else (cache or Cache()).fetch(store, key)


@contextlib.contextmanager
def open_copy(path: Path) -> Iterator[BinaryIO]:
  """The open `local_copy` of a path, which stays readable when the cache drops it meanwhile."""
  store, key = open_store(path)
  with open(key, "rb") if store is _LOCAL else Cache().open(store, key) as file:
    yield file
