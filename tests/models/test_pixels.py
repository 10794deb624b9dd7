"""Normalization, and the orders of pixels in patches."""

import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.models import pixels


def test_normalize_round_trip_and_refusal():
  frames = jnp.arange(2 * 4 * 4 * 3, dtype=jnp.uint8).reshape((2, 4, 4, 3))
  normal = pixels.normalize(frames)
  assert normal.dtype == jnp.float32
  np.testing.assert_allclose(normal[0, 0, 0, 0], (0 / 255 - 0.485) / 0.229, rtol=1e-6)
  np.testing.assert_allclose(pixels.denormalize(normal) * 255, frames, atol=1e-3)
  with pytest.raises(TypeError, match="uint8"):
    pixels.normalize(normal)


def test_patch_orders():
  frame = jnp.arange(4 * 4 * 3).reshape((1, 4, 4, 3))
  patches = pixels.patchify(frame, 2)
  assert patches.shape == (1, 4, 12)
  # the second patch lies to the right
  np.testing.assert_array_equal(patches[0, 1], frame[0, :2, 2:].reshape(-1))
  np.testing.assert_array_equal(pixels.unpatchify(patches, 2), frame)
  shuffled = patches.reshape((1, 4, 2, 2, 3)).transpose((0, 1, 4, 2, 3)).reshape((1, 4, 12))
  np.testing.assert_array_equal(pixels.pixel_shuffle(shuffled, 2), frame)
  with pytest.raises(ValueError, match="square"):
    pixels.unpatchify(patches[:, :3], 2)


def test_colors_beyond_the_range_are_clipped():
  wild = pixels.denormalize(jnp.array([[[-9.0, 0.0, 9.0]]]))
  np.testing.assert_allclose(wild, [[[0, 0.456, 1]]], rtol=1e-6)
  assert pixels._side(49) == 7
