"""The exam's pictures: poses are where they were asked for, whatever was looked at before."""

import importlib.util

import chex
import numpy as np
import pytest

from como_jax import sim
from como_jax.sim import exam_design
from tests.sim import small_exam

if importlib.util.find_spec("metaworld") is None:
  # not importorskip: the import ends in another error where no OpenGL backend works without MuJoCo
  pytest.skip(f"pip install -r {sim.REQUIREMENTS['metaworld']}", allow_module_level=True)
from como_jax.sim import exam_world

NOBODY = np.full(2, np.nan)
POSE = np.array([0.05, 0.62, 0.28, 0.5, 0.4])


@pytest.fixture(scope="module")
def world():
  made = exam_world.World(64)
  yield made
  made.close()


def test_the_hand_is_where_it_was_asked_for(world):
  world.render(POSE, NOBODY, exam_design.camera_base(0))
  data = world._data.body("hand")
  np.testing.assert_allclose(data.xpos, POSE[:3], atol=2e-4)
  turned = data.xmat.reshape(3, 3) @ exam_world._GRASP.T
  np.testing.assert_allclose(np.arctan2(turned[1, 0], turned[0, 0]), POSE[4], atol=2e-4)


def test_pictures_do_not_remember(world):
  world.set_appearance(101, 0, 0)
  alone = world.render(POSE, NOBODY, exam_design.camera_base(0))
  world._solved.clear()
  world.set_appearance(102, 1, 1)
  world.render(
    POSE + [0.1, -0.1, 0.05, 0.4, -0.8], np.array([0.1, 0.6]), exam_design.camera_base(3)
  )
  world.set_appearance(101, 0, 0)
  chex.assert_trees_all_equal(world.render(POSE, NOBODY, exam_design.camera_base(0)), alone)


@pytest.mark.parametrize(
  "change",
  [(0.06, 0, 0, 0, 0), (0, 0, 0, 0.4, 0), (0, 0, 0, 0, 0.9)],
  ids=["hand", "gripper", "wrist"],
)
def test_every_number_of_the_pose_is_seen(world, change):
  world.set_appearance(101, 0, 0)
  before, after = (
    world.render(pose, NOBODY, exam_design.camera_base(2)).astype(int)
    for pose in (POSE, POSE + np.array(change))
  )
  assert (np.abs(before - after).max(axis=-1) > 30).sum() > 15


def test_a_move_to_the_right_of_the_camera_moves_the_hand_right_in_the_picture(world):
  camera = exam_design.camera_base(2)
  step = 0.12 * camera[1][:, 0]
  empty = world.render(np.array([*(exam_design.CENTER - step), 0.5, 0.0]), NOBODY, camera).astype(
    int
  )
  there = world.render(np.array([*(exam_design.CENTER + step), 0.5, 0.0]), NOBODY, camera).astype(
    int
  )
  columns = (np.abs(empty - there).max(axis=-1) > 40).any(axis=0)
  expected = 2 * 0.12 / exam_design.FIELD * 64
  assert np.flatnonzero(columns)[-1] - np.flatnonzero(columns)[0] > expected


def test_appearance_and_block(world):
  one = world.set_appearance(101, 0, 0)
  looks = world.render(POSE, NOBODY, exam_design.camera_base(1)).astype(int)
  for other in ((102, 0, 0), (101, 1, 0), (101, 0, 1)):
    numbers = world.set_appearance(*other)
    assert (
      np.abs(world.render(POSE, NOBODY, exam_design.camera_base(1)).astype(int) - looks).max() > 30
    ), other
    chex.assert_shape(list(numbers.values()), (3,))
  assert np.abs(one["robot"] - world.set_appearance(101, 0, 1)["robot"]).max() > 0.01
  world.set_appearance(101, 0, 0)
  assert (
    np.abs(
      world.render(POSE, np.array([0.0, 0.55]), exam_design.camera_base(1)).astype(int) - looks
    ).max()
    > 60
  )


def test_a_pose_out_of_reach_is_refused(world):
  with pytest.raises(RuntimeError, match="does not reach"):
    world.render(np.array([3.0, 0.6, 0.3, 0.5, 0.0]), NOBODY, exam_design.camera_base(0))


def test_a_view_is_filmed_in_its_own_looks(world):
  design = small_exam.DESIGN
  view = int(np.flatnonzero(design.camera_speed[:, 0] == 1)[0])
  pictures, numbers = world.film(design, view)
  chain, scene, objects, palette = (
    int(design.views[name][view]) for name in ("chain", "scene", "objects", "palette")
  )
  looks = world.set_appearance(scene, objects, palette)
  for picture, found in enumerate(pictures):
    camera = exam_design.camera_at(design, view, picture)
    expected = world.render(design.poses[chain, picture], design.pushed[chain, picture], camera)
    chex.assert_trees_all_equal(found, expected)
  position = exam_design.camera_at(design, view, 0)[0]
  chex.assert_trees_all_equal(numbers, looks | {"camera": position - exam_design.CENTER})
