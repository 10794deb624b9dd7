"""Atomic writes of small files, and detection of a full disk."""

import contextlib
import errno
import os
import pathlib

from como_jax import errors

# Errors of the storage: the program is correct, and a retry would fail again.
_STORAGE = (
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EROFS,
  errno.EFBIG,
  errno.EACCES,
  errno.EPERM,
  errno.EIO,
  errno.ESTALE,
)


def write(path: pathlib.Path, text: str) -> None:
  """Replaces a file atomically; after a kill it has the old or the new content, never a part."""
  write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, content: bytes) -> None:
  """Replaces a file atomically, as `write`."""
  temporary = path.with_name(f".{path.name}.new")
  with temporary.open("wb") as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def storage_problem(error: BaseException | None) -> str:
  """Describes a full, read-only or broken disk; "" for other errors.

  Args:
    error: an exception; the whole chain of its causes is searched.
  """
  while error is not None:
    if isinstance(error, OSError) and error.errno in _STORAGE:
      return os.strerror(error.errno)
    for number in _STORAGE[:4]:  # C++ libraries give only the message, without a number
      if os.strerror(number) in str(error):
        return os.strerror(number)
    error = error.__cause__ or error.__context__
  return ""


@contextlib.contextmanager
def explained(workdir: pathlib.Path):
  """Context that converts the error of a full or read-only disk to `errors.StorageError`.

  Its message is one line that names the file, or the run directory `workdir`.
  """
  try:
    yield
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
      raise
    raise errors.StorageError(
      f"cannot write {error.filename or f'into {workdir}'}: {error.strerror}: make room, then "
      "give --resume"
    ) from error
