"""The part of gym-pusht 0.1 that `como_jax/sim/pusht.py` uses."""

import numpy as np
import pygame
import pymunk

class PushTEnv:
  agent: pymunk.Body
  block: pymunk.Body
  space: pymunk.Space
  goal_pose: np.ndarray
  dt: float
  k_p: float
  k_v: float
  _block_shapes: list[pymunk.Shape]
  def reset(
    self, *, seed: int | None = ...
  ) -> tuple[np.ndarray, dict[str, np.ndarray | float | bool]]: ...
  def step(
    self, action: np.ndarray
  ) -> tuple[np.ndarray, float, bool, bool, dict[str, np.ndarray | float | bool]]: ...
  def _draw(self) -> pygame.Surface: ...
  def _get_img(self, screen: pygame.Surface, width: int, height: int) -> np.ndarray: ...
