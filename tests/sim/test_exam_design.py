"""The exam's design: nothing that one picture shows may tell the move."""

import chex
import numpy as np
import pytest

from como_jax import errors
from como_jax.sim import exam_design
from tests.sim.small_exam import DESIGN, SETTINGS


@pytest.mark.parametrize("tier", [0, 1])
def test_moves_have_mean_zero_and_do_not_follow_from_what_came_before(tier):
  chosen, seen, robot = exam_design.targets(DESIGN, tier)
  chex.assert_shape(
    [seen, robot], (2 * len(chosen), len(exam_design.NAMES[exam_design.TIERS[tier]]))
  )
  first = exam_design.states(DESIGN, tier, 0)
  speed, scenes = (
    DESIGN.camera_speed[chosen].reshape(-1),
    np.repeat(DESIGN.views["scene"][chosen], 2),
  )
  known = np.concatenate(
    [first, first**2, speed[:, None], scenes[:, None] == np.unique(scenes)[None, 1:]], axis=1
  )
  # all of a chain's first move, and the picture before its second
  past = np.concatenate([known[::2], seen[::2], known[1::2]], axis=1)
  past = past[:, past.std(axis=0) > 0]
  past, move = (past - past.mean(axis=0)) / past.std(axis=0), seen[1::2] / seen[1::2].std(axis=0)
  limit = 4.5 / np.sqrt(len(move))  # of a mean, and of a correlation of independent numbers
  assert np.abs(move.mean(axis=0)).max() < limit
  assert np.abs(past.T @ move / len(move)).max() < limit
  after = exam_design.states(DESIGN, tier, 1)
  # the test can fail: the place after a move does tell of it
  assert np.abs(np.corrcoef(after[:, 0], seen[:, 0])[0, 1]) > 2 * limit


def test_moves_look_the_same_along_every_axis_of_every_camera():
  chosen, seen, _ = exam_design.targets(DESIGN, 0)
  expected = exam_design.MOVE_RADIUS / np.sqrt(5) / exam_design.FIELD
  for camera in exam_design.FIT_CAMERAS:
    rows = np.repeat(DESIGN.views["camera"][chosen] == camera, 2)
    np.testing.assert_allclose(seen[rows, :3].std(axis=0), expected, rtol=0.12)


def test_only_rigs_move_and_the_camera_is_taken_out_of_the_target():
  moving = np.isin(DESIGN.views["camera"], (exam_design.FIT_MOVING, exam_design.TEST_MOVING))
  assert not DESIGN.camera_speed[~moving].any() and DESIGN.camera_shift[moving].any()
  view = int(np.flatnonzero(moving & (DESIGN.camera_speed[:, 0] == 1))[0])
  before, after = (exam_design.camera_at(DESIGN, view, picture) for picture in (0, 1))
  assert np.abs(before[0] - after[0]).max() > 1e-3
  chosen, seen, robot = exam_design.targets(DESIGN, 0)
  row = 2 * int(np.flatnonzero(chosen == view)[0])
  right, up, backward = before[1].T
  chain = DESIGN.views["chain"][view]
  move = DESIGN.poses[chain, 1, :3] - DESIGN.poses[chain, 0, :3]
  np.testing.assert_allclose(
    seen[row, :3] * exam_design.FIELD, [right @ move, -(up @ move), -(backward @ move)], atol=1e-12
  )
  np.testing.assert_allclose(robot[row, :3] * exam_design.FIELD, move, atol=1e-12)


def test_cameras_look_at_the_middle_with_equal_fields():
  for camera in range(len(exam_design.CAMERAS)):
    position, rotation, fovy = exam_design.camera_base(camera)
    toward = exam_design.CENTER - position
    np.testing.assert_allclose(rotation.T @ toward, [0, 0, -np.linalg.norm(toward)], atol=1e-9)
    np.testing.assert_allclose(
      2 * np.tan(np.radians(fovy) / 2) * np.linalg.norm(toward), exam_design.FIELD
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1)


def test_settings_are_checked():
  with pytest.raises(errors.UserError, match="exam.test_chains = 1: expected at least 2"):
    exam_design.dataclasses.replace(SETTINGS, test_chains=1)
  with pytest.raises(
    errors.UserError, match=r"scenes \[111\] are in fit_scenes and in test_scenes"
  ):
    exam_design.dataclasses.replace(SETTINGS, fit_scenes=(111,))


@pytest.mark.parametrize("tier", [0, 1])
def test_places_are_where_a_camera_sees_the_poses(tier):
  """By homogeneous coordinates and a focal length in widths, another way than the design's."""
  chosen, found = exam_design.targets(DESIGN, tier)[0], exam_design.places(DESIGN, tier)
  chex.assert_shape(found, (len(chosen), 3, 2))
  for row in (0, len(chosen) // 2, len(chosen) - 1):
    chain = DESIGN.views["chain"][chosen[row]]
    position, rotation, fovy = exam_design.camera_at(DESIGN, int(chosen[row]), 2)
    flip = np.diag([1.0, -1.0, -1.0]) @ rotation.T  # axes to the right, down and into the picture
    focal = 0.5 / np.tan(np.radians(fovy) / 2)
    point = (
      np.array([*DESIGN.pushed[chain, 2], exam_design.PUSHED_HEIGHT])
      if tier
      else DESIGN.poses[chain, 2, :3]
    )
    u, v, w = (
      np.diag([focal, focal, 1.0]) @ np.hstack([flip, (-flip @ position)[:, None]]) @ [*point, 1.0]
    )
    np.testing.assert_allclose(found[row, 2], [u / w, v / w], atol=1e-12)
  # near the picture, and not all in its middle
  assert np.abs(found).max() < 0.75 and np.abs(found).mean() > 0.05
