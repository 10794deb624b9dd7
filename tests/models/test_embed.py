"""Patches and positions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.models import embed


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
