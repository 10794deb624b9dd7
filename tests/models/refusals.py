"""Whether a function refuses inputs of other shapes."""

import jax
import jax.numpy as jnp
import pytest


def shape(*sides, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(sides, dtype)


def refused(function, *given):
  with pytest.raises(AssertionError, match="(?i)assert"):
    jax.eval_shape(function, *given)
