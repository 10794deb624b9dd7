"""The expert of one attempt, with varied motions.

Experts alone always move straight to their goal, so the motions are varied on purpose:
  - wander: at the start the hand moves in a random direction, with an open gripper;
  - speed: the expert's moves are scaled by a factor, drawn once per episode;
  - noise: Ornstein-Uhlenbeck noise is added. It is correlated in time, so averaging over steps does
    not remove it.
Speed and noise change only the dimensions that move the hand (`Spec.move`), never the gripper or
the hand's rotation.
"""

from typing import TYPE_CHECKING

import numpy as np

from como_jax.observations import STATE
from como_jax.sim import base

if TYPE_CHECKING:
  from como_jax.sim import collect

# distance of a wandering hand's target where actions are positions, as a fraction of their range
_REACH = 0.08


class Actor:
  """The expert of one attempt, with wandering, speed and noise; `actions` lists its actions."""

  def __init__(self, settings: "collect.Settings", simulator: base.Simulator, seed: int):
    rng = np.random.default_rng(seed)
    self._settings, self._simulator, self._rng = settings, simulator, rng
    self.speed = float(rng.uniform(*settings.speed))
    self._wander = int(rng.integers(settings.wander[0], settings.wander[1] + 1))
    self._move = list(simulator.spec.move)
    direction = rng.normal(size=len(self._move))
    self._direction = direction / np.linalg.norm(direction)
    self._noise = settings.noise * rng.normal(size=len(self._move))
    self._step = 0
    self.actions: list[np.ndarray] = []

  def __call__(self) -> np.ndarray:
    """Returns the next action, float32 [A], within the bounds."""
    settings, spec, move = self._settings, self._simulator.spec, self._move
    action = np.array(self._simulator.expert())
    start = self._simulator.observe(())[STATE][: len(move)] if spec.absolute else 0.0
    action[move] = start + self.speed * (action[move] - start)
    if self._step < self._wander:
      reach = _REACH * (spec.action_high - spec.action_low)[move] if spec.absolute else 1.0
      action = np.zeros_like(action)
      action[move] = start + self.speed * self._direction * reach
      action[list(spec.gripper)] = spec.gripper_open
    innovation = settings.noise * self._rng.normal(size=len(move))
    self._noise = (
      settings.correlation * self._noise + np.sqrt(1 - settings.correlation**2) * innovation
    )
    action[move] += self._noise
    self._step += 1
    self.actions.append(np.clip(action, spec.action_low, spec.action_high))
    return self.actions[-1]
