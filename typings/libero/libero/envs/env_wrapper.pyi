"""The part of LIBERO's environment that `como_jax/sim/libero.py` uses."""

from collections.abc import Sequence

import mujoco
import numpy as np

class _Model:
  _model: mujoco.MjModel

class _Data:
  _data: mujoco.MjData

class _Simulation:
  model: _Model
  data: _Data

class _Gripper:
  dof: int
  current_action: np.ndarray

class _Robot:
  gripper: _Gripper

class _Problem:
  parsed_problem: dict[str, list[list[str]]]
  def _eval_predicate(self, state: Sequence[str]) -> bool: ...

class ControlEnv:
  env: _Problem
  sim: _Simulation
  robots: list[_Robot]
  def __init__(
    self,
    *,
    bddl_file_name: str,
    use_camera_obs: bool,
    has_offscreen_renderer: bool,
    has_renderer: bool,
    hard_reset: bool,
  ) -> None: ...
  def reset(self) -> dict[str, np.ndarray]: ...
  def set_init_state(self, init_state: np.ndarray) -> dict[str, np.ndarray]: ...
  def step(
    self, action: np.ndarray
  ) -> tuple[dict[str, np.ndarray], float, bool, dict[str, object]]: ...
