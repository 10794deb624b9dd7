"""Divergence of a sampled latent from the standard normal.

Source: AdaWorld's bottleneck (beta-VAE).
"""

from collections.abc import Mapping

import jax

from como_jax.objectives import terms


def kl(outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> terms.Terms:
  """Mean of "kl" [B, P], in nats per pair, summed over the latent dimensions."""
  terms.need(outputs, "kl", ("kl",), "set model.bottleneck.kind to 'kl'")
  return {"kl": terms.over_pairs(outputs["kl"], batch)}
