"""(sum, count) pairs: what every objective returns, so that masks, accumulation and uneven hosts
divide once, at the end.

Legend: B batch, P pairs of frames of a clip, ... the axes of one pair's value.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from como_jax import errors

Terms = dict[str, tuple[jax.Array, jax.Array]]


def over_pairs(
  values: jax.Array, batch: Mapping[str, jax.Array], *, left_out: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Sum over pairs of each pair's mean, and the number of pairs; clips with `batch["valid"]` False
  count for neither.

  Args:
    values: [B, P, ...].
    batch: may hold "valid" bool [B] (the padding of a last batch).
    left_out: bool [B, P], pairs that count for neither.
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
  # where, not a product: a value that is not finite in padding must not leak.
  return jnp.sum(jnp.where(weights > 0, means.astype(jnp.float32), 0.0)), jnp.sum(weights)


def need(
  outputs: Mapping[str, jax.Array], objective: str, names: tuple[str, ...], hint: str
) -> None:
  """Checks that the model returned what an objective reads.

  Raises:
    errors.UserError: naming the objective, the first missing output and what to change.
  """
  for name in names:
    if name not in outputs:
      raise errors.UserError(
        f"objective {objective!r} reads the model's output {name!r}, which is not there: {hint}"
      )
