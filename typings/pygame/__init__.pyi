"""The part of pygame 2 that `como_jax/sim/pusht.py` uses."""

from pygame import surfarray as surfarray

class Surface: ...

class Color:
  def __init__(self, r: int, g: int, b: int, a: int = ...) -> None: ...
