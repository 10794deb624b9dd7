"""Error of predicted features of the future frame.

Source: the second decoder of Moto, which has weight 1 there.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from como_jax.objectives import terms


def features(outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> terms.Terms:
  """Mean squared error of "features_predicted" against "features_target" [B, P, N, D]."""
  names = ("features_predicted", "features_target")
  terms.need(outputs, "features", names, "set model.fdm.features to 'direct' or 'residual'")
  return {
    "features": terms.over_pairs(
      jnp.square(outputs["features_predicted"] - outputs["features_target"]), batch
    )
  }
