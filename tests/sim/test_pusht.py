"""The search for pushes: geometry without the package, progress with it."""

import importlib.util

import numpy as np
import pytest

from como_jax import sim
from como_jax.sim import pusht_expert

POSE = np.array([256.0, 256.0, 0.7])


def test_clearance_is_the_distance_to_the_block():
  local = np.array([(0, 15), (0, 119), (0, -20), (90, 15), (45, 60), (-15, 130)], np.float64)
  expected = [0, 0, 20, 30, 30, 10]
  np.testing.assert_allclose(pusht_expert._clearance(pusht_expert._to_board(local, POSE), POSE), expected, atol=1e-9)


def test_routes_go_around_the_block():
  start, end = pusht_expert._to_board(np.array([(0.0, -60.0), (60.0, 80.0)]), POSE)
  assert not pusht_expert._free(start, end, POSE)
  points = [start, *pusht_expert._route(start, end, POSE)]
  np.testing.assert_array_equal(points[-1], end)
  assert len(points) > 2 and all(pusht_expert._free(a, b, POSE) for a, b in zip(points, points[1:], strict=False))


def test_pushes_touch_the_block_from_outside_and_only_helpful_ones_are_chosen():
  goal, seen = POSE + [30, -20, 0.3], []

  def push(start, pose, targets):
    seen.append((start, targets))
    return pose + [*(targets[-1] - start) * 0.2, 0.0]

  pusher = pusht_expert.Pusher(push, goal, seed=0)
  pusher(np.array([100.0, 100.0]), POSE)
  starts = np.stack([start for start, _ in seen])
  clearance = pusht_expert._clearance(starts, POSE)
  assert len(seen) > 20 and clearance.min() > 16 and clearance.max() < 19.1
  chosen = pusher._targets[-1] - pusher._route[-1]
  assert chosen @ (goal - POSE)[:2] > 0


@pytest.mark.sim
def test_the_expert_moves_the_block_towards_the_goal():
  if importlib.util.find_spec("gym_pusht") is None:
    pytest.skip(f"pip install -r {sim.REQUIREMENTS['pusht']}")
  simulator = sim.build("pusht", "pusht", cameras=(), image_size=64)
  simulator.restart(3)
  before = simulator._env._get_coverage()
  for _ in range(45):
    simulator.advance(simulator.expert())
  assert simulator._env._get_coverage() > before + 0.1
