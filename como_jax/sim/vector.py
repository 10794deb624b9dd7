"""Many simulators at once: worker processes that play whole episodes and ask for actions.

A worker holds one simulator at a time. It resets it, sends what it sees, executes the chunk of
actions that comes back open loop, and looks again: between two looks nothing is rendered, because
rendering costs ten times a step of physics. Workers are spawned, since OpenGL contexts do not
survive a fork.

What a policy meets depends on the episode alone (its task, seed and scene), never on the number of
workers. A worker that dies, hangs or raises is replaced and its episode played once more from the
start; if that fails too, the episode ends with an error instead of a result. Legend: T history, K
chunk, A action, F frames, H W image.
"""

import collections
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import connection

import numpy as np

from como_jax import errors
from como_jax.observations import IMAGE
from como_jax.sim import base, rendering

ACTORS = ("policy", "expert", "random", "zero")
ATTEMPTS = 2  # an episode is played again once
# a worker may take to begin: Python and the simulator's packages are imported
START_SECONDS = 300.0


@dataclasses.dataclass(frozen=True)
class Settings:
  """The same for every episode of a fleet.

  Attributes:
    cameras: simulator cameras that observations and videos show.
    image_size: height and width, pixels.
    step_seconds: a policy step; its action is held for `stride` control steps of the simulator.
    history: observations given to the policy, one for each of the last so many policy steps.
    max_steps: control steps after which an episode has failed; 0 = as many as the simulator allows.
    timeout: seconds without a word from a worker after which it counts as hung.
  """

  cameras: tuple[str, ...]
  image_size: int
  step_seconds: float
  history: int = 1
  max_steps: int = 0
  timeout: float = 300.0

  def stride(self, fps: float) -> int:
    """Control steps of one policy step."""
    return max(1, round(fps * self.step_seconds))


@dataclasses.dataclass(frozen=True)
class Job:
  """One episode to play.

  Attributes:
    number: place in the run; rows of a batch are in this order.
    task: of the simulator.
    seed: of the initial state.
    scene: appearance.
    actor: "policy" asks for actions; "expert", "random" and "zero" play by themselves, and blind
      unless recorded.
    record: whether to keep a frame of every policy step.
  """

  number: int
  task: str
  seed: int
  scene: int = 0
  actor: str = "policy"
  record: bool = False


