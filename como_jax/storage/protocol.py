"""What every store can do: whole objects and byte ranges, by key."""

import dataclasses
import os
import pathlib
import threading
from typing import Protocol

Version = str  # changes whenever the object does
Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Entry:
  """An object of a store.

  Attributes:
    key: its name within the store; of the local store, its path.
    size: in bytes.
    version: changes whenever the object does. Of an object store it is the version that
      `Store.read_versioned` gives; of the local store it is another one.
  """

  key: str
  size: int
  version: Version


class Conflict(Exception):
  """A conditional write that found another version than the expected one; nothing was written."""


class Store(Protocol):
  """A place for objects, safe to share between the threads of one process.

  Every method raises:
    FileNotFoundError: there is no such object (`remove` does not).
    errors.UserError: a wrong address or missing rights; or the store cannot do this at all.
    errors.TransientError: the store does not answer, after several tries.

  Attributes:
    name: "local", or scheme and bucket: "s3://bucket".
  """

  name: str

  def read(self, key: str, start: int = 0, size: int | None = None) -> bytes:
    """Reads a range in one request; short, or empty, where the object ends before it does.

    Args:
      key: of the object.
      start: first byte.
      size: number of bytes; None = up to the end.
    """
    ...

  def stat(self, key: str) -> Entry:
    """Size and version of an object."""
    ...

  def size(self, key: str) -> int:
    """Size of an object in bytes."""
    ...

  def exists(self, key: str) -> bool:
    """Whether there is an object of this name; a folder is none."""
    ...

  def list(self, prefix: str) -> list[Entry]:
    """All objects below a folder, sorted by key; [] where there are none.

    Args:
      prefix: the folder, with or without a slash at its end; "" = the whole store.
    """
    ...

  def write(self, key: str, data: bytes) -> None:
    """Writes a whole object; readers see the old one or the new one."""
    ...

  def read_versioned(self, key: str) -> tuple[bytes, Version]:
    """Reads a whole object and the version for `write_if`."""
    ...

  def write_if(self, key: str, data: bytes, expected: Version | None) -> Version:
    """Writes an object if nobody else has changed it; returns its new version.

    Args:
      key: of the object.
      data: its new content.
      expected: version that it must have; None = it must not exist.

    Raises:
      Conflict: it has another version, or exists.
      errors.UserError: the store ignores or refuses conditions.
    """
    ...

  def remove(self, key: str) -> None:
    """Removes an object; does nothing where there is none."""
    ...

  def upload(self, local_file: Path, key: str) -> None:
    """Writes an object from a local file of any size."""
    ...

  def download(self, key: str, local_file: Path) -> None:
    """Copies an object to a local file, which appears whole; its folder must exist.

    The checksum that the store keeps of the object, if any, is verified.
    """
    ...


def temporary(path: pathlib.Path) -> pathlib.Path:
  """A name beside a file, of this process and thread, under which it is made."""
  return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.new")


def folder(prefix: str) -> str:
  """The prefix that all keys below a folder begin with: "" or "a/b/"."""
  return prefix.rstrip("/") + "/" if prefix.rstrip("/") else ""
