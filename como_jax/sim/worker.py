"""The process of a worker: plays whole episodes and requests actions.

A worker has one simulator at a time. It resets the simulator, sends the observations, executes the
returned chunk of actions open loop, and observes again. Nothing is rendered between two requests,
because rendering takes ten times as long as a step of physics. Legend: n actions of a request, A
action.
"""

import collections
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import connection

import numpy as np

from como_jax import errors
from como_jax.observations import IMAGE
from como_jax.sim import base, jobs, rendering


def work(
  pipe: connection.Connection, build: Callable[..., base.Simulator], settings: jobs.Settings
) -> None:
  """Main loop of a worker: plays episodes until the main process closes the pipe.

  Args:
    pipe: receives jobs and actions, sends messages.
    build: `build(task, cameras=, image_size=)`.
    settings: of every episode.
  """
  # Ctrl-C reaches the whole process group; the main process kills the workers
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  # run Mesa's rasterizer in this thread: the workers already use all cores
  os.environ.setdefault("LP_NUM_THREADS", "0")
  simulator: base.Simulator | None = None
  task = ""
  try:
    pipe.send(jobs.Ready())
    while True:
      job = pipe.recv()
      if simulator is None or job.task != task:
        if simulator is not None:
          simulator.close()
        task = job.task
        simulator = build(task, cameras=settings.cameras, image_size=settings.image_size)
      pipe.send(Episode(simulator, job, settings, pipe).play())
  except (EOFError, BrokenPipeError, ConnectionResetError):
    pass
  except errors.UserError as error:
    pipe.send(jobs.Refused(str(error)))
  except Exception as error:  # an exception of a simulator must not stop the other episodes
    pipe.send(jobs.Failed(f"{type(error).__name__}: {error}"))
  finally:
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(0)  # OpenGL bindings print errors while the interpreter shuts down


class Episode:
  """One episode inside a worker."""

  def __init__(
    self,
    simulator: base.Simulator,
    job: jobs.Job,
    settings: jobs.Settings,
    pipe: connection.Connection,
  ):
    self._simulator, self._job, self._settings, self._pipe = simulator, job, settings, pipe
    self._stride = settings.stride(simulator.spec.fps)
    self._limit = min(settings.max_steps or simulator.spec.max_steps, simulator.spec.max_steps)
    self._history = collections.deque(maxlen=settings.history)
    self._frames: list[np.ndarray] = []
    self._steps = self._plans = 0
    self._rng = np.random.default_rng([2147483647, job.seed])  # separate stream of "random"

  def play(self) -> jobs.Outcome:
    """Plays the episode."""
    start, simulator, job = time.monotonic(), self._simulator, self._job
    simulator.restart(job.seed, scene=job.scene)
    if job.actor == "policy" or job.record:
      observation = simulator.observe()
      self._store(observation)
      for camera in self._settings.cameras:
        frame = observation[IMAGE + camera][None]
        rendering.check_frames(frame, f"{simulator.spec.name} seed {job.seed} camera {camera}")
    while not self._over:
      chunk = self._actions()
      for i, action in enumerate(chunk):
        self._hold(action)
        # The next request needs the last T policy steps; a video needs all steps.
        if job.record or (
          job.actor == "policy" and not self._over and len(chunk) - i - 1 < self._settings.history
        ):
          self._store(simulator.observe())
        if self._over:
          break
    return jobs.Outcome(
      job,
      success=bool(simulator.success),
      steps=self._steps,
      max_steps=self._limit,
      plans=self._plans,
      seconds=time.monotonic() - start,
      initial_state=simulator.initial_state(job.seed),
      frames=np.stack(self._frames) if self._frames else None,
      rate=simulator.spec.fps / self._stride,
    )

  @property
  def _over(self) -> bool:
    return bool(self._simulator.success or self._simulator.done) or self._steps >= self._limit

  def _store(self, observation: base.Observation) -> None:
    self._history.append(observation)
    if self._job.record and self._settings.cameras:
      self._frames.append(
        np.concatenate([observation[IMAGE + camera] for camera in self._settings.cameras], axis=1)
      )

  def _actions(self) -> Sequence[np.ndarray | None]:
    """Actions [A] of the next policy steps; None = the expert acts in every control step."""
    spec, actor = self._simulator.spec, self._job.actor
    if actor == "policy":
      return self._request_actions()
    if actor == "random":
      return [self._rng.uniform(spec.action_low, spec.action_high).astype(np.float32)]
    if actor == "zero":
      return [np.zeros(len(spec.action_names), np.float32)]
    if actor == "expert":
      return [None]
    raise ValueError(f"actor {actor!r} is unknown: {errors.nearest(actor, jobs.ACTORS)}")

  def _request_actions(self) -> list[np.ndarray]:
    """Requests and checks the policy's actions [n, A]."""
    self._pipe.send(jobs.ActionRequest(self._job, self._plans, list(self._history)))
    self._plans += 1
    chunk, size = self._pipe.recv(), len(self._simulator.spec.action_names)
    if chunk.ndim != 2 or not len(chunk) or chunk.shape[1] != size or not np.isfinite(chunk).all():
      raise errors.UserError(
        f"{self._simulator.spec.name}: the policy gave actions {list(chunk.shape)}, expected "
        f"finite numbers [n, {size}]"
      )
    return list(chunk)

  def _hold(self, action: np.ndarray | None) -> None:
    """Runs one policy step of physics; None = the expert chooses each action."""
    for _ in range(self._stride):
      if self._over:
        return
      self._simulator.advance(self._simulator.expert() if action is None else action)
      self._steps += 1
