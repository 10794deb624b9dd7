"""What a simulator must offer, so that collection, evaluation and serving never name one.

Observations use the names of the stored episodes, so a policy cannot tell a simulator from a data set:
  "observation.state"           float32 [S]        proprioception before the next action
  "observation.images.<camera>" uint8   [H, W, 3]  upright RGB
  "task"                        str                language instruction
"""

import dataclasses
from typing import Any, Protocol

import numpy as np

STATE = "observation.state"
IMAGE = "observation.images."
TASK = "task"

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
    fps: control steps a second.
    stride: control steps that one `step` holds its action for; observations arrive at `fps / stride`.
    max_steps: control steps after which an episode ends without success.
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


class Simulator(Protocol):
  """One task of one simulator. Not thread-safe; rendering belongs to the process that built it."""

  spec: Spec

  def reset(self, seed: int, *, scene: int = 0) -> Observation:
    """Starts an episode. The same seed gives the same initial state and goal; scene changes appearance only."""

  def step(self, action: np.ndarray) -> Observation:
    """Holds action float32 [A] (clipped to the bounds) for `spec.stride` control steps, then observes."""

  def advance(self, action: np.ndarray) -> None:
    """One control step of physics, nothing rendered."""

  def observe(self) -> Observation:
    """Renders and reads the present state."""

  def expert(self) -> np.ndarray:
    """The scripted expert's action float32 [A] for the present state."""

  @property
  def success(self) -> bool:
    """Whether the goal has been reached since `reset`."""

  @property
  def done(self) -> bool:
    """Whether `spec.max_steps` control steps have been spent; `advance` then needs a `reset` first."""

  def close(self) -> None:
    """Frees the rendering context."""
