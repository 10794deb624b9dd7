"""The (sum, count) pairs that every objective returns.

Sums and counts are added over microbatches and hosts, and divided once at the end. So means are
exact with masks, gradient accumulation and hosts of unequal batches.

Legend: B batch, P pairs of frames of a clip, ... further axes of the value of a pair.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from como_jax import errors

Terms = dict[str, tuple[jax.Array, jax.Array]]


def over_pairs(
  values: jax.Array, batch: Mapping[str, jax.Array], *, left_out: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Sum over pairs of the mean of each pair, and the number of pairs.

  Args:
    values: [B, P, ...].
    batch: may hold "valid" bool [B]; clips that are not valid (padding of the last batch) are left
      out of both.
    left_out: pairs that are left out of both, bool [B, P].
  """
  means = (
    jnp.mean(values.astype(jnp.float32), axis=tuple(range(2, values.ndim)))
    if values.ndim > 2
    else values
  )
  weights = jnp.ones(means.shape, jnp.float32)
  if "valid" in batch:
    weights = weights * batch["valid"].astype(jnp.float32)[:, None]
  if left_out is not None:
    weights = jnp.where(left_out, 0.0, weights)
  # `where` instead of a product: padding may hold values that are not finite.
  return jnp.sum(jnp.where(weights > 0, means.astype(jnp.float32), 0.0)), jnp.sum(weights)


def need(
  outputs: Mapping[str, jax.Array], objective: str, names: tuple[str, ...], hint: str
) -> None:
  """Checks that the model returned the outputs that an objective needs.

  Args:
    outputs: outputs of the model.
    objective: name of the objective.
    names: names of the outputs.
    hint: what the user should change.

  Raises:
    errors.UserError: an output is missing; the message names the objective, the first missing
      output and the hint.
  """
  for name in names:
    if name not in outputs:
      raise errors.UserError(
        f"objective {objective!r} reads the model's output {name!r}, which is not there: {hint}"
      )
