"""Meta-World beside the contract of all simulators (test_simulators.py): one task as it is built,
and what was made faster.
"""

import importlib.util
import warnings

import numpy as np
import pytest

from como_jax import sim


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
