"""Attention masks of the autoregressive policy.

Legend: B batch, P context tokens, M future motions, q tokens of a motion, K action queries, S = P +
M*(1+q) + K.
"""

import jax
import jax.numpy as jnp
import numpy as np


def layout(prefix: int, motions: int, tokens: int, actions: int, *, causal: bool) -> np.ndarray:
  """The attention mask if everything is valid and visible: bool [S, S].

  Args:
    prefix: P.
    motions: M.
    tokens: q.
    actions: K.
    causal: whether attention within the context is causal.
  """
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
  """The attention mask of a batch.

  Args:
    allowed: as from `layout`.
    context_mask: bool [B, P].
    motion_mask: bool [B, M], False for a missing motion.
    hidden: bool [B], True where the action queries see no motion.
    tokens: q.

  Returns:
    bool [B, 1, S, S]. A masked token still attends to itself, so that no row is empty. Action
    queries do not: they always have the context.
  """
  prefix, size = context_mask.shape[1], allowed.shape[0]
  motion = jnp.repeat(motion_mask, 1 + tokens, axis=1)
  end = prefix + motion.shape[1]
  columns = jnp.concatenate(
    [context_mask, motion, jnp.zeros((motion.shape[0], size - end), bool)], axis=1
  )
  rows, index = np.arange(size) >= end, np.arange(size)
  blind = (
    jnp.asarray(rows[:, None] & ((index >= prefix) & (index < end))[None])[None]
    & hidden[:, None, None]
  )
  itself = jnp.asarray(np.eye(size, dtype=bool) & ~rows[:, None])[None]
  return (jnp.asarray(allowed)[None] & columns[:, None] & ~blind | itself)[:, None]
