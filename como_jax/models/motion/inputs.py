"""Inputs of the inverse dynamics model: one function for each published variant.

Legend: ... leading axes, N patches, D width of the encoder. Every argument is tokens [..., N+1, D],
CLS first. Source: CoMo, arXiv 2505.17006, ablations of the input (temporal difference "Td", RGB
difference, without, future features).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Input:
  """One variant.

  Attributes:
    num_halves: number of groups of N+1 tokens that the Q-former receives.
    pixel_difference: whether `second` encodes (second frame - first frame) instead of the second
      frame.
    make_halves: (first, second) -> the halves.
  """

  num_halves: int
  pixel_difference: bool
  make_halves: Callable[[jax.Array, jax.Array], tuple[jax.Array, ...]]


INPUTS: dict[str, Input] = {
  # F_t and D_t = F_{t+n} - F_t: the early temporal difference; the second frame itself is not an
  # input.
  "feature_diff": Input(2, False, lambda first, second: (first, second - first)),
  # F_t and the encoding of the difference of (normalized) pixels.
  "rgb_diff": Input(2, True, lambda first, second: (first, second)),
  # F_t and F_{t+n}, as in Moto.
  "none": Input(2, False, lambda first, second: (first, second)),
  # Only the second frame: the collapse that S-PCFC measures, by construction (S-PCFC = 1).
  "future": Input(1, False, lambda first, second: (second,)),
}

PATCH_ORDERS = ("raster", "shuffled")


def shuffle_patches(key: jax.Array, tokens: jax.Array) -> jax.Array:
  """Permutes the patches of every image independently; CLS stays first.

  The released code does this unintentionally: Hugging Face's ViTMAEModel sorts patches by fresh
  noise at every call, also at mask ratio 0. Weights that were trained in this way expect it;
  anything else should keep "raster".

  Args:
    key: draws the permutations.
    tokens: [B, N+1, D].

  Returns:
    [B, N+1, D].
  """
  batch, count, _ = tokens.shape
  order = jnp.argsort(jax.random.uniform(key, (batch, count - 1)), axis=1) + 1
  return jnp.concatenate(
    [tokens[:, :1], jnp.take_along_axis(tokens, order[..., None], axis=1)], axis=1
  )
