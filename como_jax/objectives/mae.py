"""Masked autoencoding: error on the masked patches only.

Legend: B batch, N patches, P pixel values of a patch.
Source: He et al., arXiv 2111.06377.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from como_jax.objectives import terms


def mae(outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> terms.Terms:
  """Mean squared error of "patches" against "target" [B, N, P], over patches with "mask" [B, N] 1.

  The sum is over masked patches, and the count is their number. Frames with `batch["valid"]` False
  are left out of both.
  """
  terms.need(outputs, "mae", ("patches", "target", "mask"), "use a model of kind 'mae'")
  error = jnp.mean(jnp.square(outputs["patches"] - outputs["target"]), axis=-1)
  mask = outputs["mask"]
  if "valid" in batch:
    mask = mask * batch["valid"].astype(mask.dtype)[:, None]
  return {"mae": (jnp.sum(jnp.where(mask > 0, error * mask, 0.0)), jnp.sum(mask))}
