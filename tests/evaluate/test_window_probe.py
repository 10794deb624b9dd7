"""The network on windows about known places."""

import chex
import numpy as np

from como_jax.evaluate import window_probe
from tests.evaluate.squares import moved_squares


def test_windows_are_cut_about_their_places():
  pictures = np.arange(2 * 16 * 16 * 3).reshape(2, 16, 16, 3).astype(np.uint8)
  cut = window_probe.windows(pictures, np.array([[0.0, 0.0], [0.5, -0.26]]), 4)
  chex.assert_shape(cut.pixels, (2, 12, 12, 3))
  np.testing.assert_array_equal(cut.pixels[0], pictures[0, 2:14, 2:14])
  np.testing.assert_allclose(cut.places, [[0, 0], [0.5, -0.25]])  # the nearest whole pixel
  # up to the edge,
  np.testing.assert_array_equal(cut.pixels[1, :, 5], pictures[1, [0, 0, *range(10)], 15])
  # which goes on outside
  np.testing.assert_array_equal(cut.pixels[1, :, 11], pictures[1, [0, 0, *range(10)], 15])
  assert cut[1:].pixels.shape[0] == 1 and cut[1:].pixel == cut.pixel == 1 / 16


def test_the_way_back_is_the_way_there_turned_around():
  pictures, places, move = moved_squares(40)
  first, second = (window_probe.windows(pictures[:, k], places[:, k], 16) for k in range(2))
  probe = window_probe.fit(
    first,
    second,
    move,
    groups=np.arange(40),
    mirrored=(),
    settings={"kind": "both", "steps": 2, "seed": 0, "batch_size": 8},
  )
  there = probe.predict(first, second)
  assert np.abs(there).max() > 0
  np.testing.assert_allclose(probe.predict(second, first), -there, atol=1e-6)
