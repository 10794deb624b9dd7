"""Losses of the vector quantizer.

Source: van den Oord et al., arXiv 1711.00937; weighting as in TencentARC/Moto.
"""

from collections.abc import Mapping

import jax

from como_jax import errors
from como_jax.objectives import terms

# (weight of the codebook term, weight of the commitment term) from beta.
WEIGHTINGS = {
  "legacy": lambda beta: (beta, 1.0),  # as in the code of Moto
  "standard": lambda beta: (1.0, beta),  # as in the VQ-VAE paper
}


def quantization(
  outputs: Mapping[str, jax.Array],
  batch: Mapping[str, jax.Array],
  *,
  weighting: str = "legacy",
  beta: float = 0.25,
) -> terms.Terms:
  """Weighted sum of the codebook and the commitment error [B, P]; both are logged too.

  Args:
    outputs: "codebook" and "commitment".
    batch: as for `terms.over_pairs`.
    weighting: a key of `WEIGHTINGS`.
    beta: beta of the VQ-VAE.

  Raises:
    errors.UserError: unknown weighting, or a bottleneck without codes.
  """
  if weighting not in WEIGHTINGS:
    hint = errors.nearest(weighting, WEIGHTINGS)
    raise errors.UserError(f"objectives.quantization.weighting is {weighting!r}; {hint}")
  terms.need(
    outputs,
    "quantization",
    ("codebook", "commitment"),
    "set model.bottleneck.kind to 'vq' or 'pre_vq'",
  )
  codebook, commitment = WEIGHTINGS[weighting](beta)
  return {
    "quantization": terms.over_pairs(
      codebook * outputs["codebook"] + commitment * outputs["commitment"], batch
    ),
    "codebook": terms.over_pairs(outputs["codebook"], batch),
    "commitment": terms.over_pairs(outputs["commitment"], batch),
  }
