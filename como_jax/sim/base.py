"""The simulator interface; collection, evaluation and serving use nothing else.

Observations have the keys of stored episodes. A policy therefore handles a simulator like a data
set:

  "observation.state"            float32 [S]       proprioception before the next action
  "observation.images.<camera>"  uint8 [H, W, 3]   RGB, oriented as in the published data sets of
                                                   the simulator
  "task"                         str               language instruction

`Module` is the interface of a simulator's module, `Simulator` that of one task.
"""

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from como_jax import errors
from como_jax.observations import IMAGE, STATE, TASK

Observation = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Spec:
  """Fixed facts about one simulator instance.

  Attributes:
    name: simulator and task, for messages ("metaworld/reach").
    robot: robot type, as stored in data sets.
    instruction: language instruction of the task.
    cameras: camera name -> (height, width) in pixels.
    state_names: names of the S state dimensions.
    action_names: names of the A action dimensions.
    action_low: float32 [A], lower bounds; actions are clipped.
    action_high: float32 [A], upper bounds.
    fps: control steps per second.
    stride: control steps for which one `step` holds its action; observations arrive at `fps /
      stride`.
    max_steps: control steps after which an episode ends without success.
    move: action dimensions that move the hand and may get noise: x, y, z or x, y.
    absolute: whether the `move` dimensions are positions, in the units of the first dimensions of
      the state. Otherwise they are increments.
    gripper: action dimensions of the gripper.
    gripper_open: value of those dimensions that opens the gripper.
    initial_states: number of fixed initial states; the seed selects one. 0 = the seed samples a
      new state.
  """

  name: str
  robot: str
  instruction: str
  cameras: dict[str, tuple[int, int]]
  state_names: tuple[str, ...]
  action_names: tuple[str, ...]
  action_low: np.ndarray
  action_high: np.ndarray
  fps: float
  stride: int
  max_steps: int
  move: tuple[int, ...] = (0, 1, 2)
  absolute: bool = False
  gripper: tuple[int, ...] = (3,)
  gripper_open: float = -1.0
  initial_states: int = 0


class Simulator(Protocol):
  """One task of one simulator.

  Not thread-safe. Only the process that built the simulator can render.
  """

  spec: Spec

  def reset(self, seed: int, *, scene: int | None = None) -> Observation:
    """Starts an episode and returns its first observation.

    Args:
      seed: the same seed gives the same initial state and goal.
      scene: changes the appearance only; None = the scene passed to `build`.
    """
    ...

  def restart(self, seed: int, *, scene: int | None = None) -> None:
    """Starts an episode as `reset` does, but renders nothing."""
    ...

  def step(self, action: np.ndarray) -> Observation:
    """Holds an action for `spec.stride` control steps, then observes.

    Args:
      action: float32 [A], clipped to the bounds.
    """
    ...

  def advance(self, action: np.ndarray) -> None:
    """Runs one control step of physics and renders nothing."""
    ...

  def observe(self, cameras: Iterable[str] | None = None) -> Observation:
    """Reads the current state and renders `cameras` (None: all cameras of the spec)."""
    ...

  def expert(self) -> np.ndarray:
    """Returns the scripted expert's action, float32 [A], for the current state.

    Raises:
      UserError: the task has no expert.
    """
    ...

  def initial_state(self, seed: int) -> int:
    """Index of the fixed initial state of `reset(seed)`; -1 when the seed samples a state."""
    ...

  @property
  def success(self) -> bool:
    """Whether the goal has been reached since `reset`."""
    ...

  @property
  def done(self) -> bool:
    """Whether the episode has used `spec.max_steps` control steps.

    `advance` then raises an error until the next `reset`.
    """
    ...

  def close(self) -> None:
    """Frees the rendering context."""
    ...


class Module(Protocol):
  """The module of a simulator, as `sim.load` returns it."""

  @property
  def TASKS(self) -> Mapping[str, str]:
    """Task -> language instruction."""
    ...

  @property
  def CAMERAS(self) -> tuple[str, ...]:
    """Names of the cameras."""
    ...

  @property
  def VERSION(self) -> str:
    """Packages and their versions."""
    ...

  @property
  def EXPERT(self) -> str:
    """Source of the expert's actions, for the data set card."""
    ...

  @property
  def build(self) -> Callable[..., Simulator]:
    """Builds one task: `build(task, *, cameras, image_size, stride, scene, ...)`."""
    ...


