"""The part of pymunk 6 that `como_jax/sim/pusht.py` uses."""

import pygame

version: str

class Shape:
  color: pygame.Color

class Body:
  position: tuple[float, float]
  velocity: tuple[float, float]
  angle: float
  angular_velocity: float
  shapes: set[Shape]

class Space:
  def reindex_shapes_for_body(self, body: Body) -> None: ...
  def step(self, dt: float) -> None: ...
