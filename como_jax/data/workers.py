"""A process pool that continues when a worker dies.

The other workers continue, and the unit of the dead worker is tried again. concurrent.futures, in
contrast, cancels every pending unit when one process crashes. Native decoders do crash on malicious
files.
"""

import contextlib
import errno
import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection
from typing import Any

from como_jax import errors

# Errors of the disk that a worker writes to, not of the worker.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NO_MORE = object()


def _serve(pipe, function: Callable[[Any, Callable[[Any], None]], Any]) -> None:
  """Main function of a worker: receives units; sends progress, results and errors.

  It ends when the parent process ends.
  """
  try:
    while (unit := pipe.recv()) is not None:
      try:
        message = ("result", function(unit, lambda progress: pipe.send(("progress", progress))))
      except errors.UserError as error:
        message = ("user_error", str(error))
      except Exception as error:  # it is raised again in the parent
        message = (
          ("disk", (error.errno, error.strerror, error.filename))
          if isinstance(error, OSError) and error.errno in _DISK
          else ("error", traceback.format_exc())
        )
      pipe.send(message)
  except (EOFError, BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
    pass


class _Worker:
  def __init__(self, context, function):
    self.pipe, child = context.Pipe()
    self.process = context.Process(target=_serve, args=(child, function), daemon=True)
    self.process.start()
    child.close()
    self.unit, self.progress = None, None

  def assign(self, unit: Any) -> None:
    """Sends a unit to the worker."""
    self.unit, self.progress = unit, None
    self.pipe.send(unit)


def run(
  function: Callable[[Any, Callable[[Any], None]], Any],
  units: Iterable[Any],
  *,
  workers: int,
  on_progress: Callable[[Any], None],
  on_death: Callable[[Any, Any, int], Any],
  poll: float = 1.0,
) -> Iterator[Any]:
  """Yields the results of `function(unit, report)` in the order in which they finish.

  Args:
    function: picklable. It may call `report` with any picklable message.
    units: picklable pieces of work, taken one by one as workers become free. None instead of one
      means that there is none at the moment: it is asked again after `poll` seconds.
    workers: number of processes; 0 = this process (then a crash ends it).
    on_progress: receives each message that was reported.
    on_death: (unit, its last message, exit code) -> the unit to try instead.
    poll: seconds.

  Raises:
    errors.UserError: raised by the function.
    OSError: the disk is full or cannot be written to.
    RuntimeError: the function raised another exception. The message has the worker's traceback.
  """
  coming, pending, more = iter(units), [], True
  if workers <= 0:
    for unit in coming:
      if unit is None:
        time.sleep(poll)
      else:
        yield function(unit, on_progress)
    return
  context = multiprocessing.get_context("spawn")
  pool: list[_Worker] = []
  try:
    while more or pending or any(worker.unit is not None for worker in pool):
      idle, waiting = [worker for worker in pool if worker.unit is None], False
      while (pending or more) and not waiting and (idle or len(pool) < workers):
        unit = pending.pop() if pending else next(coming, _NO_MORE)
        more, waiting = more and unit is not _NO_MORE, unit is None
        if unit is None or unit is _NO_MORE:
          continue
        if not idle:
          idle.append(_Worker(context, function))
          pool.append(idle[-1])
        idle.pop().assign(unit)
      busy = [worker.pipe for worker in pool if worker.unit is not None]
      if waiting and not busy:
        time.sleep(poll)
      ready = connection.wait(busy, poll if waiting else None) if busy else []
      for worker in [worker for worker in pool if worker.pipe in ready]:
        try:
          kind, value = worker.pipe.recv()
        except (EOFError, OSError):  # the process is gone
          worker.process.join()
          pool.remove(worker)
          pending.append(on_death(worker.unit, worker.progress, worker.process.exitcode))
          continue
        if kind == "progress":
          worker.progress = value
          on_progress(value)
        elif kind == "result":
          worker.unit = None
          yield value
        elif kind == "user_error":
          raise errors.UserError(value)
        elif kind == "disk":
          raise OSError(*value)
        else:
          raise RuntimeError(f"a worker process failed:\n{value}")
  finally:
    for worker in pool:
      if worker.unit is None:
        with contextlib.suppress(OSError):
          worker.pipe.send(None)
      else:
        worker.process.terminate()
    for worker in pool:
      worker.process.join()
      worker.pipe.close()
