"""Which picture is which row of z, and pictures that are shifted together."""

import numpy as np

from como_jax.exam import pictures


def test_rows_of_z_are_the_pairs_of_a_view_in_order():
  numbers = np.arange(12.0).reshape(4, 3)
  found = pictures.latents(lambda a, b: 100 * a[:, None] + b[:, None], numbers)
  assert found["z"][:4, 0].tolist() == [1, 102, 304, 405]
  assert found["z_ba"][:2, 0].tolist() == [100, 201]
  assert found["z_ac"][:2, 0].tolist() == [2, 305] and found["z_aa"][:2, 0].tolist() == [0, 303]
  assert "z_shifted" not in found
  found = pictures.latents(lambda a, b: 100 * a[:, None] + b[:, None], numbers, 1 + numbers[:, :2])
  assert found["z_shifted"][:2, 0].tolist() == [102, 405]


def test_shifted_pictures_move_together_and_repeat_their_edges():
  frames = np.random.default_rng(0).integers(0, 255, size=(6, 3, 32, 32, 3)).astype(np.uint8)
  frames[:, 1] = 255 - frames[:, 0]
  found = pictures.shifted(frames)
  assert found.shape == (6, 2, 32, 32, 3)
  np.testing.assert_array_equal(found[:, 1], 255 - found[:, 0])
  for view, (down, right) in enumerate([(2, 2), (2, -2), (-2, 2), (-2, -2), (2, 2)]):
    rows, columns = (np.clip(np.arange(32) - by, 0, 31) for by in (down, right))
    np.testing.assert_array_equal(found[view, 0], frames[view, 0][rows][:, columns])
  np.testing.assert_array_equal(pictures.shifted(frames[3:], np.arange(3, 6)), found[3:])


def test_a_sample_of_the_pairs_to_fit_on_is_spread_over_them():
  part = np.repeat([1, 0], [10, 6_000])
  made = pictures.Pictures(None, None, None, {"part": part})
  sample = made.fit_sample
  np.testing.assert_array_equal(sample, np.arange(20, 12_020, 3))
  few = pictures.Pictures(None, None, None, {"part": part[:20]})
  np.testing.assert_array_equal(few.fit_sample, np.arange(20, 40))
