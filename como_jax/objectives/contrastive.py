"""Temporal contrastive learning (Tcl).

The latent of a motion should be similar to that of the same motion over a jittered interval (the
positive), and not to that of the reversed motion (the negative).

Legend: B batch, P pairs, L = Q*Z numbers of a latent z, H W image; t first frame, n offset to the
second one, d jitter (at most a fifth of n, of either sign); E runs of neighboring clips, M drawn
pairs of each.
Source: CoMo, CVPR version of arXiv 2505.17006; temperature from the released code.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from como_jax.objectives import terms

# ImageNet's standard deviations: a normalized channel times these is on the scale 0 to 1 again.
STD = (0.229, 0.224, 0.225)
MOVING_THRESHOLD = 0.05  # change of a channel on the scale 0 to 1
_DRAW = 0x7C1  # folded into a step's key, whose other uses do not change


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


def draw(
  batch: Mapping[str, jax.Array], key: jax.Array, *, fraction: float = 1.0
) -> Mapping[str, jax.Array]:
  """Draws the pairs that Tcl reads in this step; the others have no reversed and jittered pairs.

  The same number is drawn of every clip. Where that would be less than one pair, one or more are
  drawn of every run of neighboring clips, as short as possible.

  Args:
    batch: with "jittered" or "jittered_tokens" [B, P, ...]; without either nothing is drawn.
    key: of the step.
    fraction: of the pairs, 0 to 1 (all); rounded to whole pairs of a clip or run.

  Returns:
    The batch, with "drawn" int32 [E, M] where not all pairs are read (see `terms.choose`).
  """
  name = next((name for name in ("jittered", "jittered_tokens") if name in batch), None)
  if name is None or fraction >= 1:
    return batch
  size, count = batch[name].shape[:2]
  clips = next((n for n in range(1, size) if size % n == 0 and fraction * count * n >= 1), size)
  pairs, number = count * clips, max(1, round(fraction * count * clips))
  if number >= pairs:
    return batch
  order = jax.random.uniform(jax.random.fold_in(key, _DRAW), (size // clips, pairs))
  return {**batch, "drawn": jnp.argsort(order, axis=1)[:, :number]}


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
      With "drawn", "z_jittered" and "z_reversed" [E, M, L] are of those pairs alone, and the terms
      are estimates: their means over the draws are the terms of all pairs.
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
  all_pairs = forward.shape[:2]
  if "drawn" in batch:
    forward = terms.choose(forward, batch["drawn"])
  s1, s2, s3 = cosine(jittered, forward), cosine(jittered, reversed_), cosine(forward, reversed_)
  left_out = jnp.zeros(all_pairs, bool)
  if gate > 0:
    terms.need(
      outputs, "contrastive", ("current", "target"), "set objectives.contrastive.gate to 0"
    )
    left_out = moving_share(outputs) < gate
  logits = jnp.stack([s1, s2, s3], axis=-1) / temperature

  def over(values: jax.Array, left_out: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    if "drawn" not in batch:
      return terms.over_pairs(values, batch, left_out=left_out)
    none = jnp.zeros(all_pairs, bool)
    return terms.over_drawn(values, batch, left_out=none if left_out is None else left_out)

  return {
    "contrastive": over(-jax.nn.log_softmax(logits, axis=-1)[..., 0], left_out),
    "contrastive_gated": terms.over_pairs(left_out.astype(jnp.float32), batch),
    "similarity_jittered_forward": over(s1),
    "similarity_jittered_reversed": over(s2),
    "similarity_forward_reversed": over(s3),
  }
