"""Counts what is asked of stores, for benchmarks and tests."""

import collections
import contextlib
import dataclasses
import threading
from collections.abc import Iterator

_active: list["Counter"] = []
_lock = threading.Lock()


@dataclasses.dataclass
class Counter:
  """What was asked of each store, by this process; not by its worker processes.

  Attributes:
    requests: name of the store -> number of requests.
    bytes_read: name of the store -> bytes that it delivered.
    bytes_written: name of the store -> bytes that it took.
  """

  requests: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  bytes_read: collections.Counter = dataclasses.field(default_factory=collections.Counter)
  bytes_written: collections.Counter = dataclasses.field(default_factory=collections.Counter)


@contextlib.contextmanager
def byte_counter() -> Iterator[Counter]:
  """Context that counts all requests of this process until it ends; several may be open."""
  counter = Counter()
  with _lock:
    _active.append(counter)
  try:
    yield counter
  finally:
    with _lock:
      _active[:] = [one for one in _active if one is not counter]


def add(store: str, *, read: int = 0, written: int = 0, requests: int = 1) -> None:
  """Notes requests of a store and the bytes that they moved."""
  if not _active:
    return
  with _lock:
    for counter in _active:
      counter.requests[store] += requests
      counter.bytes_read[store] += read
      counter.bytes_written[store] += written
