"""Temporal contrastive learning (Tcl).

The latent of a motion should be similar to that of the same motion over a jittered interval (the
positive), and not to that of the reversed motion (the negative).

Legend: B batch, P pairs, L length of the whole latent z, H W image; t first frame, n offset to the
second one, d jitter (at most a fifth of n, of either sign).
Source: CoMo, CVPR version of arXiv 2505.17006; temperature from the released code.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from como_jax.objectives import terms

# ImageNet's standard deviations: a normalized channel times these is on the scale 0 to 1 again.
STD = (0.229, 0.224, 0.225)
MOVING_THRESHOLD = 0.05  # change of a channel on the scale 0 to 1


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
  """Cosine similarity over the last axis; 0 for a zero vector, with a finite gradient there."""

  def unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-12)

  return jnp.sum(unit(a) * unit(b), axis=-1)


def moving_share(outputs: Mapping[str, jax.Array]) -> jax.Array:
  """The share of moving pixels of each pair [B, P].

  A pixel moves as in evaluation (evaluate/reconstruction.py): a channel differs by more than 0.05
  of its range. The noise of a video codec is below that. As pixels are counted, a small moving
  object is not averaged away.

  Args:
    outputs: "current" and "target" [B, P, H, W, 3], normalized.
  """
  change = jnp.abs(
    outputs["target"].astype(jnp.float32) - outputs["current"].astype(jnp.float32)
  ) * jnp.asarray(STD).reshape((1, 1, 1, 1, 3))
  return jnp.mean(jnp.max(change, axis=-1) > MOVING_THRESHOLD, axis=(2, 3), dtype=jnp.float32)


def contrastive(
  outputs: Mapping[str, jax.Array],
  batch: Mapping[str, jax.Array],
  *,
  temperature: float = 0.1,
  gate: float = 0.0,
) -> terms.Terms:
  """-log( e^{S1/T} / (e^{S1/T} + e^{S2/T} + e^{S3/T}) ), without negatives from other pairs.

  S1 = cos(jittered, forward), S2 = cos(jittered, reversed), S3 = cos(forward, reversed), where
  jittered, forward and reversed are z(t, t+n+d), z(t, t+n) and z(t+n, t) [B, P, L]. The three
  similarities are logged too.

  A pair without motion reads the same in both directions, so that the term would only separate
  noise. `gate` leaves out such pairs. The share of pairs that are left out is logged as
  "contrastive_gated".

  Args:
    outputs: "z", "z_jittered", "z_reversed"; with a gate also "current" and "target".
    batch: may hold "valid" bool [B]: clips that are not valid do not count (`terms.over_pairs`).
    temperature: T.
    gate: pairs with a smaller share of moving pixels are left out; 0 leaves out none.

  Raises:
    errors.UserError: an output is missing.
  """
  terms.need(
    outputs,
    "contrastive",
    ("z", "z_jittered", "z_reversed"),
    "ask the data for jittered frames (pipeline.Layout.jitter)",
  )
  forward, jittered, reversed_ = (
    outputs[name].astype(jnp.float32) for name in ("z", "z_jittered", "z_reversed")
  )
  s1, s2, s3 = cosine(jittered, forward), cosine(jittered, reversed_), cosine(forward, reversed_)
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
