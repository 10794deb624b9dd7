"""The part of gymnasium-robotics 1.4 that `como_jax/sim/fetch.py` uses."""

import mujoco
import numpy as np

class FetchEnv:
  """What the three environments share; the package has it under another name."""

  model: mujoco.MjModel
  data: mujoco.MjData
  goal: np.ndarray
  @property
  def dt(self) -> float: ...
  def reset(self, *, seed: int | None = ...) -> tuple[dict[str, np.ndarray], dict[str, float]]: ...
  def step(
    self, action: np.ndarray
  ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, float]]: ...
