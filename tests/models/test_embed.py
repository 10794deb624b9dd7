"""Patches, positions, pixel orders, normalization, sizes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors
from como_jax.models import embed, pixels, sizes


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


@pytest.mark.parametrize("size, dtype", [(8, jnp.float32), (16, jnp.bfloat16)])
def test_patch_embedding_is_a_strided_convolution(size, dtype):
  module = embed.PatchEmbedding(6, 4, nn.initializers.xavier_uniform(), dtype)
  frames = jax.random.normal(jax.random.key(0), (2, size, size, 3))
  tokens, variables = module.init_with_output(jax.random.key(1), frames)
  params = variables["params"]
  assert (
    tokens.dtype == dtype
    and params["kernel"].shape == (4, 4, 3, 6)
    and params["bias"].shape == (6,)
  )
  expected = jax.lax.conv_general_dilated(
    frames, params["kernel"], (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
  ).reshape((2, -1, 6))
  np.testing.assert_allclose(
    tokens, expected, rtol=1e-5, atol=1e-5 if dtype == jnp.float32 else 0.05
  )


def test_sincos_by_hand():
  table = embed.sincos_2d(8, 3, cls=True)
  assert table.shape == (1, 10, 8) and table.dtype == np.float32
  np.testing.assert_array_equal(table[0, 0], 0)
  row, column = 1, 2
  frequencies = np.array([1.0, 1 / 100])
  expected = [
    f(position * w) for position in (column, row) for f in (np.sin, np.cos) for w in frequencies
  ]
  np.testing.assert_allclose(table[0, 1 + row * 3 + column], expected, rtol=1e-6)
  np.testing.assert_array_equal(embed.sincos_2d(8, 3, cls=False), table[:, 1:])


@pytest.mark.parametrize(
  "text, expected",
  [
    ("L/16", (1024, 24, 16, 4096, 16)),
    ("B/16", (768, 12, 12, 3072, 16)),
    ("S/16", (384, 12, 6, 1536, 16)),
    ("Ti/16", (192, 12, 3, 768, 16)),
    ("debug/8", (128, 6, 4, 512, 8)),
    ("32x2x4/8", (32, 2, 4, 128, 8)),
  ],
)
def test_sizes(text, expected):
  assert sizes.parse(text) == sizes.Size(*expected)


@pytest.mark.parametrize("text", ["L16", "XL/16", "L/x", "32x2/8", "30x2x4/8", "", "L/0"])
def test_unknown_sizes(text):
  with pytest.raises(errors.UserError, match="encoder size"):
    sizes.parse(text)


def test_image_must_be_whole_patches():
  assert sizes.parse("L/16").grid(224) == 14
  with pytest.raises(errors.UserError, match="patch 16"):
    sizes.parse("L/16").grid(225)
