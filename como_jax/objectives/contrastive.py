"""Temporal contrastive learning (Tcl): a motion resembles the same motion over a jittered interval, not its reverse.

Legend: B batch, P pairs, Z numbers of a motion. 
Source: CoMo, CVPR version of arXiv 2505.17006; temperature from the released code.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from como_jax.objectives import sums


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
  """Cosine similarity over the last axis; 0 for a zero vector, with a finite gradient there."""
  def unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)
  return jnp.sum(unit(a) * unit(b), axis=-1)


def contrastive(outputs: Mapping[str, jax.Array], batch: Mapping[str, jax.Array], *,
                temperature: float = 0.1) -> sums.Terms:
  """-log( e^{S1/T} / (e^{S1/T} + e^{S2/T} + e^{S3/T}) ), nothing else of the batch being a negative.

  S1 = cos(jittered, forward), S2 = cos(jittered, reversed), S3 = cos(forward, reversed) of z(t, t+n+d), z(t, t+n),
  z(t+n, t). The three similarities are logged beside it.
  """
  sums.need(outputs, "contrastive", ("z", "z_jittered", "z_reversed"), "ask the data for jittered frames (data.jitter)")
  forward, jittered, reverse = (outputs[name].astype(jnp.float32) for name in ("z", "z_jittered", "z_reversed"))
  s1, s2, s3 = cosine(jittered, forward), cosine(jittered, reverse), cosine(forward, reverse)
  logits = jnp.stack([s1, s2, s3], axis=-1) / temperature
  return {
      "contrastive": sums.over_pairs(-jax.nn.log_softmax(logits, axis=-1)[..., 0], batch),
      "similarity_jittered_forward": sums.over_pairs(s1, batch),
      "similarity_jittered_reversed": sums.over_pairs(s2, batch),
      "similarity_forward_reversed": sums.over_pairs(s3, batch),
  }
