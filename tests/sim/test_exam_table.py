"""The arrays of a set that the design decides, in the order of its pictures."""

import chex
import numpy as np
import pytest

from como_jax.sim import exam_design, exam_table
from tests.sim.small_exam import DESIGN


@pytest.mark.parametrize("tier", [0, 1])
def test_every_array_is_in_the_order_of_the_views(tier):
  views, arrays = exam_table.table(DESIGN, tier)
  name = exam_design.TIERS[tier]
  chosen, seen, robot = exam_design.targets(DESIGN, tier)
  assert sorted(views) == list(chosen) and list(views) != list(chosen)
  for column, values in DESIGN.views.items():
    np.testing.assert_array_equal(arrays[column], values[views])
  np.testing.assert_array_equal(arrays["camera_speed"], DESIGN.camera_speed[views])
  assert tuple(arrays["names"]) == exam_design.NAMES[name]
  assert tuple(arrays["names_robot"]) == exam_design.ROBOT_NAMES[name]
  chex.assert_shape(arrays["limit"], (len(exam_design.NAMES[name]),))
  states = {
    f"state{frame}/{side}": exam_design.states(DESIGN, tier, picture, camera=not frame)
    for frame in ("", "_robot")
    for picture, side in enumerate(("first", "second"))
  }
  for key, values in {"target": seen, "target_robot": robot, **states}.items():
    of_views = values.reshape(len(chosen), 2, -1)[np.searchsorted(chosen, views)]
    np.testing.assert_array_equal(arrays[key], of_views.reshape(len(values), -1))
  places = exam_design.places(DESIGN, tier)[np.searchsorted(chosen, views)]
  np.testing.assert_array_equal(arrays["place"], places.astype(np.float16))


def test_parts_stand_together_then_scenes_then_cameras():
  _, arrays = exam_table.table(DESIGN, 0)
  keys = list(zip(*(arrays[name] for name in ("part", "scene", "camera")), strict=True))
  assert keys == sorted(keys)
