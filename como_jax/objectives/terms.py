"""The (sum, count) pairs that every objective returns.

Sums and counts are added over microbatches and hosts, and divided once at the end. So means are
exact with masks, gradient accumulation and hosts of unequal batches.

Legend: B batch, P pairs of frames of a clip, ... further axes of the value of a pair; E runs of
neighboring clips, M drawn pairs of each.
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
  weights = _weights(means.shape, batch, left_out)
  # `where` instead of a product: padding may hold values that are not finite.
  return jnp.sum(jnp.where(weights > 0, means.astype(jnp.float32), 0.0)), jnp.sum(weights)


def _weights(
  shape: tuple[int, ...], batch: Mapping[str, jax.Array], left_out: jax.Array | None
) -> jax.Array:
  """1 for each pair that counts, float32 [B, P] = `shape`; the others as for `over_pairs`."""
  weights = jnp.ones(shape, jnp.float32)
  if "valid" in batch:
    weights = weights * batch["valid"].astype(jnp.float32)[:, None]
  if left_out is not None:
    weights = jnp.where(left_out, 0.0, weights)
  return weights


def choose(values: jax.Array, drawn: jax.Array) -> jax.Array:
  """The values of drawn pairs.

  Args:
    values: of all pairs [B, P, ...].
    drawn: int [E, M]: an index counts the pairs of the B/E clips of a run.

  Returns:
    [E, M, ...].
  """
  runs = values.reshape((drawn.shape[0], -1, *values.shape[2:]))
  return jax.vmap(lambda pairs, index: pairs[index])(runs, drawn)


def over_drawn(
  values: jax.Array, batch: Mapping[str, jax.Array], *, left_out: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """`over_pairs` of all pairs, estimated from drawn ones.

  The count is that of all pairs, and the sum is scaled, so that its mean over the draws is the sum
  over all pairs, whatever is left out.

  Args:
    values: of the drawn pairs [E, M].
    batch: with "drawn" (see `choose`); may hold "valid", as for `over_pairs`.
    left_out: bool [B, P], as for `over_pairs`.
  """
  weights = _weights(left_out.shape, batch, left_out)
  chosen = choose(weights, batch["drawn"])
  scale = weights.size / chosen.size
  return scale * jnp.sum(jnp.where(chosen > 0, values, 0.0)), jnp.sum(weights)


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