@dataclasses.dataclass(frozen=True)
class Waiting:
  """An episode whose policy must act: its `plan`-th request and the last 1..T observations, oldest
  first.
  """

  job: Job
  plan: int
  history: list[base.Observation]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How an episode ended.

  Attributes:
    success: whether the goal was reached, at any control step.
    steps: control steps spent, of at most `max_steps`.
    plans: requests to the policy.
    seconds: wall clock in the worker, without the construction of the simulator.
    initial_state: number of the fixed initial state; -1 where the seed samples one.
    frames: uint8 [F, H, W of all cameras side by side, 3] of a recorded episode, `rate` a second.
    error: why there is no result; then the rest means nothing.
  """

  job: Job
  success: bool = False
  steps: int = 0
  max_steps: int = 0
  plans: int = 0
  seconds: float = 0.0
  initial_state: int = -1
  frames: np.ndarray | None = None
  rate: float = 0.0
  error: str = ""


class Fleet:
  """Worker processes.

  `run` may be called any number of times, one at a time; `close` ends the workers.
  """

  def __init__(self, build: Callable[..., base.Simulator], settings: Settings, *, workers: int):
    """Args:
    build: `build(task, cameras=, image_size=)`, importable by name in another process.
    settings: of every episode.
    workers: processes.

    Raises:
      errors.UserError: a setting that cannot be.
    """
    for name, value, least in (
      ("workers", workers, 1),
      ("history", settings.history, 1),
      ("max_steps", settings.max_steps, 0),
    ):
      if value < least:
        raise errors.UserError(f"{name} = {value}: expected at least {least}")
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
    act: Callable[[Sequence[Waiting]], Sequence[np.ndarray]] | None = None,
  ) -> Iterator[Outcome]:
    """Plays every job once; outcomes come in the order in which episodes end.

    Args:
      jobs: episodes; the same task in a row saves constructing simulators.
      act: actions [n, A] to execute for each of the waiting episodes, in the simulator's units. It
        is called when every busy worker waits, with rows in the order of the jobs, so that batches
        do not depend on timing.

    Raises:
      errors.UserError: raised by the simulator: the same would happen in every episode.
    """
    queue, failures = collections.deque(jobs), collections.Counter()
    while True:
      for i, worker in enumerate(self._workers):
        if queue and (worker is None or worker.job is None):
          self._workers[i] = worker or _Worker(self._context, self._build, self._settings)
          self._workers[i].start(queue.popleft())
      busy = [worker for worker in self._workers if worker is not None and worker.job is not None]
      if not busy:
        return
      if all(worker.waiting for worker in busy):
        busy.sort(key=lambda worker: worker.job.number)
        for worker, actions in zip(busy, act([worker.waiting for worker in busy]), strict=True):
          worker.answer(actions)
      for worker in self._heard([worker for worker in busy if not worker.waiting]):
        job, (kind, content) = worker.job, worker.message()
        if kind == "ready":
          worker.begun()
        elif kind == "waiting":
          worker.waiting = Waiting(job, **content)
        elif kind == "done":
          worker.job = None
          yield Outcome(job, **content)
        elif kind == "refused":
          raise errors.UserError(content)
        else:
          self._drop(worker)
          failures[job.number] += 1
          if failures[job.number] < ATTEMPTS:
            queue.appendleft(job)
          else:
            yield Outcome(job, error=content)

  def close(self) -> None:
    """Ends the workers, whatever they are doing."""
    for worker in self._workers:
      if worker is not None:
        self._drop(worker)

  def _heard(self, workers: list["_Worker"]) -> list["_Worker"]:
    """Waits until one of the workers has spoken, died or run out of time; returns those that did,
    in the order of their jobs.
    """
    left = min(worker.deadline for worker in workers) - time.monotonic()
    ready = connection.wait([worker.pipe for worker in workers], timeout=max(0.0, left))
    late = time.monotonic()
    return sorted(
      (worker for worker in workers if worker.pipe in ready or worker.deadline <= late),
      key=lambda worker: worker.job.number,
    )

  def _drop(self, worker: "_Worker") -> None:
    self._workers[self._workers.index(worker)] = None
    worker.end()


class _Worker:
  """The main process's side of one worker."""

  def __init__(self, context, build, settings: Settings):
    self.pipe, theirs = context.Pipe()
    self._timeout, self._ready = settings.timeout, False
    self._process = context.Process(target=_work, args=(theirs, build, settings), daemon=True)
    self._process.start()
    theirs.close()  # so that the death of the worker ends the pipe
    self.job: Job | None = None
    self.waiting: Waiting | None = None
    self.deadline = 0.0

  def start(self, job: Job) -> None:
    self.job, self.waiting = job, None
    self._send(job)

  def begun(self) -> None:
    """The worker is about to play: from now on it has `timeout` for every answer."""
    self._ready = True
    self.deadline = time.monotonic() + self._timeout

  def answer(self, actions: np.ndarray) -> None:
    self.waiting = None
    self._send(np.asarray(actions, np.float32))

  def message(self) -> tuple[str, object]:
    """What the worker said: ("ready" | "waiting" | "done" | "refused" | "failed", content)."""
    if not self.pipe.poll():
      return (
        "failed",
        f"no answer from the simulator for {self._timeout if self._ready else START_SECONDS:g} s",
      )
    try:
      return self.pipe.recv()
    except (EOFError, OSError):
      self._process.join(timeout=5)
      return "failed", f"the simulator's process died (exit code {self._process.exitcode})"

  def end(self) -> None:
    self._process.kill()
    self._process.join()
    self.pipe.close()

  def _send(self, content) -> None:
    self.deadline = time.monotonic() + (self._timeout if self._ready else START_SECONDS)
    # A dead worker: its end of the pipe reads as ended, which `message` reports.
    with contextlib.suppress(OSError):
      self.pipe.send(content)


