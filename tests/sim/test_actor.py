"""How an expert is disturbed: noise, speed and wandering."""

import dataclasses

import numpy as np
import pytest

from como_jax.observations import STATE
from como_jax.sim import actor, base
from tests.sim.collection import SETTINGS


class Still:
  """A simulator that only has an expert: full speed ahead, gripper shut."""

  def __init__(self, **spec):
    low = np.array(spec.pop("low"), np.float32)
    self.spec = base.Spec(
      name="still",
      robot="none",
      instruction="",
      cameras={},
      state_names=(),
      action_names=(),
      action_low=low,
      action_high=np.array(spec.pop("high"), np.float32),
      fps=10.0,
      stride=1,
      max_steps=9,
      **spec,
    )

  def observe(self, cameras):
    assert cameras == ()
    return {STATE: np.array([100.0, 200.0], np.float32)}

  def expert(self):
    return self.spec.action_high.copy()


def test_disturbances_spare_rotation_and_gripper():
  simulator = Still(low=[-1] * 7, high=[1] * 7, move=(0, 1, 2), gripper=(6,))
  act = actor.Actor(
    dataclasses.replace(SETTINGS, noise=0.05, speed=(0.5, 0.5), wander=(3, 3)), simulator, seed=0
  )
  actions = np.stack([act() for _ in range(30)])
  np.testing.assert_array_equal(actions[:3, 3:], [[0, 0, 0, -1]] * 3)
  np.testing.assert_array_equal(actions[3:, 3:], 1)
  assert np.abs(actions[3:, :3].mean() - 0.5) < 0.05 and actions[3:, :3].std() > 0.01
  assert np.array_equal(act.actions, actions)


def test_disturbances_of_positions_start_where_the_hand_is():
  simulator = Still(low=[0, 0], high=[512, 512], move=(0, 1), absolute=True, gripper=())
  act = actor.Actor(
    dataclasses.replace(SETTINGS, noise=0.0, speed=(0.5, 0.5), wander=(1, 1)), simulator, seed=0
  )
  wander, ahead = act(), act()
  assert np.linalg.norm(wander - [100, 200]) == pytest.approx(0.5 * actor._REACH * 512, rel=1e-4)
  np.testing.assert_allclose(ahead, [306, 356])


def test_disturbances_are_drawn_from_the_seed():
  """Speed, wandering and its direction first; the noise has one standard deviation from the first
  step on and is correlated in time.
  """
  simulator = Still(low=[-9] * 4, high=[9] * 4)
  settings = dataclasses.replace(
    SETTINGS, noise=0.5, correlation=0.8, speed=(0.2, 0.9), wander=(2, 5)
  )
  act, draw = actor.Actor(settings, simulator, 11), np.random.default_rng(11)
  speed, wander = draw.uniform(0.2, 0.9), draw.integers(2, 6)
  direction = draw.normal(size=3)
  noise = 0.5 * draw.normal(size=3)
  assert act.speed == speed and 2 <= wander <= 5
  for step in range(8):
    noise = 0.8 * noise + 0.6 * 0.5 * draw.normal(size=3)
    move = speed * direction / np.linalg.norm(direction) if step < wander else np.full(3, 9 * speed)
    expected = np.append(np.clip(move + noise, -9, 9), -1 if step < wander else 9)
    action = act()
    np.testing.assert_allclose(action, expected, atol=1e-6)
    assert action is act.actions[-1] and action.dtype == np.float32
  assert len(act.actions) == 8


def test_the_longest_and_the_shortest_wandering_occur():
  simulator, settings = (
    Still(low=[-1] * 4, high=[1] * 4),
    dataclasses.replace(SETTINGS, wander=(1, 3)),
  )
  assert {actor.Actor(settings, simulator, seed)._wander for seed in range(40)} == {1, 2, 3}
