"""Episodes to play, their results, and the messages of the workers that play them.

Legend: T history, F frames, H W image.
"""

import dataclasses

import numpy as np

from como_jax.sim import base

ACTORS = ("policy", "expert", "random", "zero")


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
class ActionRequest:
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


@dataclasses.dataclass(frozen=True)
class Ready:
  """Message of a worker: it has started."""


@dataclasses.dataclass(frozen=True)
class Refused:
  """Message of a worker: every episode would fail; `reason` says why."""

  reason: str


@dataclasses.dataclass(frozen=True)
class Failed:
  """Message of a worker, or about a dead one: the episode failed; `reason` says why."""

  reason: str


Message = Ready | ActionRequest | Outcome | Refused | Failed