def _work(pipe, build, settings: Settings) -> None:
  """A worker's life: episodes until the main process is gone."""
  # Ctrl-C goes to the whole group; the main process ends us
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # Mesa's rasterizer in this thread: workers share the cores already
  os.environ.setdefault("LP_NUM_THREADS", "0")
  simulator, task = None, None
  try:
    pipe.send(("ready", None))
    while True:
      job = pipe.recv()
      if job.task != task:
        if simulator is not None:
          simulator.close()
        simulator, task = (
          build(job.task, cameras=settings.cameras, image_size=settings.image_size),
          job.task,
        )
      pipe.send(("done", _Episode(simulator, job, settings, pipe).play()))
  except (EOFError, BrokenPipeError, ConnectionResetError):
    pass
  except errors.UserError as error:
    pipe.send(("refused", str(error)))
  except Exception as error:  # whatever a simulator raises must not stop the other episodes
    pipe.send(("failed", f"{type(error).__name__}: {error}"))
  finally:
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(0)  # OpenGL bindings print errors while the interpreter shuts down


class _Episode:
  """One episode inside a worker."""

  def __init__(self, simulator: base.Simulator, job: Job, settings: Settings, pipe):
    self._simulator, self._job, self._settings, self._pipe = simulator, job, settings, pipe
    self._stride = settings.stride(simulator.spec.fps)
    self._limit = min(settings.max_steps or simulator.spec.max_steps, simulator.spec.max_steps)
    self._history = collections.deque(maxlen=settings.history)
    self._frames: list[np.ndarray] = []
    self._steps = self._plans = 0
    self._rng = np.random.default_rng([2147483647, job.seed])  # of the random actor; its own stream

  def play(self) -> dict:
    """Fields of the Outcome."""
    begin, simulator, job = time.monotonic(), self._simulator, self._job
    simulator.restart(job.seed, scene=job.scene)
    if job.actor == "policy" or job.record:
      seen = simulator.observe()
      self._see(seen)
      for camera in self._settings.cameras:
        rendering.check_frames(
          seen[IMAGE + camera][None], f"{simulator.spec.name} seed {job.seed} camera {camera}"
        )
    while not self._over:
      chunk = self._ask() if job.actor == "policy" else [None]
      for i, action in enumerate(chunk):
        self._hold(action)
        # The next request needs the last T policy steps; a video needs all of them.
        if job.record or (
          job.actor == "policy" and not self._over and len(chunk) - i - 1 < self._settings.history
        ):
          self._see(simulator.observe())
        if self._over:
          break
    return {
      "success": bool(simulator.success),
      "steps": self._steps,
      "max_steps": self._limit,
      "plans": self._plans,
      "seconds": time.monotonic() - begin,
      "initial_state": simulator.initial_state(job.seed),
      "rate": simulator.spec.fps / self._stride,
      "frames": np.stack(self._frames) if self._frames else None,
    }

  @property
  def _over(self) -> bool:
    return bool(self._simulator.success or self._simulator.done) or self._steps >= self._limit

  def _see(self, observation: base.Observation) -> None:
    self._history.append(observation)
    if self._job.record and self._settings.cameras:
      self._frames.append(
        np.concatenate([observation[IMAGE + camera] for camera in self._settings.cameras], axis=1)
      )

  def _ask(self) -> np.ndarray:
    """The policy's actions [n, A]."""
    self._pipe.send(("waiting", {"plan": self._plans, "history": list(self._history)}))
    self._plans += 1
    chunk, size = self._pipe.recv(), len(self._simulator.spec.action_names)
    if chunk.ndim != 2 or not len(chunk) or chunk.shape[1] != size or not np.isfinite(chunk).all():
      raise errors.UserError(
        f"{self._simulator.spec.name}: the policy gave actions {list(chunk.shape)}, expected "
        f"finite numbers [n, {size}]"
      )
    return chunk

  def _hold(self, action: np.ndarray | None) -> None:
    """One policy step of physics; None lets the episode's own actor choose."""
    spec, actor = self._simulator.spec, self._job.actor
    if actor == "random":
      action = self._rng.uniform(spec.action_low, spec.action_high).astype(np.float32)
    elif actor == "zero":
      action = np.zeros(len(spec.action_names), np.float32)
    for _ in range(self._stride):
      if self._over:
        return
      self._simulator.advance(self._simulator.expert() if actor == "expert" else action)
      self._steps += 1
