"""Temporal contrastive learning (Tcl): a motion resembles the same motion over a jittered interval,
not its reverse.

Legend: B batch, P pairs, Z numbers of a motion, H W image.
Source: CoMo, CVPR version of arXiv 2505.17006; temperature from the released code.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from como_jax.objectives import terms

# ImageNet's standard deviations: what a channel's range of 1 was divided by
RANGE = (0.229, 0.224, 0.225)
MOVES = 0.05  # of a channel's range


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
  """Cosine similarity over the last axis; 0 for a zero vector, with a finite gradient there."""

  def unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)

  return jnp.sum(unit(a) * unit(b), axis=-1)


def moving_share(outputs: Mapping[str, jax.Array]) -> jax.Array:
  """The share of each pair's pixels that move: "current" and "target" [B, P, H, W, 3], normalized,
  -> [B, P].

  A pixel moves as in evaluation (evaluate/reconstruction.py): some channel differs by more than
  0.05 of its range. A codec's noise stays below that, and a small object that moves counts by its
  size, not by how the mean changes.
  """
  change = jnp.abs(
    outputs["target"].astype(jnp.float32) - outputs["current"].astype(jnp.float32)
  ) * jnp.asarray(RANGE).reshape((1, 1, 1, 1, 3))
  return jnp.mean(jnp.max(change, axis=-1) > MOVES, axis=(2, 3), dtype=jnp.float32)


def contrastive(
  outputs: Mapping[str, jax.Array],
  batch: Mapping[str, jax.Array],
  *,
  temperature: float = 0.1,
  gate: float = 0.0,
) -> terms.Terms:
  """-log( e^{S1/T} / (e^{S1/T} + e^{S2/T} + e^{S3/T}) ), nothing else of the batch being a
  negative.

  S1 = cos(jittered, forward), S2 = cos(jittered, reversed), S3 = cos(forward, reversed) of z(t,
  t+n+d), z(t, t+n), z(t+n, t). The three similarities are logged beside it.

  A pair in which nothing moves is the same forward and reversed, so that the term would tell apart
  nothing but noise. Pairs with a smaller share of moving pixels than `gate` are left out of it; 0
  leaves out none. Also logged, over all pairs: "contrastive_gated", the share that is left out.
  """
  terms.need(
    outputs,
    "contrastive",
    ("z", "z_jittered", "z_reversed"),
    "ask the data for jittered frames (data.jitter)",
  )
  forward, jittered, reverse = (
    outputs[name].astype(jnp.float32) for name in ("z", "z_jittered", "z_reversed")
  )
  s1, s2, s3 = cosine(jittered, forward), cosine(jittered, reverse), cosine(forward, reverse)
  left_out = jnp.zeros(s1.shape, bool)
  if gate > 0:
    terms.need(
      outputs, "contrastive", ("current", "target"), "set objectives.contrastive.gate to 0"
    )
    left_out = moving_share(outputs) < gate
  logits = jnp.stack([s1, s2, s3], axis=-1) / temperature
  return {
    "contrastive": terms.over_pairs(
      -jax.nn.log_softmax(logits, axis=-1)[..., 0], batch, left_out=left_out
    ),
    "contrastive_gated": terms.over_pairs(left_out.astype(jnp.float32), batch),
    "similarity_jittered_forward": terms.over_pairs(s1, batch),
    "similarity_jittered_reversed": terms.over_pairs(s2, batch),
    "similarity_forward_reversed": terms.over_pairs(s3, batch),
  }
