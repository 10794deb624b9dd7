"""The mean of the model's KL terms."""

import jax.numpy as jnp

from como_jax import objectives
from tests.objectives.means import BATCH, mean


def test_kl():
  terms = objectives.build({"kl": {"weight": 0.1}})({"kl": jnp.array([[3.0, 5.0]])}, BATCH)
  assert mean(terms["kl"]) == 4 and terms["kl"][1] == 2
