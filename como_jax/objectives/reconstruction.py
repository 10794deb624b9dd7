"""Pixel error of the predicted future frame.

Source: CoMo, arXiv 2505.17006 (MSE on normalized pixels, weight 1).
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from como_jax.objectives import terms


def reconstruction(outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> terms.Terms:
  """Mean squared error of "pixels" against "target" [B, P, H, W, 3].

  "copy_current" is logged too: the error of the current frame as the prediction. A model whose
  error is not below it has learned no motion.
  """
  terms.need(
    outputs, "reconstruction", ("pixels", "target", "current"), "use a model of kind 'motion'"
  )
  return {
    "reconstruction": terms.over_pairs(jnp.square(outputs["pixels"] - outputs["target"]), batch),
    "copy_current": terms.over_pairs(jnp.square(outputs["current"] - outputs["target"]), batch),
  }
