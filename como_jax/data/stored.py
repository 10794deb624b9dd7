"""Bytes of stored files: ranges that are read, parts that are mapped, and a count of both.

All reads of shards, of their numbers and of their index go through `StoredFile`, from whichever
store (`como_jax.storage`) the folder lies in.
"""

import contextlib
import dataclasses
import mmap
import threading
from collections.abc import Iterable, Iterator

from como_jax import storage

PAGE = 4096  # bytes; the unit in which a mapped file is read


@dataclasses.dataclass
class Asked:
  """What was read of stored files.

  Attributes:
    requests: number of ranges.
    bytes: their sizes, and those of the parts of mapped files that were looked at.
    pages: (file, number) of the pages of mapped files that hold these parts.
  """

  requests: int = 0
  bytes: int = 0
  pages: set[tuple[str, int]] = dataclasses.field(default_factory=set)


_counters: list[Asked] = []
_lock = threading.Lock()


@contextlib.contextmanager
def counter() -> Iterator[Asked]:
  """Counts what this process reads in the context."""
  asked = Asked()
  with _lock:
    _counters.append(asked)
  try:
    yield asked
  finally:
    with _lock:
      _counters[:] = [other for other in _counters if other is not asked]


def _count(size: int, *, requests: int = 1, pages: Iterable[tuple[str, int]] = ()) -> None:
  with _lock:
    for asked in _counters:
      asked.requests += requests
      asked.bytes += size
      asked.pages.update(pages)


def looked_at(path: str, start: int, size: int) -> None:
  """Counts a part of a mapped file."""
  if _counters and size > 0:
    numbers = range(start // PAGE, (start + size - 1) // PAGE + 1)
    _count(size, requests=0, pages=[(path, number) for number in numbers])


class StoredFile:
  """A file of any store that is read by ranges; safe to share between threads.

  Attributes:
    path: of the file, or its address.
    size: in bytes, when it was opened.
  """

  def __init__(self, path: str):
    """Opens a file. Raises `OSError`; `errors.UserError` for an address that cannot be used."""
    self.path = path
    self._store, self._key = storage.open_store(path)
    self.size = self._store.size(self._key)

  def read(self, start: int, size: int) -> bytes:
    """Reads a range; the result is short at the end of the file. Raises `OSError`."""
    if _counters:
      _count(size)
    return self._store.read(self._key, max(0, start), size)

  def view(self, start: int, size: int) -> memoryview:
    """A range that stays in use, counted as read.

    That of a local file is mapped, so processes share its memory. Raises `OSError`.
    """
    if storage.is_remote(self.path):
      return memoryview(self.read(start, size))
    if _counters:
      _count(size)
    return self.mapped()[start : start + size]

  def mapped(self) -> memoryview:
    """The whole file, or its local copy; its parts are read when they are looked at.

    Raises `OSError`.
    """
    with storage.open_copy(self.path) as file:
      return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
