"""What is drawn for the exam: parts, twins, and what the first pose tells of the second."""

import numpy as np

from como_jax.sim import exam_design, exam_draws
from tests.sim.small_exam import DESIGN, SETTINGS


def test_everything_that_is_drawn_fits():
  assert DESIGN.poses[..., 3].min() >= 0 and DESIGN.poses[..., 3].max() <= 1
  assert (
    np.linalg.norm(DESIGN.poses[..., :3] - exam_design.CENTER, axis=-1).max()
    <= exam_design.START_RADIUS + 2 * exam_design.MOVE_RADIUS
  )
  hand = DESIGN.tier == 0
  assert np.isnan(DESIGN.pushed[hand]).all() and np.isfinite(DESIGN.pushed[~hand]).all()


def test_parts_share_no_chain_no_scene_and_no_camera_but_where_they_say_so():
  part = DESIGN.views["part"]
  columns = {
    name: [set(values[part == kind]) for kind in range(3)] for name, values in DESIGN.views.items()
  }
  assert not columns["chain"][0] & (columns["chain"][1] | columns["chain"][2])
  assert not columns["scene"][0] & (columns["scene"][1] | columns["scene"][2])
  assert (
    not columns["camera"][0] & columns["camera"][1] and columns["camera"][2] <= columns["camera"][0]
  )
  for name in ("objects", "palette"):
    assert not columns[name][0] & columns[name][1]


def test_test_chains_are_complete_twins():
  views, part = DESIGN.views, DESIGN.views["part"]
  chains = np.unique(views["chain"][part == exam_design.TEST])
  twins = [chain for chain in chains if (views["chain"] == chain).sum() > 4]
  assert (
    len(twins) == SETTINGS.test_chains + SETTINGS.pushed_test_chains
    and len(chains) == len(twins) + SETTINGS.more_test_chains
  )
  for chain in twins:
    rows = (
      (views["chain"] == chain)
      & (part == exam_design.TEST)
      & (views["camera"] != exam_design.TEST_MOVING)
    )
    seen = set(zip(views["camera"][rows], views["scene"][rows], strict=False))
    assert len(seen) == rows.sum() == len(exam_design.TEST_CAMERAS) * len(SETTINGS.test_scenes)


def test_closed_form_of_the_second_pose():
  start, move = exam_design.START_RADIUS**2, exam_design.MOVE_RADIUS**2
  after = (start + move + start + 2 * move) / 2
  found = exam_draws.closed_form(0, samples=100_000)
  np.testing.assert_allclose(found["linear"][:3], 1 - move / after, atol=0.005)
  assert (found["conditional"] <= found["linear"] + 1e-3).all() and (
    found["conditional"] > found["linear"] - 0.05
  ).all()


def test_the_same_settings_draw_the_same_and_another_seed_does_not():
  again = exam_draws.draw(SETTINGS)
  np.testing.assert_array_equal(again.poses, DESIGN.poses)
  np.testing.assert_array_equal(again.views["scene"], DESIGN.views["scene"])
  other = exam_draws.draw(exam_design.dataclasses.replace(SETTINGS, seed=4))
  assert np.abs(other.poses - DESIGN.poses).max() > 0.01
