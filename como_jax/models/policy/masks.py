"""Who attends to whom in the autoregressive policy.

Legend: B batch, P context tokens, M future motions, q tokens of a motion, K action queries, S = P +
M*(1+q) + K.
"""

import jax
import jax.numpy as jnp
import numpy as np


def layout(prefix: int, motions: int, tokens: int, actions: int, *, causal: bool) -> np.ndarray:
  """Who may attend to whom if everything is valid and shown: bool [S, S], S = P + M*(1+q) + K."""
  size, end = prefix + motions * (1 + tokens) + actions, prefix + motions * (1 + tokens)
  allowed = np.tril(np.ones((size, size), bool))
  if not causal:
    allowed[:prefix, :prefix] = True
  allowed[:, end:] = False
  return allowed


def attention_mask(
  allowed: np.ndarray,
  context_mask: jax.Array,
  motion_mask: jax.Array,
  hidden: jax.Array,
  tokens: int,
) -> jax.Array:
  """The layout for a batch.

  Args:
    allowed: as from `layout`.
    context_mask: bool [B, P].
    motion_mask: bool [B, M], which motions are there.
    hidden: bool [B], whose action queries see no motion.
    tokens: q.

  Returns:
    bool [B, 1, S, S]. A token that nobody may attend to still attends to itself (rows must not be
    empty), but for action queries, which always have the context.
  """
  prefix, size = context_mask.shape[1], allowed.shape[0]
  motion = jnp.repeat(motion_mask, 1 + tokens, axis=1)
  end = prefix + motion.shape[1]
  columns = jnp.concatenate(
    [context_mask, motion, jnp.zeros((motion.shape[0], size - end), bool)], axis=1
  )
  rows, place = np.arange(size) >= end, np.arange(size)
  blind = (
    jnp.asarray(rows[:, None] & ((place >= prefix) & (place < end))[None])[None]
    & hidden[:, None, None]
  )
  itself = jnp.asarray(np.eye(size, dtype=bool) & ~rows[:, None])[None]
  return (jnp.asarray(allowed)[None] & columns[:, None] & ~blind | itself)[:, None]
