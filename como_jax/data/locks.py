"""A lock file: one process at a time does something in a folder."""

import contextlib
import fcntl
import multiprocessing
from collections.abc import Iterator

from como_jax import errors


def refuse_workers() -> None:
  """Refuses a worker process that runs the script of its parent again.

  Raises:
    errors.UserError: this process is one.
  """
  if getattr(multiprocessing.current_process(), "_inheriting", False):
    raise errors.UserError(
      "a script that converts data needs 'if __name__ == \"__main__\":' around what it does: "
      "worker processes import it"
    )


@contextlib.contextmanager
def locked(path: str, *, message: str = "") -> Iterator[None]:
  """Context manager that holds a lock file. The system releases it when the process dies.

  Args:
    path: of the file.
    message: printed when another process holds it; "" = nothing.

  Raises:
    errors.UserError: the process that holds it waits for us.
  """
  with open(path, "w", encoding="utf-8") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      refuse_workers()
      if message:
        print(message, flush=True)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield
