"""Components of the tokens of an exam's pictures."""

import numpy as np

from como_jax.evaluate import exam_components
from tests.exam import made_set


def test_components_of_what_moves_leave_camera_and_scene_out():
  pictures = made_set.pictures()
  found = exam_components.moving(pictures)
  test = pictures.table["part"] == 1
  assert found.shape == (test.sum(), 3, exam_components.MOVING) and found.dtype == np.float16
  key = 1000 * pictures.table["camera"][test] + pictures.table["scene"][test]
  for one in np.unique(key):
    assert np.abs(found[key == one].mean(axis=(0, 1), dtype=np.float64)).max() < 1e-3
  # 8 is exact
  look = pictures.tokens + np.float16(8) * (pictures.table["scene"][:, None, None, None] % 4)
  same = exam_components.moving(pictures._replace(tokens=look))
  np.testing.assert_allclose(np.abs(same), np.abs(found), atol=0.05)
  flat = pictures.tokens.reshape(*pictures.tokens.shape[:2], -1)
  wanted = made_set.moving(pictures.table, flat.astype(np.float64))
  # signs of components are arbitrary
  np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=0.01)


def test_components_leave_out_directions_of_rounding():
  rng = np.random.default_rng(0)
  fit = (rng.normal(size=(40, 5)) @ rng.normal(size=(5, 200))).astype(np.float32)
  assert exam_components.components(fit, 32)(fit).shape == (40, 5)