def check(
  kind: str,
  task: str,
  tasks: Iterable[str],
  cameras: tuple[str, ...],
  known: Iterable[str],
  stride: int,
) -> None:
  """Checks the arguments that all simulators share.

  Args:
    kind: name of the simulator, for messages.
    task: the requested task.
    tasks: tasks that exist.
    cameras: the requested cameras.
    known: cameras that exist.
    stride: control steps for which an action is held.

  Raises:
    UserError: unknown task or camera, or a stride below 1.
  """
  if task not in tasks:
    raise errors.UserError(f"{kind} task {task!r} is unknown: {errors.nearest(task, tasks)}")
  for camera in cameras:
    if camera not in known:
      raise errors.UserError(
        f"{kind} camera {camera!r} is unknown: {errors.nearest(camera, known)}"
      )
  if stride < 1:
    raise errors.UserError(f"stride = {stride}: expected a number of control steps >= 1")


class Stepper(abc.ABC):
  """Base class with the code that all simulators share.

  It clips actions, holds them, counts steps, and keeps success once it is reached. A subclass adds
  the abstract methods.
  """

  def __init__(self, spec: Spec, scene: int):
    self.spec = spec
    self._scene, self._started, self._success, self._steps = scene, False, False, 0

  def reset(self, seed: int, *, scene: int | None = None) -> Observation:
    """See `Simulator.reset`."""
    self.restart(seed, scene=scene)
    return self.observe()

  def restart(self, seed: int, *, scene: int | None = None) -> None:
    """See `Simulator.restart`."""
    self._restart(int(seed), self._scene if scene is None else scene)
    self._started, self._success, self._steps = True, False, 0

  def step(self, action: np.ndarray) -> Observation:
    """See `Simulator.step`; stops early at `max_steps`."""
    for _ in range(self.spec.stride):
      if not self.done:
        self.advance(action)
    return self.observe()

  def advance(self, action: np.ndarray) -> None:
    """See `Simulator.advance`."""
    if not self._started or self.done:
      raise RuntimeError(
        f"{self.spec.name}: call reset before stepping (after {self._steps} control steps)"
      )
    action = np.clip(np.asarray(action, np.float32), self.spec.action_low, self.spec.action_high)
    reached = self._advance(action)
    self._steps += 1
    self._success = self._success or bool(reached)

  def observe(self, cameras: Iterable[str] | None = None) -> Observation:
    """See `Simulator.observe`."""
    observation = {STATE: np.asarray(self._state(), np.float32), TASK: self.spec.instruction}
    for camera in self.spec.cameras if cameras is None else cameras:
      observation[IMAGE + camera] = self._frame(camera)
    return observation

  def initial_state(self, seed: int) -> int:
    """See `Simulator.initial_state`."""
    return int(seed) % self.spec.initial_states if self.spec.initial_states else -1

  @property
  def success(self) -> bool:
    """See `Simulator.success`."""
    return self._success

  @property
  def done(self) -> bool:
    """See `Simulator.done`."""
    return self._steps >= self.spec.max_steps

  @abc.abstractmethod
  def expert(self) -> np.ndarray:
    """See `Simulator.expert`."""

  @abc.abstractmethod
  def close(self) -> None:
    """See `Simulator.close`."""

  @abc.abstractmethod
  def _restart(self, seed: int, scene: int) -> None:
    """Starts an episode."""

  @abc.abstractmethod
  def _advance(self, action: np.ndarray) -> bool:
    """Runs one control step with a clipped action, float32 [A]; whether the goal is reached now."""

  @abc.abstractmethod
  def _state(self) -> np.ndarray:
    """State before the next action, [S]."""

  @abc.abstractmethod
  def _frame(self, camera: str) -> np.ndarray:
    """Frame of a camera, uint8 [H, W, 3]."""
