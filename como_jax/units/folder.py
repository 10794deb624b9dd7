"""An output folder that several processes fill, unit by unit.

A process makes the files of a unit in a folder of its own (`SharedFolder.staging`). Publishing them
is one conditional write of the unit's lease, which names them. Only then are they moved to their
places: by that process, or by any other one if it dies in between. So the files of a process that
has lost its lease are never moved.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from como_jax import storage
from como_jax.units import lease as leases

FOLDER = ".units"
# Seconds between two looks for a unit that has become free, at most.
_POLL = 5.0

T = TypeVar("T")


class SharedFolder:
  """The leases, the staged files and the places of an output folder; use it as a context manager.

  Attributes:
    output: the folder.
    staging: folder in which this process makes files.
    poll: seconds to wait where no unit is free.
  """

  def __init__(self, output: str, *, seconds: float):
    """Opens a folder; nothing is written yet.

    Args:
      output: the folder.
      seconds: how long a lease lasts when its holder is stopped or lost.
    """
    self.output, self.poll = output, min(_POLL, seconds / leases.RENEWALS)
    self._work = os.path.join(output, FOLDER)
    store, key = storage.open_store(self._work)
    self._leases = leases.Leases(store, key, seconds=seconds)
    self.staging = os.path.join(self._work, self._leases.holder)

  def __enter__(self) -> "SharedFolder":
    return self

  def __exit__(self, *unused) -> None:
    """Gives back the leases that are still held, and removes what is not published."""
    self._leases.__exit__(*unused)
    shutil.rmtree(self.staging, ignore_errors=True)
    with contextlib.suppress(OSError):
      os.rmdir(self._work)

  def claim(self, name: str, is_done: Callable[[], bool]) -> leases.Lease | None:
    """The lease of a unit that is not done; None when it is done, or another process has it.

    Args:
      name: of the unit.
      is_done: whether its files are in their places.
    """
    if is_done():
      return None
    record = self._leases.record(name)
    if record and record.state == "done":  # its holder may have died before it moved the files
      self._move(record.holder, record.files)
      if is_done():
        return None
    lease = self._leases.claim(name, again=bool(record) and record.state == "done")
    if lease and is_done():  # by a process that has removed all leases since
      lease.forget()
      self._remove_empty()
      return None
    if lease:
      os.makedirs(self.staging, exist_ok=True)
    return lease

  def publish(self, lease: leases.Lease, files: Sequence[str]) -> bool:
    """Moves staged files to their places; False, and they are removed, where the lease is lost.

    Args:
      lease: of their unit.
      files: their names, in the order in which they appear: last the one that says that the unit
        is done.
    """
    if lease.commit(tuple(files)):
      self._move(self._leases.holder, files)
      return True
    for name in files:
      with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(self.staging, name))
    return False

  def claims(
    self, units: Mapping[str, T], is_done: Callable[[str], bool]
  ) -> Iterator[tuple[leases.Lease, T] | None]:
    """Yields units with their leases until all are done; None where none is free at the moment.

    Args:
      units: by name.
      is_done: whether the files of a unit are in their places.
    """
    left = dict(units)
    while left:
      for name in list(left):
        lease = self.claim(name, lambda name=name: is_done(name))
        if lease:
          yield lease, left[name]
      left = {name: unit for name, unit in left.items() if not is_done(name)}
      if left:
        yield None

  def clear(self) -> None:
    """Removes the leases and all staged files; for the one that has put all units together."""
    shutil.rmtree(self._work, ignore_errors=True)

  def _move(self, holder: str, files: Sequence[str]) -> None:
    for name in files:
      # What is missing has been moved already.
      with contextlib.suppress(FileNotFoundError):
        os.replace(os.path.join(self._work, holder, name), os.path.join(self.output, name))

  def _remove_empty(self) -> None:
    with contextlib.suppress(OSError):
      if not any(name.endswith(".lease") for name in os.listdir(self._work)):
        self.clear()
