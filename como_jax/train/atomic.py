"""Small files that a kill must not leave half written, and what a full disk looks like."""

import contextlib
import errno
import os
import pathlib

from como_jax import errors

# Nothing wrong with the program, and no use in trying again at once.
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
  """Replaces a file as a whole: the old content or the new one, never a part."""
  fresh = path.with_name(f".{path.name}.new")
  with fresh.open("w") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(fresh, path)


def storage_problem(error: BaseException | None) -> str:
  """Words for a full, read-only or broken disk, wherever in a chain of exceptions it stands; "" for
  anything else.
  """
  while error is not None:
    if isinstance(error, OSError) and error.errno in _STORAGE:
      return os.strerror(error.errno)
    for number in _STORAGE[:4]:  # libraries in C++ give the words only
      if os.strerror(number) in str(error):
        return os.strerror(number)
    error = error.__cause__ or error.__context__
  return ""


@contextlib.contextmanager
def explained(workdir: pathlib.Path):
  """Turns a full or read-only disk, in here, into `errors.Storage`: one line that names the file,
  or the directory of the run.
  """
  try:
    yield
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
      raise
    raise errors.Storage(
      f"cannot write {error.filename or f'into {workdir}'}: {error.strerror}: make room, then "
      "give --resume"
    ) from error
