"""Sums and counts over pairs."""

import jax.numpy as jnp
import numpy as np

from como_jax import objectives
from tests.models import tiny
from tests.objectives.means import mean


def test_padding_counts_for_nothing():
  target = tiny.frames((2, 3, 4, 4))
  outputs = {"target": target, "pixels": (target + 2.0).at[1].set(jnp.nan), "current": target}
  terms = objectives.build({"reconstruction": {"weight": 1.0}})(
    outputs, {"valid": jnp.array([True, False])}
  )
  np.testing.assert_allclose(mean(terms["reconstruction"]), 4.0, rtol=1e-5)
  assert terms["reconstruction"][1] == 3
  none = objectives.build({"reconstruction": {"weight": 1.0}})(
    outputs, {"valid": jnp.array([False, False])}
  )
  assert none["reconstruction"] == (0, 0)
