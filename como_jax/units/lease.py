"""Leases: which process works at which unit, kept in a store with conditional writes.

The lease of a unit is one small object. Its holder writes it again from time to time. Every write
names the version that it replaces, so of two processes one succeeds. A lease has run out when
another process has seen the same version of it for as long as the lease says, by its own monotonic
clock: clocks of two hosts are never compared. The lease of a process of the same machine has run
out when that process has ended. A holder that wakes up after that cannot publish, because the
publication is a conditional write too.
"""

import contextlib
import dataclasses
import json
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from como_jax import errors, storage
from como_jax.units import owner

# A holder renews its lease so many times in the time that the lease lasts.
RENEWALS = 4


@dataclasses.dataclass(frozen=True)
class Record:
  """The content of a lease.

  Attributes:
    holder: id of the process that has it; it is unique, so a content is never written twice.
    count: number of writes so far.
    seconds: how long it lasts without a renewal.
    owner: the holder's process, see `owner.own`.
    state: "held", "free" (given back) or "done" (the unit is published).
    files: names of the files that the holder has published, in order; of a "done" one.
  """

  holder: str
  count: int
  seconds: float
  owner: str
  state: str = "held"
  files: tuple[str, ...] = ()

  def to_bytes(self) -> bytes:
    """The record as it is stored."""
    return json.dumps(dataclasses.asdict(self)).encode()

  @classmethod
  def from_bytes(cls, data: bytes, key: str) -> "Record":
    """Reads what `to_bytes` returned. Raises `errors.UserError` naming the key."""
    try:
      values = json.loads(data)
      return cls(**{**values, "files": tuple(values["files"])})
    except (ValueError, TypeError, KeyError) as error:
      raise errors.UserError(
        f"{key} is not the lease of a unit of work ({error!r}): delete it"
      ) from error


class Lease:
  """A lease that this process holds, or has lost. Threads may share it.

  Attributes:
    name: of the unit.
    lost: whether another process has taken it.
  """

  def __init__(
    self, store: storage.Store, key: str, name: str, record: Record, version: storage.Version
  ):
    self.name, self.lost = name, False
    self._store, self._key, self._record, self._version = store, key, record, version
    self._lock = threading.Lock()

  def renew(self) -> bool:
    """Makes the lease last from now on; False when it is lost or not held any more."""
    with self._lock:
      return self._record.state == "held" and self._write(state="held")

  def commit(self, files: tuple[str, ...] = ()) -> bool:
    """Says that the unit is done; False when the lease is lost: then nothing is said.

    Args:
      files: what `Record.files` says.
    """
    with self._lock:
      return self._record.state == "held" and self._write(state="done", files=files)

  def release(self) -> None:
    """Gives the unit back: another process may take it at once."""
    with self._lock:
      if self._record.state == "held":
        self._write(state="free")

  def forget(self) -> None:
    """Removes the lease of a unit that turned out to be done."""
    with self._lock:
      self._record = dataclasses.replace(self._record, state="free")
      self._store.remove(self._key)

  def _write(self, **changes: Any) -> bool:
    if self.lost:
      return False
    record = dataclasses.replace(self._record, count=self._record.count + 1, **changes)
    data = record.to_bytes()
    try:
      if not self._store.exists(self._key):  # do not make the folder again
        raise storage.Conflict(f"{self._key} is gone")
      self._version = self._store.write_if(self._key, data, self._version)
    except storage.Conflict:
      # The answer to an earlier try may have been lost on the way: then it is our own.
      with contextlib.suppress(FileNotFoundError):
        found, version = self._store.read_versioned(self._key)
        if found == data:
          self._version, self._record = version, record
          return True
      self.lost = True
      return False
    self._record = record
    return True


class Leases:
  """All leases of a folder, as one process sees them. A thread renews those that it holds.

  Attributes:
    holder: id of this process.
  """

  def __init__(
    self, store: Any, folder: str, *, seconds: float, clock: Callable[[], float] = time.monotonic
  ):
    """Opens a folder of leases; nothing is written yet.

    Args:
      store: with conditional writes.
      folder: key of the leases' folder.
      seconds: how long a lease lasts without a renewal.
      clock: seconds that only increase.
    """
    self.holder = uuid.uuid4().hex
    self._store, self._folder, self._seconds, self._clock = store, folder, seconds, clock
    # key -> (version, when this process saw it for the first time, the record)
    self._seen: dict[str, tuple[storage.Version, float, Record]] = {}
    self._held: dict[str, Lease] = {}
    self._stop = threading.Event()
    self._thread: threading.Thread | None = None

  def __enter__(self) -> "Leases":
    return self

  def __exit__(self, *unused: Any) -> None:
    """Ends the renewal, and gives back what is still held."""
    self._stop.set()
    if self._thread:
      self._thread.join()
    for lease in list(self._held.values()):
      with contextlib.suppress(OSError, errors.UserError, errors.TransientError):
        lease.release()

  def record(self, name: str) -> Record | None:
    """The lease of a unit as it is now, None where nobody has ever had it."""
    key = self._key(name)
    try:
      data, version = self._store.read_versioned(key)
    except FileNotFoundError:
      self._seen.pop(key, None)
      return None
    if key not in self._seen or self._seen[key][0] != version:
      self._seen[key] = version, self._clock(), Record.from_bytes(data, key)
    return self._seen[key][2]

  def claim(self, name: str, *, again: bool = False) -> Lease | None:
    """The lease of a unit; None while another process has it, and when the unit is done.

    Args:
      name: of the unit.
      again: whether to take it when it is done too.
    """
    key, record = self._key(name), self.record(name)
    if record and not (again and record.state == "done") and not self._may_be_taken(key, record):
      return None
    new = Record(self.holder, record.count + 1 if record else 0, self._seconds, owner.own())
    expected = self._seen[key][0] if record else None
    try:
      version = self._store.write_if(key, new.to_bytes(), expected)
    except storage.Conflict:
      return None
    lease = self._held[name] = Lease(self._store, key, name, new, version)
    if self._thread is None:
      self._thread = threading.Thread(target=self._renew, name="leases", daemon=True)
      self._thread.start()
    return lease

  def _may_be_taken(self, key: str, record: Record) -> bool:
    if record.state != "held":
      return record.state == "free"
    if record.holder == self.holder:
      return False
    _, since, _ = self._seen[key]
    return self._clock() - since > record.seconds or owner.is_gone(record.owner)

  def _key(self, name: str) -> str:
    return f"{self._folder}/{name}.lease"

  def _renew(self) -> None:
    while not self._stop.wait(self._seconds / RENEWALS):
      for name, lease in list(self._held.items()):
        # A store that does not answer now may answer at the next renewal.
        with contextlib.suppress(OSError, errors.TransientError):
          if not lease.renew():
            self._held.pop(name, None)
