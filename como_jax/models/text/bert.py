"""BERT's encoder, the body of MiniLM and most sentence encoders.

Legend: B texts, N tokens, D width, V vocabulary. Source: Devlin et al., arXiv 1810.04805; the
sentence vector is the mean over tokens (or CLS), as in sentence-transformers (Reimers and Gurevych,
arXiv 1908.10084).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import config_utils, transformer
from como_jax.models.text import layers

POOLING = {"mean": layers.mean, "cls": lambda tokens, mask: tokens[:, 0]}


class Block(nn.Module):
  """norm(x + attention(x)), then norm(x + mlp(x)). [B, N, D] float32 -> the same."""

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
    x = norm_attention(x + attention(x, mask).astype(jnp.float32))
    return norm_mlp(x + mlp(x).astype(jnp.float32))


class Encoder(nn.Module):
  """Token numbers -> tokens and a sentence vector, both float32.

  Attributes:
    vocabulary: rows of the token table.
    positions: rows of the position table.
    types: rows of the type table; a single text is all of type 0.
    width: D.
    depth: number of layers.
    heads: attention heads.
    mlp: width of the MLP.
    epsilon: of the LayerNorms.
    activation: a key of `layers.ACTIVATIONS`.
    pooling: a key of `POOLING`.
    dtype: of matrix products.
  """

  vocabulary: int
  positions: int
  types: int
  width: int
  depth: int
  heads: int
  mlp: int
  epsilon: float = 1e-12
  activation: str = "gelu"
  pooling: str = "mean"
  dtype: Any = jnp.float32

  @property
  def pooled_width(self) -> int:
    """Width of the sentence vector."""
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
    pooling = config_utils.lookup(POOLING, self.pooling, "pooling")
    tables = [
      self.param(name, nn.initializers.normal(0.02), (rows, self.width))
      for name, rows in (
        ("token", self.vocabulary),
        ("position", self.positions),
        ("type", self.types),
      )
    ]
    token, position, kind = (table.astype(jnp.float32) for table in tables)
    x = token[ids] + (position[: ids.shape[1]] + kind[:1])[None]
    x = transformer.LayerNorm(epsilon=self.epsilon, name="norm")(x)
    block = Block(self.heads, self.mlp, self.activation, self.epsilon, self.dtype, parent=None)
    x = layers.stack(self, block, self.depth, x, layers.attend_to(mask))
    return x, pooling(x, mask)
