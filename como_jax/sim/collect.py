"""Demonstrations by scripted experts: settings, seeds, attempts and stored episodes.

Each task can have its own process. An attempt is a pure function of (seed, task number, attempt
number). The same settings therefore give the same motions with any number of processes. `actor`
varies the motions of the experts.
"""

import concurrent.futures
import dataclasses
import inspect
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors, sim
from como_jax.observations import IMAGE, STATE
from como_jax.sim import actor, base, rendering


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of a collection; one section of the config.

  Attributes:
    simulator: a name in `sim.SIMULATORS`.
    cameras: names of the cameras to use.
    cameras_per_episode: 0 = every camera in every episode, under its own name. Otherwise the number
      of cameras drawn for each motion. They are stored as view0, view1, ...; the episodes table
      names the camera of each view.
    image_size: height and width, pixels.
    scenes: appearances, used in turn.
    repeated: number of motions of each task, from the first, that are stored in every scene. Each
      other motion is stored in one scene.
    motions: successful motions to collect for each task.
    stride: control steps per stored frame; the stored action is the mean action of those steps.
    tail: control steps stored after success.
    noise: standard deviation of the noise, in units of the action.
    correlation: correlation of the noise between successive control steps, 0..1.
    speed: (lowest, highest) factor on the expert's moves.
    wander: (fewest, most) control steps in a random direction at the start.
    max_steps: control steps after which an attempt has failed.
    attempts: maximum number of attempts at a task, per motion to collect.
    seed: seed of all random numbers.
    actions: False = store video alone: no actions, no state, no outcome.
    build: further arguments of the simulator's `build`, for example {"initial": "sampled"}.
  """

  simulator: str
  cameras: tuple[str, ...]
  cameras_per_episode: int
  image_size: int
  scenes: tuple[int, ...]
  repeated: int
  motions: int
  stride: int
  tail: int
  noise: float
  correlation: float
  speed: tuple[float, float]
  wander: tuple[int, int]
  max_steps: int
  attempts: int
  seed: int
  actions: bool = True
  build: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if not self.cameras or not self.scenes:
      raise errors.UserError("collect: at least one camera and one scene are needed")
    if not 0 <= self.cameras_per_episode <= len(self.cameras):
      raise errors.UserError(
        f"cameras_per_episode = {self.cameras_per_episode}: expected 0 (all) to "
        f"{len(self.cameras)}, the cameras listed"
      )
    minimums = {"motions": 1, "stride": 1, "max_steps": self.stride, "attempts": 1}
    for name, minimum in minimums.items():
      if getattr(self, name) < minimum:
        raise errors.UserError(f"{name} = {getattr(self, name)}: expected at least {minimum}")

  @property
  def views(self) -> tuple[str, ...]:
    """Names under which the frames are stored."""
    if not self.cameras_per_episode:
      return tuple(self.cameras)
    return tuple(f"view{i}" for i in range(self.cameras_per_episode))

  @property
  def episodes(self) -> int:
    """Number of stored episodes of a task of which all motions were collected."""
    return self.motions + (len(self.scenes) - 1) * min(self.repeated, self.motions)


@dataclasses.dataclass(frozen=True)
class Episode:
  """One stored episode of T frames.

  Attributes:
    instruction: language instruction of the task.
    frames: view -> uint8 [T, H, W, 3].
    state: float32 [T, S] at each frame.
    action: float32 [T, A], mean action from each frame to the next.
    success: bool [T], whether the goal has been reached by the next frame.
    metadata: columns for the episodes table.
  """

  instruction: str
  frames: dict[str, np.ndarray]
  state: np.ndarray
  action: np.ndarray
  success: np.ndarray
  metadata: dict[str, str | int | float]


@dataclasses.dataclass(frozen=True)
class Tally:
  """Number of attempts at a task and number of successes among them."""

  task: str
  attempts: int
  successes: int


def build(settings: Settings, task: str) -> base.Simulator:
  """Builds the simulator of one task.

  Args:
    settings: of the collection.
    task: a key of the simulator's `TASKS`.

  Raises:
    UserError: unknown task, camera or further argument.
  """
  module = sim.load(settings.simulator)
  known = inspect.signature(module.build).parameters
  for name in settings.build:
    if name not in known or name in ("task", "cameras", "image_size"):
      raise errors.UserError(
        f"collect.build: {settings.simulator} has no {name!r}: "
        f"{errors.nearest(name, set(known) - {'task'})}"
      )
  return module.build(
    task, cameras=tuple(settings.cameras), image_size=settings.image_size, **settings.build
  )


def spec(settings: Settings, task: str) -> base.Spec:
  """The spec of a task; the simulator is built once and closed.

  Raises:
    UserError: as in `build`.
  """
  simulator = build(settings, task)
  simulator.close()
  return simulator.spec


def collect_tasks(
  settings: Settings, tasks: Sequence[str], *, workers: int
) -> Iterator[Episode | Tally]:
  """Yields what `collect_task` yields of each task, in order, with any number of processes.

  At most `workers + 1` finished tasks are kept in memory (a task of 20 episodes at 128 px takes
  about 100 MB).

  Args:
    settings: of the collection.
    tasks: keys of the simulator's `TASKS`.
    workers: number of processes; at most 1 = this process.

  Raises:
    UserError: as in `collect_task`.
  """
  if workers <= 1:
    for task in tasks:
      yield from collect_task(settings, task)
    return
  context = multiprocessing.get_context("spawn")  # OpenGL contexts do not survive a fork
  # Ctrl-C kills the workers at once, because the end of this `with` block waits for them.
  with concurrent.futures.ProcessPoolExecutor(
    workers, mp_context=context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_DFL)
  ) as pool:
    futures = []
    for task in tasks:
      futures.append(pool.submit(_whole_task, settings, task))
      if len(futures) > workers:
        yield from futures.pop(0).result()
    for future in futures:
      yield from future.result()


def _whole_task(settings: Settings, task: str) -> list[Episode | Tally]:
  return list(collect_task(settings, task))


def collect_task(settings: Settings, task: str) -> Iterator[Episode | Tally]:
  """Yields the successful episodes of one task, then its Tally.

  Args:
    settings: of the collection.
    task: a key of the simulator's `TASKS`.

  Raises:
    UserError: unknown task or camera, or frames that `rendering.check_frames` rejects.
  """
  module = sim.load(settings.simulator)
  number = list(module.TASKS).index(task) if task in module.TASKS else 0
  simulator = build(settings, task)
  successes = attempt = 0
  while successes < settings.motions and attempt < settings.motions * settings.attempts:
    stored = False
    for scene in _scenes(settings, number, successes):
      episode = _attempt(settings, simulator, task, (settings.seed, number, attempt), scene)
      if episode is None:
        break  # physics does not depend on the scene: it fails in all of them
      stored = True
      yield episode
    attempt += 1
    successes += stored
  simulator.close()
  yield Tally(task, attempt, successes)


def _scenes(settings: Settings, task_number: int, motion: int) -> tuple[int, ...]:
  if motion < settings.repeated:
    return tuple(settings.scenes)
  return (settings.scenes[(task_number * settings.motions + motion) % len(settings.scenes)],)


def _attempt(
  settings: Settings, simulator: base.Simulator, task: str, key: tuple[int, int, int], scene: int
) -> Episode | None:
  """Runs one attempt in one scene; None when the goal was not reached.

  Args:
    settings: of the collection.
    simulator: of the task.
    task: name of the task, for the metadata.
    key: (seed, task number, attempt number); determines everything but the appearance.
    scene: appearance.
  """
  rng = np.random.default_rng(key)
  seed = int(rng.integers(2**31))
  views = settings.views
  chosen = [settings.cameras[i] for i in rng.permutation(len(settings.cameras))[: len(views)]]
  cameras = dict(
    zip(views, chosen if settings.cameras_per_episode else settings.cameras, strict=True)
  )
  actor_seed = int(rng.integers(2**31))
  # Rendering takes most of the time. A rehearsal without rendering therefore runs first and shows
  # whether the attempt succeeds.
  act = actor.Actor(settings, simulator, actor_seed)
  simulator.restart(seed, scene=scene)
  if not _play(settings, simulator, act, ())[-1].success:
    return None
  actions = iter(act.actions)
  simulator.restart(seed, scene=scene)
  try:
    rows = _play(settings, simulator, lambda: next(actions), tuple(cameras.values()))
  except StopIteration:
    # the episode is longer than its rehearsal: the simulator is not exactly deterministic
    return None
  if not rows[-1].success:
    return None
  frames = {
    view: np.stack([row.observation[IMAGE + camera] for row in rows])
    for view, camera in cameras.items()
  }
  for view, images in frames.items():
    rendering.check_frames(images, f"{simulator.spec.name} seed {seed} camera {cameras[view]}")
  metadata = {
    "scene": scene,
    "motion": f"{task}/{key[2]:05d}",
    "simulator_task": task,
    "simulator_seed": seed,
    "speed": act.speed,
  }
  if simulator.spec.initial_states:
    metadata["initial_state"] = simulator.initial_state(seed)
  metadata |= {f"camera/{view}": camera for view, camera in cameras.items()}
  return Episode(
    instruction=simulator.spec.instruction,
    frames=frames,
    state=np.stack([row.observation[STATE] for row in rows]),
    action=np.stack([row.action for row in rows]),
    success=np.array([row.success for row in rows]),
    metadata=metadata,
  )


@dataclasses.dataclass(frozen=True)
class _Row:
  """One stored frame.

  Attributes:
    observation: at the frame.
    action: float32 [A], mean action until the next frame.
    success: whether the goal has been reached by the next frame.
  """

  observation: base.Observation
  action: np.ndarray
  success: bool


def _play(
  settings: Settings,
  simulator: base.Simulator,
  act: Callable[[], np.ndarray],
  cameras: tuple[str, ...],
) -> list[_Row]:
  """Acts until `tail` control steps after success, or until the step limit."""
  rows, after, steps = [], 0, 0
  limit = min(settings.max_steps, simulator.spec.max_steps)
  while after <= settings.tail and steps + settings.stride <= limit:
    observation = simulator.observe(cameras)
    actions = []
    for _ in range(settings.stride):
      actions.append(act())
      simulator.advance(actions[-1])
    steps += settings.stride
    after += settings.stride * simulator.success
    mean_action = np.asarray(np.mean(actions, axis=0, dtype=np.float64), np.float32)
    rows.append(_Row(observation, mean_action, simulator.success))
  return rows
