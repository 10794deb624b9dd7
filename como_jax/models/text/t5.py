"""T5's encoder: relative positions as a bias on the logits, RMS norms, no biases, no scaling.

Legend: B texts, N tokens, D width, H heads, V vocabulary, R buckets of relative positions.
Source: Raffel et al., arXiv 1910.10683; the gated MLP: Shazeer, arXiv 2002.05202 (T5 1.1, Flan-T5).
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from como_jax.models.text import layers


class Norm(nn.Module):
  """Root-mean-square norm in float32, with a scale and neither mean nor bias."""

  epsilon: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """x: [B, N, D]."""
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
    y = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
    return y * scale.astype(jnp.float32)[None, None]


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)). [B, N, D] float32 -> the same."""

  heads: int
  head_width: int
  mlp: int
  activation: str
  gated: bool
  epsilon: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, bias: jax.Array) -> jax.Array:
    """Runs one layer on `x` [B, N, D]; `mask` and `bias` as for `layers.Attention`."""
    attention = layers.Attention(
      self.heads, self.head_width, False, 1.0, self.dtype, name="attention"
    )
    mlp = layers.MLP(self.mlp, self.activation, False, self.gated, self.dtype, name="mlp")
    x = x + attention(Norm(self.epsilon, name="norm_attention")(x), mask, bias).astype(jnp.float32)
    return x + mlp(Norm(self.epsilon, name="norm_mlp")(x)).astype(jnp.float32)


class Encoder(nn.Module):
  """Token numbers -> tokens and their mean, both float32.

  Attributes:
    vocabulary: rows of the token table.
    width: D.
    depth: number of layers.
    heads: H.
    head_width: width of a head; heads * head_width need not be D.
    mlp: width of the MLP.
    activation: a key of `layers.ACTIVATIONS`.
    gated: whether the MLP has a gate.
    buckets: R, of relative positions (see `bucket`).
    max_distance: of relative positions (see `bucket`).
    epsilon: of the norms.
    dtype: of matrix products.
  """

  vocabulary: int
  width: int
  depth: int
  heads: int
  head_width: int
  mlp: int
  activation: str = "relu"
  gated: bool = False
  buckets: int = 32
  max_distance: int = 128
  epsilon: float = 1e-6
  dtype: Any = jnp.float32

  @property
  def pooled_width(self) -> int:
    """Width of the text's vector."""
    return self.width

  @nn.compact
  def __call__(self, ids: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Encodes texts.

    Args:
      ids: int [B, N], numbers of the tokens.
      mask: bool [B, N], False = padding.

    Returns:
      (tokens [B, N, D], pooled [B, D]).
    """
    token = self.param("token", nn.initializers.normal(1.0), (self.vocabulary, self.width))
    relative = self.param("relative", nn.initializers.normal(0.02), (self.buckets, self.heads))
    position = np.arange(ids.shape[1])
    rows = bucket(
      position[None] - position[:, None], buckets=self.buckets, max_distance=self.max_distance
    )
    bias = relative.astype(jnp.float32)[rows].transpose((2, 0, 1))[None]  # [1, H, N, N]
    block = Block(
      self.heads,
      self.head_width,
      self.mlp,
      self.activation,
      self.gated,
      self.epsilon,
      self.dtype,
      parent=None,
    )
    x = layers.stack(
      self, block, self.depth, token.astype(jnp.float32)[ids], layers.attend_to(mask), bias
    )
    x = Norm(self.epsilon, name="norm")(x)
    return x, layers.mean(x, mask)


def bucket(distance: np.ndarray, *, buckets: int, max_distance: int) -> np.ndarray:
  """Relative positions -> rows of the bias table, int.

  Half of the buckets are for keys after the query. In each half, the first half are single
  distances and the rest grow logarithmically up to `max_distance`; all larger distances share the
  last bucket.

  Args:
    distance: key - query, in tokens.
    buckets: R.
    max_distance: in tokens.
  """
  half = buckets // 2
  exact = half // 2
  size = np.abs(distance)
  # float32 throughout: on powers of two another precision would round into the neighboring bucket.
  ratio = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact))
  far = exact + (
    ratio / np.float32(math.log(max_distance / exact)) * np.float32(half - exact)
  ).astype(np.int64)
  return np.where(size < exact, size, np.minimum(far, half - 1)) + half * (distance > 0)
