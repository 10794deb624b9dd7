"""A lock file: one process at a time converts data into a folder."""

import contextlib
import fcntl
import multiprocessing
import os
from collections.abc import Iterator

from como_jax import errors


@contextlib.contextmanager
def locked(path: str, *, wait: bool) -> Iterator[None]:
  """Context manager that holds a lock file. The system releases it when the process dies.

  Raises:
    errors.UserError: another process holds it, and `wait` is False or that process waits for us.
  """
  with open(path, "w", encoding="utf-8") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      if not wait:
        raise errors.UserError(f"another ingest is writing to {os.path.dirname(path)}") from error
      # This process is a worker of the holder and runs the holder's script again.
      if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise errors.UserError(
          "a script that converts data needs 'if __name__ == \"__main__\":' around what it does: "
          "worker processes import it"
        ) from error
      print(
        f"data: another process converts this data and holds {path}; waiting for it", flush=True
      )
      fcntl.flock(file, fcntl.LOCK_EX)
    yield
