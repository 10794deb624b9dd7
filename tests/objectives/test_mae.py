"""Errors of hidden patches."""

import jax.numpy as jnp

from como_jax import objectives
from tests.objectives.means import BATCH


def test_mae_counts_hidden_patches_only():
  target = jnp.zeros((2, 4, 6))
  patches = target.at[:, 0].set(100.0).at[:, 1].set(3.0).at[0, 2].set(1.0)
  mask = jnp.array([[0.0, 1, 1, 0], [0, 1, 0, 0]])
  objective = objectives.build({"mae": {"weight": 1.0}})
  terms = objective({"patches": patches, "target": target, "mask": mask}, BATCH)
  assert terms["mae"] == (9 + 1 + 9, 3)
  terms = objective(
    {"patches": patches, "target": target, "mask": mask}, {"valid": jnp.array([False, True])}
  )
  assert terms["mae"] == (9, 1)
