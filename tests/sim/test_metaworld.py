"""Meta-World beside the contract of all simulators (test_simulators.py): one task as it is built,
and what was made faster.
"""

import importlib.util
import warnings

import numpy as np
import pytest

from como_jax import sim
from como_jax.sim import vector


@pytest.fixture(scope="module")
def simulator():
  if importlib.util.find_spec("metaworld") is None:
    pytest.skip(f"pip install -r {sim.REQUIREMENTS['metaworld']}")
  with warnings.catch_warnings():
    warnings.simplefilter("error")  # none of Meta-World's own
    return sim.build("metaworld", "pick-place")


@pytest.mark.sim
def test_a_task_as_it_is_built(simulator):
  given = {
    name: value.tolist() if isinstance(value, np.ndarray) else value
    for name, value in vars(simulator.spec).items()
  }
  assert given == dict(
    name="metaworld/pick-place",
    robot="sawyer",
    instruction="pick up the block and hold it at the goal",
    cameras={"corner2": (128, 128), "corner": (128, 128)},
    state_names=("hand_x", "hand_y", "hand_z", "gripper_opening"),
    action_names=("delta_x", "delta_y", "delta_z", "gripper"),
    action_low=[-1] * 4,
    action_high=[1] * 4,
    fps=80.0,
    stride=1,
    max_steps=499,
    move=(0, 1, 2),
    absolute=False,
    gripper=(3,),
    gripper_open=-1.0,
    initial_states=0,
  )
  assert len(simulator._scenes._materials) == 3 and len(simulator._scenes._links) > 5, (
    "surfaces and links that a scene changes"
  )


@pytest.mark.sim
def test_touching_is_what_meta_world_says_and_the_expert_keeps_to_the_bounds(simulator):
  module, env = sim.load("metaworld"), simulator._env
  before = simulator._policy
  simulator.restart(1)
  assert simulator._policy is not before, "an expert that remembers begins anew"
  geoms, touched, actions = [env.model.geom("objGeom").id, 0], [], []
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    for _ in range(60):
      actions.append(simulator.expert())
      simulator.advance(actions[-1])
      for geom in geoms:
        touched.append(bool(env.touching_object(geom)))
        assert (
          touched[-1]
          == bool(type(env).touching_object(env, geom))
          == bool(module._touching_object(env, geom))
        )
  assert 0 < sum(touched) < len(touched) and np.abs(actions).max() == 1 and simulator.success


@pytest.mark.sim
def test_metaworld_is_seen_as_it_is():
  """A policy that is shown a worker's observations acts on the same state as a simulator in this
  process.
  """
  if importlib.util.find_spec("metaworld") is None:
    pytest.skip("pip install -r requirements-sim.txt")
  module, seen = sim.load("metaworld"), []
  settings = vector.Settings(
    cameras=("corner",), image_size=32, step_seconds=0.05, history=2, max_steps=24
  )
  chunk = np.float32([[0.5, -0.3, 0.2, 1], [-0.2, 0.4, 0.1, -1], [0.3, 0.3, -0.3, 0.5]])

  def act(waiting):
    seen.append(waiting[0].history)
    return [chunk]

  with vector.Fleet(module.build, settings, workers=1) as fleet:
    list(fleet.run([vector.Job(0, "push", 5)], act))
  simulator = module.build("push", cameras=("corner",), image_size=32)
  expected = [simulator.reset(5)]
  for action in chunk:
    for _ in range(4):
      simulator.advance(action)
    expected.append(simulator.observe())
  simulator.close()
  assert [len(history) for history in seen] == [1, 2]
  for got, want in zip([seen[0][0], *seen[1]], [expected[0], *expected[2:]], strict=False):
    np.testing.assert_array_equal(got["observation.state"], want["observation.state"])
    assert (
      np.abs(got["observation.images.corner"].astype(int) - want["observation.images.corner"]).max()
      <= 2
    )


@pytest.mark.sim
def test_metaworld_contacts_are_those_of_the_package():
  if importlib.util.find_spec("metaworld") is None:
    pytest.skip("pip install -r requirements-sim.txt")
  simulator, touched = sim.build("metaworld", "pick-place", cameras=(), image_size=32), []
  env = simulator._env
  simulator.restart(1)
  while not (simulator.success or simulator.done):
    simulator.advance(simulator.expert())
    touched.append(env.touching_object(env._get_id_main_object()))
    assert touched[-1] == type(env).touching_object(env, env._get_id_main_object())
  assert simulator.success and any(touched) and not all(touched)
