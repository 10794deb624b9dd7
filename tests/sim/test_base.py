"""What all simulators share, over the toy one: success that lasts, held and clipped actions, the
limit, what a look costs.
"""

import numpy as np
import pytest

from como_jax import errors
from como_jax.observations import IMAGE, STATE, TASK
from como_jax.sim import base
from tests.sim import toys

PUSH, BACK = np.float32([1, 0]), np.float32([-1, 0])


def toy(*, stride=1, max_steps=200, task="line", speed=1.0):
  return toys.Toy(task, ("front",), 8, speed, stride=stride, max_steps=max_steps)


def test_success_is_having_been_there_and_not_being_there_at_the_end():
  one = toy()
  one.reset(99)  # at 0.99; the goal is 1
  one.advance(PUSH)
  assert one.success
  for _ in range(5):
    one.advance(BACK)
  assert one.observe()[STATE][0] == pytest.approx(0.95) and one.success
  one.restart(0)
  assert not one.success
  one.advance(PUSH)
  assert not one.success


def test_an_action_is_clipped_and_held_for_the_stride():
  one = toy(stride=4)
  one.reset(10)
  seen = one.step(np.array([5.0, 0.0]))  # float64 and out of bounds
  # one look after four steps
  assert seen[STATE].dtype == np.float32 and seen[STATE].tolist() == pytest.approx([0.14, 2])
  assert one.step(-50 * PUSH)[STATE][0] == pytest.approx(0.10)


def test_an_episode_ends_in_the_middle_of_a_held_action_and_needs_a_reset():
  one = toy(stride=4, max_steps=6)
  assert not one.success and not one.done
  with pytest.raises(
    RuntimeError, match=r"^toy/line: call reset before stepping \(after 0 control steps\)$"
  ):
    one.advance(PUSH)
  one.reset(0)
  assert one.step(PUSH)[STATE][0] == pytest.approx(0.04) and not one.done
  assert one.step(PUSH)[STATE][0] == pytest.approx(0.06) and one.done and not one.success
  with pytest.raises(RuntimeError, match=r"call reset before stepping \(after 6 control steps\)"):
    one.advance(PUSH)
  one.restart(0)
  assert not one.done


def test_observations_hold_the_cameras_asked_for_and_the_scene():
  one = toy()
  seen = one.reset(7)
  assert set(seen) == {STATE, TASK, IMAGE + "front"} and seen[TASK] == "go to one"
  assert seen[IMAGE + "front"][1, 1, 0] == 100, "the scene given to build"
  assert set(one.observe(())) == {STATE, TASK}
  assert one.reset(7, scene=2)[IMAGE + "front"][1, 1, 0] == 200
  assert one.reset(7)[IMAGE + "front"][1, 1, 0] == 100, "a scene is asked for once"


def test_a_seed_chooses_one_of_the_fixed_initial_states():
  one = toy()
  assert [one.initial_state(seed) for seed in (0, 49, 50, 123)] == [0, 49, 0, 23]
  one.spec = toys.Toy("line", (), 8, 1.0, initial_states=0).spec
  assert one.initial_state(3) == -1


def test_a_hand_of_three_dimensions_and_a_gripper_is_usual():
  one = base.Spec("a/b", "arm", "go", {}, (), (), np.zeros(4), np.ones(4), 10.0, 1, 5)
  assert (one.move, one.absolute, one.gripper, one.gripper_open, one.initial_states) == (
    (0, 1, 2),
    False,
    (3,),
    -1.0,
    0,
  )


@pytest.mark.parametrize(
  "task, cameras, stride, message",
  [
    ("lime", (), 1, "toy task 'lime' is unknown: did you mean 'line'"),
    ("line", ("frnt",), 1, "toy camera 'frnt' is unknown: did you mean 'front'"),
    ("line", ("front",), 0, "stride = 0: expected a number of control steps >= 1"),
  ],
)
def test_unknown_names_are_refused(task, cameras, stride, message):
  with pytest.raises(errors.UserError, match=message):
    base.check("toy", task, toys.TASKS, cameras, toys.CAMERAS, stride)
  base.check("toy", "line", toys.TASKS, ("front",), toys.CAMERAS, 1)


def test_a_simulator_that_lacks_a_part_is_refused():
  class Half(toys.Toy):
    _frame = base.Stepper._frame

  with pytest.raises(TypeError, match="_frame"):
    Half("line", (), 8, 1.0)
