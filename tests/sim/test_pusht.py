"""Boards of PushT: facts, scenes, a push in the copy, and progress of the expert."""

import importlib.util

import numpy as np
import pytest

from como_jax import sim
from como_jax.observations import IMAGE, STATE


@pytest.fixture(scope="module")
def pusht():
  if importlib.util.find_spec("gym_pusht") is None:
    pytest.skip(f"pip install -r {sim.REQUIREMENTS['pusht']}")
  return sim.load("pusht")


@pytest.mark.sim
def test_a_board_is_that_of_published_data(pusht):
  spec = pusht.build().spec
  given = {
    name: value.tolist() if isinstance(value, np.ndarray) else value
    for name, value in vars(spec).items()
  }
  assert given == dict(
    name="pusht/pusht",
    robot="pusht",
    instruction="push the T-shaped block onto the T-shaped goal",
    cameras={"top": (96, 96)},
    state_names=("agent_x", "agent_y"),
    action_names=("target_x", "target_y"),
    action_low=[0, 0],
    action_high=[512, 512],
    fps=10.0,
    stride=1,
    max_steps=300,
    move=(0, 1),
    absolute=True,
    gripper=(),
    gripper_open=-1.0,
    initial_states=0,
  )
  assert spec.action_low.dtype == spec.action_high.dtype == np.float32


@pytest.mark.sim
def test_a_push_in_the_copy_is_that_of_the_board(pusht):
  simulator = pusht.build(image_size=64)
  simulator.restart(3)
  env = simulator._env
  disc, pose = np.array(env.agent.position), np.array([*env.block.position, env.block.angle])
  assert simulator.observe(())[STATE].tolist() == disc.tolist()
  targets = disc + np.linspace(0.2, 1.3, 12)[:, None] * (pose[:2] - disc)  # right through the block
  copy = pusht._Copy()
  copy.push(disc + 50, pose + [20, 30, 1.0], targets[::-1])  # what was tried before does not matter
  found = copy.push(disc, pose, targets)
  for target in targets:
    simulator.advance(target)
  np.testing.assert_allclose(found, [*env.block.position, env.block.angle], atol=1e-4)
  assert np.linalg.norm(found - pose) > 20


@pytest.mark.sim
def test_a_scene_has_the_colors_of_its_number(pusht):
  first = {
    "background": (150, 197, 199),
    "goal": (220, 225, 157),
    "block": (65, 119, 79),
    "agent": (112, 97, 184),
  }
  assert pusht._colors(0) == {} and pusht._colors(1) == first
  simulator = pusht.build(image_size=64)

  def counts(scene):
    frame = simulator.reset(3, scene=scene)[IMAGE + "top"].reshape(-1, 3)
    return {
      color: int((frame == color).all(axis=-1).sum())
      for color in ((255, 255, 255), (144, 238, 144), *first.values())
    }

  own, other = list(counts(0).values()), list(counts(1).values())
  assert own[0] > 3000 and own[1] > 50 and own[2:] == [0] * 4, "white and green"
  assert other[:4] == [0, 0, *own[:2]] and min(other[4:]) > 0
  assert list(counts(0).values()) == own


@pytest.mark.sim
def test_the_expert_moves_the_block_towards_the_goal(pusht):
  simulator = sim.build("pusht", "pusht", cameras=(), image_size=64)
  simulator.restart(3)
  before = simulator._env._get_coverage()
  for _ in range(45):
    simulator.advance(simulator.expert())
  assert simulator._env._get_coverage() > before + 0.1


@pytest.mark.sim
def test_the_expert_needs_an_episode(pusht):
  with pytest.raises(RuntimeError, match="^pusht/pusht: call reset before expert$"):
    pusht.build().expert()
