"""See the package."""

from collections.abc import Callable

import mujoco
import numpy as np

class SawyerXYZEnv:
  """What all tasks share."""

  model: mujoco.MjModel
  data: mujoco.MjData
  dt: float
  max_path_length: int
  seeded_rand_vec: bool
  touching_object: Callable[[int], bool]
  _freeze_rand_vec: bool
  def __init__(self, *, seed: int | None = ...) -> None: ...
  def seed(self, seed: int) -> list[int]: ...
  def reset(self) -> tuple[np.ndarray, dict[str, float]]: ...
  def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, float]]: ...

ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE: dict[str, type[SawyerXYZEnv]]
