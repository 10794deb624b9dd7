"""The lock of a run's directory: one live run owns it at a time."""

import contextlib
import datetime
import fcntl
import os
import pathlib
import platform
from collections.abc import Iterator

from como_jax import errors

# held (flock) by the process that writes here; the system frees it when the process dies
LOCK = ".lock"
# directories that this process owns -> file descriptor of the lock
_LOCKS: dict[pathlib.Path, int] = {}


def take(workdir: pathlib.Path, *, keep: bool) -> None:
  """Takes the lock of a directory, or only sees whether it is free.

  Args:
    workdir: the directory.
    keep: whether the lock is kept.

  Raises:
    errors.UserError: another process has it.
    OSError: the lock file cannot be made (with `keep`).
  """
  workdir = workdir.resolve()
  if workdir in _LOCKS:
    return
  try:
    file = os.open(workdir / LOCK, os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if keep else 0), 0o644)
  except OSError:
    if keep:
      raise
    return  # there is none, or it is not ours to open: opening the run will say so
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    owner = os.pread(file, 200, 0).decode(errors="replace").strip()
    os.close(file)
    raise errors.UserError(
      f"--workdir {workdir} is in use by a live run{f' ({owner})' if owner else ''}: wait for it "
      "or end it; nothing was changed"
    ) from None
  except OSError as error:  # a file system without locks
    if keep:
      print(f"note: {workdir} cannot be locked ({error.strerror}): do not start a second run there")
    os.close(file)
    return
  if not keep:
    os.close(file)
    return
  _LOCKS[workdir] = file
  since = datetime.datetime.now().isoformat(timespec="seconds", sep=" ")
  os.ftruncate(file, 0)
  os.pwrite(file, f"process {os.getpid()} on {platform.node()} since {since}\n".encode(), 0)


@contextlib.contextmanager
def owning() -> Iterator[None]:
  """Gives back, at its end, the directories that have been opened in it."""
  before = set(_LOCKS)
  try:
    yield
  finally:
    for workdir in set(_LOCKS) - before:
      file = _LOCKS.pop(workdir)
      with contextlib.suppress(OSError):
        os.ftruncate(file, 0)  # nobody's: two finished directories hold the same bytes
      os.close(file)
