"""Pairs of frames: the inputs of the Q-former and of the linear path, formed from clips.

Legend: B batch, K frames of a clip, P pairs (K-1), H W image, N patches, D width of the encoder, G
groups of patches.

The order of pairs is forward, reversed, jittered; the last two are there when Tcl is trained. Pairs
lie along the second axis, never the first, which is sharded over devices.

Tcl may read only some of the pairs, drawn afresh in every step: then a batch has "drawn" int
[E, M]. The windows of the batch form E runs of B/E neighboring ones, of which M pairs each are
drawn; an index counts the pairs of a run. Reversed and jittered pairs are made of these alone, and
all arrays of pairs have E for B and B/E*P + 2M for 3P.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import spmd

from como_jax.models import pixels
from como_jax.models.motion.linear_path import LinearPath

Batch = Mapping[str, jax.Array]
FirstAndSecond = tuple[jax.Array, jax.Array]


class Pairs(NamedTuple):
  """What the inverse dynamics model reads of pairs of frames.

  Attributes:
    first: tokens of the first frames [B, P or 3P, N+1, D].
    second: tokens of the second frames, or of the pixel differences, of the same shape.
    path_inputs: inputs of the linear path [B, P or 3P, G, D], None without one.
  """

  first: jax.Array
  second: jax.Array
  path_inputs: jax.Array | None


def flatten_pairs(x: jax.Array) -> jax.Array:
  """[B, P, ...] -> [B*P, ...]."""
  return x.reshape((x.shape[0] * x.shape[1], *x.shape[2:]))


def unflatten_pairs(x: jax.Array, batch_size: int) -> jax.Array:
  """[B*P, ...] -> [B, P, ...] with B = `batch_size`."""
  return x.reshape((batch_size, x.shape[0] // batch_size, *x.shape[1:]))


def regroup_pairs(x: jax.Array, count: int) -> jax.Array:
  """[B, P, ...] -> [count, B*P/count, ...]: runs of neighboring windows, or back."""
  if x.shape[0] == count:
    return x
  return x.reshape((count, x.shape[0] * x.shape[1] // count, *x.shape[2:]))


def choose(x: jax.Array, drawn: jax.Array | None) -> jax.Array:
  """The values of the drawn pairs: [B, P, ...] -> [E, M, ...]; None: of all pairs, x itself."""
  if drawn is None:
    return x
  return jax.vmap(lambda pairs, index: pairs[index])(regroup_pairs(x, drawn.shape[0]), drawn)


def constrain_frames(frames: jax.Array) -> jax.Array:
  """Frames of clips [B, K, ...], split over the mesh as the rules of their logical axes say."""
  return spmd.with_logical_constraint(frames, ("batch", "time", *(None,) * (frames.ndim - 2)))


def is_contrastive(batch: Batch) -> bool:
  """Whether a batch has what Tcl is trained on."""
  return "jittered" in batch or "jittered_tokens" in batch


def _jittered_frames(batch: Batch, drawn: jax.Array | None) -> jax.Array:
  """The jittered frames [B, P, H, W, 3] or [E, M, H, W, 3], normalized."""
  if drawn is None:
    return constrain_frames(pixels.normalize(batch["jittered"]))
  return pixels.normalize(choose(batch["jittered"], drawn))


def encode_pairs(
  batch: Batch,
  frames: jax.Array,
  encode: Callable[[jax.Array], jax.Array],
  *,
  pixel_difference: bool,
) -> tuple[jax.Array, FirstAndSecond]:
  """Tokens of the frames, and the first and second tokens of all pairs.

  Args:
    batch: as for `MotionModel.forward`.
    frames: of the batch, normalized.
    encode: images [B, any, H, W, 3] -> tokens [B, any, N+1, D].
    pixel_difference: whether the second half encodes differences of frames (see `inputs.Input`).

  Returns:
    [B, K, N+1, D], and (first, second), each [B, P or 3P, N+1, D].
  """
  size, num_frames = frames.shape[:2]
  drawn = batch.get("drawn")
  if "frame_tokens" in batch:
    tokens = constrain_frames(batch["frame_tokens"].astype(jnp.float32))
    jittered_tokens = (
      constrain_frames(batch["jittered_tokens"].astype(jnp.float32))
      if "jittered_tokens" in batch
      else None
    )
    if jittered_tokens is not None:
      jittered_tokens = choose(jittered_tokens, drawn)
    return tokens, pairs_of_frames(tokens, jittered_tokens, drawn)
  images = [frames]
  jittered = _jittered_frames(batch, drawn) if "jittered" in batch else None
  if pixel_difference:
    images.append(frames[:, 1:] - frames[:, :-1])
    images += (
      []
      if jittered is None
      else [choose(frames[:, :-1] - frames[:, 1:], drawn), jittered - choose(frames[:, :-1], drawn)]
    )
  elif jittered is not None:
    images.append(jittered)
  runs = size if drawn is None else drawn.shape[0]
  everything = encode(jnp.concatenate([regroup_pairs(x, runs) for x in images], axis=1))
  own = size * num_frames // runs
  tokens, rest = regroup_pairs(everything[:, :own], size), everything[:, own:]
  if pixel_difference:
    return tokens, pairs_of_differences(tokens, rest, drawn, contrastive=jittered is not None)
  return tokens, pairs_of_frames(tokens, None if jittered is None else rest, drawn)


def pairs_of_frames(
  frames: jax.Array, jittered: jax.Array | None, drawn: jax.Array | None = None
) -> FirstAndSecond:
  """(first, second) of all pairs of frames.

  Args:
    frames: of clips, or their tokens: [B, K, ...].
    jittered: the second frames of the jittered pairs [B, P, ...], None without Tcl.
    drawn: the pairs that Tcl reads; None: all.
  """
  before, after = frames[:, :-1], frames[:, 1:]
  if jittered is None:
    return before, after
  chosen_before, chosen_after = choose(before, drawn), choose(after, drawn)
  before, after = (regroup_pairs(x, jittered.shape[0]) for x in (before, after))
  second = jnp.concatenate([after, chosen_before, jittered], axis=1)
  return jnp.concatenate([before, chosen_after, chosen_before], axis=1), second


def pairs_of_differences(
  tokens: jax.Array, differences: jax.Array, drawn: jax.Array | None = None, *, contrastive: bool
) -> FirstAndSecond:
  """(first, second) of all pairs of a frame and a difference of frames.

  Args:
    tokens: of the frames [B, K, N+1, D].
    differences: tokens of the pixel differences of all pairs [B, P or 3P, N+1, D].
    drawn: the pairs that Tcl reads; None: all.
    contrastive: whether there are reversed and jittered pairs.
  """
  before, after = tokens[:, :-1], tokens[:, 1:]
  if not contrastive:
    return before, differences
  chosen_before, chosen_after = choose(before, drawn), choose(after, drawn)
  before = regroup_pairs(before, differences.shape[0])
  return jnp.concatenate([before, chosen_after, chosen_before], axis=1), differences


def path_inputs(
  linear_path: LinearPath | None, batch: Batch, frames: jax.Array, first_and_second: FirstAndSecond
) -> jax.Array | None:
  """The linear path's inputs of all pairs [B, P or 3P, G, D], None without one.

  Args:
    linear_path: of the model.
    batch: as for `MotionModel.forward`.
    frames: of the batch, normalized.
    first_and_second: as from `encode_pairs`.

  Raises:
    KeyError: the flow of jittered pairs needs images, and the batch has only their tokens.
  """
  if linear_path is None:
    return None
  size, count = first_and_second[0].shape[:2]
  images = None
  if linear_path.source == "flow":
    jittered = None
    if is_contrastive(batch):
      if "jittered" not in batch:
        raise KeyError(
          "jittered: the flow of these pairs needs their images, not only their tokens"
        )
      jittered = _jittered_frames(batch, batch.get("drawn"))
    first, second = pairs_of_frames(frames, jittered, batch.get("drawn"))
    images = flatten_pairs(first), flatten_pairs(second)
  differences = linear_path.differences(
    (flatten_pairs(first_and_second[0]), flatten_pairs(first_and_second[1])), images
  )
  return differences.reshape((size, count, *differences.shape[1:]))
