"""Parts that text encoders share: masks, means, activations."""

import jax.numpy as jnp
import numpy as np

from como_jax.models.text import bert, layers


def test_means_of_texts():
  tokens = jnp.arange(12.0).reshape((2, 3, 2))
  np.testing.assert_array_equal(
    layers.mean(tokens, jnp.array([[True, True, False], [False, False, False]])), [[1, 2], [0, 0]]
  )
  np.testing.assert_array_equal(bert.POOLING["cls"](tokens, None), [[0, 1], [6, 7]])
  mask = layers.attend_to(jnp.array([[True, False, True]]))
  assert mask.shape == (1, 1, 3, 3) and mask[0, 0].tolist() == [[True, False, True]] * 3
  x = jnp.array([-2.0, 0.5, 3.0])
  np.testing.assert_allclose(
    layers.ACTIVATIONS["quick_gelu"](x), x / (1 + np.exp(-1.702 * x)), rtol=1e-5
  )
  assert (
    float(jnp.abs(layers.ACTIVATIONS["gelu"](x) - layers.ACTIVATIONS["gelu_new"](x)).max()) > 1e-5
  )
  np.testing.assert_allclose(layers.ACTIVATIONS["silu"](x), x / (1 + np.exp(-x)), rtol=1e-5)
