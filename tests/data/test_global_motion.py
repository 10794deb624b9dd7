"""The motion of the whole picture."""

import numpy as np
from PIL import Image

from como_jax.data import global_motion
from tests.data.filmed import HEIGHT, WIDTH, canvas, view


def test_registration_finds_large_moves_from_no_guess():
  picture = canvas(3)
  small = [
    np.asarray(
      Image.fromarray(view(picture, x, 120)).resize((64, 64), Image.Resampling.BOX).convert("L"),
      np.float32,
    )
    for x in (120, 170)
  ]
  found = global_motion.register(*map(global_motion.Thumbnail, small), HEIGHT / WIDTH, np.zeros(4))
  np.testing.assert_allclose(found.motion, [-50 / WIDTH, 0, 0, 0], atol=0.01)
  assert found.agreement > 0.8


def test_large_moves_are_found_in_pictures_whose_correlation_has_several_peaks():
  for seed, moved in ((9, 62), (14, 56), (15, 44), (16, 50), (19, 62)):
    views = (Image.fromarray(view(canvas(seed), x, 120)) for x in (110, 110 + moved))
    small = [
      np.asarray(one.resize((64, 64), Image.Resampling.BOX).convert("L"), np.float32)
      for one in views
    ]
    found = global_motion.register(
      *map(global_motion.Thumbnail, small), HEIGHT / WIDTH, np.zeros(4)
    )
    np.testing.assert_allclose(found.motion, [-moved / WIDTH, 0, 0, 0], atol=0.01)
