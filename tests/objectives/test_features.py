"""Errors of predicted features."""

import jax.numpy as jnp

from como_jax import objectives
from tests.objectives.means import BATCH, mean


def test_features():
  outputs = {
    "features_predicted": jnp.ones((1, 2, 4, 8)),
    "features_target": jnp.zeros((1, 2, 4, 8)),
  }
  terms = objectives.build({"features": {"weight": 1.0}})(outputs, BATCH)
  assert mean(terms["features"]) == 1
