"""The expert of LIBERO on a point mass."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.sim import libero_expert


class PointMass:
  """A hand that moves 5 cm for an action of 1 and carries what it closed around."""

  def __init__(self):
    self.hand = np.array([0.0, 0.0, 0.3])
    self.things = {
      "milk_1": np.array([0.1, -0.05, 0.02]),
      "basket_1_contain_region": np.array([-0.1, 0.1, 0.03]),
    }
    self.shut = 0

  def advance(self, action):
    self.shut = self.shut + 1 if action[6] > 0 else 0
    if self.shut > 5 and np.linalg.norm(self.hand - self.things["milk_1"]) < 0.02:
      self.things["milk_1"] = self.things["milk_1"] + 0.05 * action[:3]
    self.hand = self.hand + 0.05 * action[:3]
    if not self.shut:
      self.things["milk_1"][2] = 0.02

  def satisfied(self, goal):
    return (
      np.linalg.norm((self.things[goal[1]] - self.things[goal[2]])[:2]) < 0.03 and not self.shut
    )


def test_the_expert_carries_a_point_mass_to_its_goal():
  world, goal = PointMass(), ["in", "milk_1", "basket_1_contain_region"]
  expert = libero_expert.PickAndPlace("toy", [goal])
  for _ in range(200):
    action = expert(world.hand, world.things.__getitem__, world.satisfied)
    assert action.shape == (7,) and np.abs(action).max() <= 1 and not action[3:6].any()
    world.advance(action)
    if world.satisfied(goal):
      break
  assert world.satisfied(goal)


def test_goals_without_an_expert_are_named():
  expert = libero_expert.PickAndPlace("libero_goal/0", [["open", "wooden_cabinet_1_middle_region"]])
  with pytest.raises(
    errors.UserError, match="libero_goal/0: no scripted expert for the goal 'open wooden_cabinet"
  ):
    expert(np.zeros(3), lambda name: np.zeros(3), lambda goal: False)
