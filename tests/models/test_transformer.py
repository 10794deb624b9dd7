"""GELU and its slope."""

import jax
import jax.numpy as jnp
import numpy as np

from como_jax.models import transformer


def test_gelu_and_its_slope():
  x = jnp.linspace(-4, 4, 41)
  np.testing.assert_allclose(transformer.gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)
  np.testing.assert_allclose(
    jax.vmap(jax.grad(transformer.gelu))(x),
    jax.vmap(jax.grad(lambda x: jax.nn.gelu(x, approximate=False)))(x),
    atol=1e-6,
  )
