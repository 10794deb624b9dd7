"""CLIP's text encoder: a causal pre-norm transformer.

The text's vector is the projected state at its end token.

Legend: B texts, N tokens, D width, P width after the projection, V vocabulary.
Source: Radford et al., arXiv 2103.00020.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import transformer
from como_jax.models.text import layers

LEGACY_END = 2  # in old files, although their end token is the last of the vocabulary


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)). [B, N, D] float32 -> the same."""

  heads: int
  mlp: int
  activation: str
  epsilon: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
    """Runs one layer on `x` [B, N, D]; `mask` as for `layers.Attention`."""
    attention = layers.Attention(
      self.heads, x.shape[-1] // self.heads, dtype=self.dtype, name="attention"
    )
    mlp = layers.MLP(self.mlp, self.activation, dtype=self.dtype, name="mlp")
    norm_attention = transformer.LayerNorm(epsilon=self.epsilon, name="norm_attention")
    norm_mlp = transformer.LayerNorm(epsilon=self.epsilon, name="norm_mlp")
    x = x + attention(norm_attention(x), mask).astype(jnp.float32)
    return x + mlp(norm_mlp(x)).astype(jnp.float32)


class Encoder(nn.Module):
  """Token numbers -> tokens and a vector of the text, both float32.

  Attributes:
    vocabulary: rows of the token table.
    positions: rows of the position table.
    width: D.
    depth: number of layers.
    heads: attention heads.
    mlp: width of the MLP.
    end: number of the end token. `LEGACY_END` means the largest number in the text, which is the
      end token in CLIP's own vocabulary; any other number means its first occurrence.
    projection: P of the projection into the space shared with images; 0 = the weights have none,
      and the vector is [B, D].
    epsilon: of the LayerNorms.
    activation: a key of `layers.ACTIVATIONS`.
    dtype: of matrix products.
  """

  vocabulary: int
  positions: int
  width: int
  depth: int
  heads: int
  mlp: int
  end: int
  projection: int = 0
  epsilon: float = 1e-5
  activation: str = "quick_gelu"
  dtype: Any = jnp.float32

  @property
  def pooled_width(self) -> int:
    """Width of the text's vector."""
    return self.projection or self.width

  @nn.compact
  def __call__(self, ids: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Encodes texts.

    Args:
      ids: int [B, N], numbers of the tokens.
      mask: bool [B, N], False = padding.

    Returns:
      (tokens [B, N, D], pooled [B, P or D]).
    """
    token, position = (
      self.param(name, nn.initializers.normal(0.02), (rows, self.width)).astype(jnp.float32)
      for name, rows in (("token", self.vocabulary), ("position", self.positions))
    )
    length = ids.shape[1]
    x = token[ids] + position[None, :length]
    causal = jnp.tril(jnp.ones((length, length), bool))[None, None] & layers.attend_to(mask)
    block = Block(self.heads, self.mlp, self.activation, self.epsilon, self.dtype, parent=None)
    x = layers.stack(self, block, self.depth, x, causal)
    x = transformer.LayerNorm(epsilon=self.epsilon, name="norm")(x)
    score = jnp.where(
      mask, ids if self.end == LEGACY_END else (ids == self.end).astype(jnp.int32), -1
    )
    pooled = jnp.take_along_axis(x, jnp.argmax(score, axis=1)[:, None, None], axis=1)[:, 0]
    if self.projection:
      pooled = nn.Dense(self.projection, use_bias=False, dtype=self.dtype, name="projection")(
        pooled
      )
    return x, pooled.astype(jnp.float32)
