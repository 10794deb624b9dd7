"""Many simulators at once: worker processes that play whole episodes and request actions.

A worker has one simulator at a time. It resets the simulator, sends the observations, executes the
returned chunk of actions open loop, and observes again. Nothing is rendered between two requests,
because rendering takes ten times as long as a step of physics. Workers are spawned, because OpenGL
contexts do not survive a fork.

The observations of a policy depend on the episode alone (its task, seed and scene), never on the
number of workers. A worker that dies, hangs or raises is replaced, and its episode is played once
more from the start. If that fails too, the episode ends with an error instead of a result. Legend:
T history, K chunk, A action, F frames, H W image.
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
ATTEMPTS = 2  # a failed episode is played once more
# time limit for the start of a worker, which imports Python and the simulator's packages
START_SECONDS = 300.0


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings that all episodes of a fleet share.

  Attributes:
    cameras: simulator cameras in observations and videos.
    image_size: height and width, pixels.
    step_seconds: duration of a policy step; its action is held for `stride` control steps.
    history: maximum number of observations for the policy, one for each of the last policy steps.
    max_steps: control steps after which an episode has failed; 0 = the limit of the simulator.
    timeout: seconds without a message after which a worker counts as hung.
  """

  cameras: tuple[str, ...]
  image_size: int
  step_seconds: float
  history: int = 1
  max_steps: int = 0
  timeout: float = 300.0

  def stride(self, fps: float) -> int:
    """Returns the control steps of one policy step, for `fps` control steps per second."""
    return max(1, round(fps * self.step_seconds))


@dataclasses.dataclass(frozen=True)
class Job:
  """One episode to play.

  Attributes:
    number: position in the run; rows of a batch are in this order.
    task: of the simulator.
    seed: of the initial state.
    scene: appearance.
    actor: "policy" requests actions. "expert", "random" and "zero" act inside the worker; they
      render only when the episode is recorded.
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
  """An episode that waits for actions of the policy.

  Attributes:
    job: the episode.
    plan: index of the request within the episode, from 0.
    history: the last 1..T observations, oldest first.
  """

  job: Job
  plan: int
  history: list[base.Observation]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """Result of an episode.

  Attributes:
    job: the episode.
    success: whether the goal was reached, at any control step.
    steps: control steps used.
    max_steps: control steps allowed.
    plans: requests to the policy.
    seconds: wall-clock time in the worker, without the construction of the simulator.
    initial_state: index of the fixed initial state; -1 where the seed samples a state.
    frames: uint8 [F, H, W of all cameras side by side, 3] of a recorded episode.
    rate: frames per second.
    error: why there is no result; the other attributes are then meaningless.
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
    act: Callable[[Sequence[Waiting]], Sequence[np.ndarray]] | None = None,
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
      for worker in self._wait([worker for worker in busy if not worker.waiting]):
        job, (kind, content) = worker.job, worker.message()
        if kind == "ready":
          worker.mark_ready()
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
    """Kills the workers, also during an episode."""
    for worker in self._workers:
      if worker is not None:
        self._drop(worker)

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
      key=lambda worker: worker.job.number,
    )

  def _drop(self, worker: "_Worker") -> None:
    self._workers[self._workers.index(worker)] = None
    worker.end()


class _Worker:
  """The main process's side of one worker."""

  def __init__(self, context, build, settings: Settings):
    self.pipe, worker_pipe = context.Pipe()
    self._timeout, self._ready = settings.timeout, False
    self._process = context.Process(target=_work, args=(worker_pipe, build, settings), daemon=True)
    self._process.start()
    worker_pipe.close()  # so that the pipe closes when the worker dies
    self.job: Job | None = None
    self.waiting: Waiting | None = None
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

  def message(self) -> tuple[str, object]:
    """The worker's message: ("ready" | "waiting" | "done" | "refused" | "failed", content)."""
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
    # The worker is dead: its end of the pipe is closed, which `message` reports.
    with contextlib.suppress(OSError):
      self.pipe.send(content)


def _work(pipe, build, settings: Settings) -> None:
  """Main loop of a worker: plays episodes until the main process closes the pipe."""
  # Ctrl-C reaches the whole process group; the main process kills the workers
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # run Mesa's rasterizer in this thread: the workers already use all cores
  os.environ.setdefault("LP_NUM_THREADS", "0")
  simulator, task = None, None
  try:
    pipe.send(("ready", None))
    while True:
      job = pipe.recv()
      if job.task != task:
        if simulator is not None:
          simulator.close()
        task = job.task
        simulator = build(task, cameras=settings.cameras, image_size=settings.image_size)
      pipe.send(("done", _Episode(simulator, job, settings, pipe).play()))
  except (EOFError, BrokenPipeError, ConnectionResetError):
    pass
  except errors.UserError as error:
    pipe.send(("refused", str(error)))
  except Exception as error:  # an exception of a simulator must not stop the other episodes
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
    self._rng = np.random.default_rng([2147483647, job.seed])  # separate stream of "random"

  def play(self) -> dict:
    """Plays the episode; returns the fields of its Outcome."""
    begin, simulator, job = time.monotonic(), self._simulator, self._job
    simulator.restart(job.seed, scene=job.scene)
    if job.actor == "policy" or job.record:
      observation = simulator.observe()
      self._store(observation)
      for camera in self._settings.cameras:
        frame = observation[IMAGE + camera][None]
        rendering.check_frames(frame, f"{simulator.spec.name} seed {job.seed} camera {camera}")
    while not self._over:
      chunk = self._request_actions() if job.actor == "policy" else [None]
      for i, action in enumerate(chunk):
        self._hold(action)
        # The next request needs the last T policy steps; a video needs all steps.
        if job.record or (
          job.actor == "policy" and not self._over and len(chunk) - i - 1 < self._settings.history
        ):
          self._store(simulator.observe())
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

  def _store(self, observation: base.Observation) -> None:
    self._history.append(observation)
    if self._job.record and self._settings.cameras:
      self._frames.append(
        np.concatenate([observation[IMAGE + camera] for camera in self._settings.cameras], axis=1)
      )

  def _request_actions(self) -> np.ndarray:
    """Requests and checks the policy's actions [n, A]."""
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
    """Runs one policy step of physics; None = the episode's own actor chooses the action."""
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
