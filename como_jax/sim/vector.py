"""Many simulators at once: worker processes that play whole episodes and request actions.

This is the main process's side; `worker` has the other one. Workers are spawned, because OpenGL
contexts do not survive a fork.

The observations of a policy depend on the episode alone (its task, seed and scene), never on the
number of workers. A worker that dies, hangs or raises is replaced, and its episode is played once
more from the start. If that fails too, the episode ends with an error instead of a result. Legend:
n actions of an episode, A action.
"""

import collections
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.context import SpawnContext

import numpy as np

from como_jax import errors
from como_jax.sim import base
from como_jax.sim.jobs import ACTORS as ACTORS
from como_jax.sim.jobs import ActionRequest, Failed, Job, Message, Outcome, Ready, Refused, Settings
from como_jax.sim.worker import work

ATTEMPTS = 2  # a failed episode is played once more
# time limit for the start of a worker, which imports Python and the simulator's packages
START_SECONDS = 300.0


class Fleet:
  """Worker processes.

  `run` may be called any number of times, one at a time; `close` ends the workers.
  """

  def __init__(self, build: Callable[..., base.Simulator], settings: Settings, *, workers: int):
    """Checks the settings; `run` starts the workers.

    Args:
      build: `build(task, cameras=, image_size=)`, importable by name in another process.
      settings: of every episode.
      workers: number of processes.

    Raises:
      errors.UserError: an invalid setting.
    """
    for name, value, minimum in (
      ("workers", workers, 1),
      ("history", settings.history, 1),
      ("max_steps", settings.max_steps, 0),
    ):
      if value < minimum:
        raise errors.UserError(f"{name} = {value}: expected at least {minimum}")
    if settings.timeout <= 0 or settings.step_seconds < 0:
      raise errors.UserError(
        f"timeout = {settings.timeout}, step_seconds = {settings.step_seconds}: expected "
        "positive seconds"
      )
    self._build, self._settings = build, settings
    self._context = multiprocessing.get_context("spawn")
    self._workers: list[_Worker | None] = [None] * workers

  def __enter__(self) -> "Fleet":
    return self

  def __exit__(self, kind, value, traceback) -> None:
    self.close()

  def run(
    self,
    jobs: Iterable[Job],
    act: Callable[[Sequence[ActionRequest]], Sequence[np.ndarray]] | None = None,
  ) -> Iterator[Outcome]:
    """Plays every job once; yields outcomes in the order in which episodes end.

    Args:
      jobs: episodes; consecutive jobs of the same task share a simulator.
      act: returns the actions [n, A] of each waiting episode, in the simulator's units. It is
        called when every busy worker waits, with rows in the order of the jobs. Batches therefore
        do not depend on timing.

    Raises:
      errors.UserError: raised by the simulator; every other episode would raise it too.
    """
    queue, failures = collections.deque(jobs), collections.Counter()
    while True:
      self._start(queue)
      busy = [worker for worker in self._workers if worker is not None and worker.job is not None]
      if not busy:
        return
      asking = [(worker.waiting, worker) for worker in busy if worker.waiting is not None]
      if len(asking) == len(busy):
        _answer(asking, act)
      for worker in self._wait([worker for worker in busy if worker.waiting is None]):
        job, message = _job(worker), worker.message()
        if isinstance(message, Ready):
          worker.mark_ready()
        elif isinstance(message, ActionRequest):
          worker.waiting = message
        elif isinstance(message, Outcome):
          worker.job = None
          yield message
        elif isinstance(message, Refused):
          raise errors.UserError(message.reason)
        else:
          self._drop(worker)
          failures[job.number] += 1
          if failures[job.number] < ATTEMPTS:
            queue.appendleft(job)
          else:
            yield Outcome(job, error=message.reason)

  def close(self) -> None:
    """Kills the workers, also during an episode."""
    for worker in self._workers:
      if worker is not None:
        self._drop(worker)

  def _start(self, queue: collections.deque[Job]) -> None:
    """Gives every idle worker a job of the queue; starts the workers that do not run yet."""
    for i, worker in enumerate(self._workers):
      if queue and (worker is None or worker.job is None):
        worker = worker or _Worker(self._context, self._build, self._settings)
        self._workers[i] = worker
        worker.start(queue.popleft())

  def _wait(self, workers: list["_Worker"]) -> list["_Worker"]:
    """Waits until a worker has sent a message, died or exceeded its deadline.

    Returns:
      All workers of which this is true, in the order of their jobs.
    """
    remaining = min(worker.deadline for worker in workers) - time.monotonic()
    ready = connection.wait([worker.pipe for worker in workers], timeout=max(0.0, remaining))
    now = time.monotonic()
    return sorted(
      (worker for worker in workers if worker.pipe in ready or worker.deadline <= now),
      key=lambda worker: _job(worker).number,
    )

  def _drop(self, worker: "_Worker") -> None:
    self._workers[self._workers.index(worker)] = None
    worker.end()


class _Worker:
  """The main process's side of one worker."""

  def __init__(
    self, context: SpawnContext, build: Callable[..., base.Simulator], settings: Settings
  ):
    self.pipe, worker_pipe = context.Pipe()
    self._timeout, self._ready = settings.timeout, False
    self._process = context.Process(target=work, args=(worker_pipe, build, settings), daemon=True)
    self._process.start()
    worker_pipe.close()  # so that the pipe closes when the worker dies
    self.job: Job | None = None
    self.waiting: ActionRequest | None = None
    self.deadline = 0.0

  def start(self, job: Job) -> None:
    self.job, self.waiting = job, None
    self._send(job)

  def mark_ready(self) -> None:
    """Notes that the worker has started; from now on every message has the limit `timeout`."""
    self._ready = True
    self.deadline = time.monotonic() + self._timeout

  def answer(self, actions: np.ndarray) -> None:
    self.waiting = None
    self._send(np.asarray(actions, np.float32))

  def message(self) -> Message:
    """The worker's message, or `Failed` when it sends none."""
    if not self.pipe.poll():
      limit = self._timeout if self._ready else START_SECONDS
      return Failed(f"no answer from the simulator for {limit:g} s")
    try:
      return self.pipe.recv()
    except (EOFError, OSError):
      self._process.join(timeout=5)
      return Failed(f"the simulator's process died (exit code {self._process.exitcode})")

  def end(self) -> None:
    self._process.kill()
    self._process.join()
    self.pipe.close()

  def _send(self, content: Job | np.ndarray) -> None:
    self.deadline = time.monotonic() + (self._timeout if self._ready else START_SECONDS)
    # The worker is dead: its end of the pipe is closed, which `message` reports.
    with contextlib.suppress(OSError):
      self.pipe.send(content)


def _job(worker: _Worker) -> Job:
  """The episode of a busy worker."""
  if worker.job is None:
    raise RuntimeError("this worker plays no episode")
  return worker.job


def _answer(
  asking: list[tuple[ActionRequest, _Worker]],
  act: Callable[[Sequence[ActionRequest]], Sequence[np.ndarray]] | None,
) -> None:
  """Sends actions to the waiting workers, in the order of their jobs."""
  asking.sort(key=lambda pair: pair[0].job.number)
  if act is None:
    raise ValueError(f"episode {asking[0][0].job.number} needs a policy: give `act`")
  chunks = act([waiting for waiting, _ in asking])
  for (_, worker), actions in zip(asking, chunks, strict=True):
    worker.answer(actions)
