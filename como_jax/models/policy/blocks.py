"""Pieces of the denoisers: the DiT block, keys and values of the context, and a denoiser of single
tokens.

Legend: B batch, N tokens of a sample, S tokens of the context, G groups of tokens with a diffusion
time of their own,
D width, H heads, ... any axes.
Source: Peebles and Xie (DiT), arXiv 2212.09748: adaLN-zero, here with a cross-attention to the
context between the self-attention and the MLP that has a shift, scale and gate too; Li et al.
(MAR), arXiv 2406.11838, for single tokens.
"""

from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import attention, transformer
from como_jax.models.transformer import Memory

FREQUENCIES = 128


def time_features(time: jax.Array) -> jax.Array:
  """Diffusion times [...] in [0, 1] -> float32 [..., 256]: cosines and sines of 1000 t at 128
  frequencies (as DiT).
  """
  frequency = jnp.exp(-jnp.log(10000.0) * jnp.arange(FREQUENCIES, dtype=jnp.float32) / FREQUENCIES)
  angle = 1000.0 * time.astype(jnp.float32)[..., None] * frequency.reshape((1,) * time.ndim + (-1,))
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class TimeEmbedding(nn.Module):
  """[...] in [0, 1] -> [..., D]: two layers with SiLU between them."""

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, time: jax.Array) -> jax.Array:
    normal = nn.initializers.normal(0.02)
    x = nn.Dense(self.width, dtype=self.dtype, kernel_init=normal, name="in")(time_features(time))
    return nn.Dense(self.width, dtype=self.dtype, kernel_init=normal, name="out")(jax.nn.silu(x))


class Modulation(nn.Module):
  """`parts` vectors for each condition, zero at first: [B, ..., D] -> parts x [B, ..., D].

  On a mesh each device of an fsdp group computes its part of the vectors for all conditions of the
  group, which are a few; the kernel, as large as that of an MLP, stays where it is.
  """

  parts: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, condition: jax.Array) -> list[jax.Array]:
    zeros = nn.initializers.zeros
    table = nn.Dense(self.parts * condition.shape[-1], dtype=self.dtype, kernel_init=zeros)
    nn.share_scope(self, table)
    others = (None,) * (condition.ndim - 1)
    condition = nn.with_logical_constraint(jax.nn.silu(condition), ("gathered_batch", *others))
    parts = nn.with_logical_constraint(
      table(condition), ("gathered_batch", *others[1:], "modulation")
    )
    parts = nn.with_logical_constraint(parts, ("batch", *others))
    return jnp.split(parts, self.parts, axis=-1)


def modulated_norm(
  x: jax.Array, shift: jax.Array, scale: jax.Array, *, epsilon: float
) -> jax.Array:
  """LayerNorm without parameters of its own, then scale and shift, all in float32. [..., D] ->
  float32 [..., D].
  """
  x = x.astype(jnp.float32)
  x = x - jnp.mean(x, axis=-1, keepdims=True)
  x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)
  return x * (1 + scale.astype(jnp.float32)) + shift.astype(jnp.float32)


class KeysAndValues(nn.Module):
  """What a cross-attention reads of the context. [B, S, any] -> {"key", "value"}, each [B, S, H,
  D/H].
  """

  width: int
  heads: int
  initializer: str = "mae"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, context: jax.Array) -> Memory:
    init = transformer.INITIALISERS[self.initializer]
    return {
      name: attention.split_heads(
        nn.Dense(self.width, dtype=self.dtype, kernel_init=init, name=name)(context), self.heads
      )
      for name in ("key", "value")
    }


class MemoryBlock(nn.Module):
  """A layer of a `transformer.Stack` that leaves the context as it is and gives one DiT block's
  keys and values of it.
  """

  heads: int
  mlp: int
  width: int
  epsilon: float = 1e-6
  initializer: str = "mae"
  dtype: Any = jnp.float32
  attention_kernel: str = "auto"  # of other layers; nothing is attended to here

  @nn.compact
  def __call__(self, context: jax.Array) -> tuple[jax.Array, Memory]:
    return context, KeysAndValues(
      self.width, self.heads, self.initializer, self.dtype, name="cross_attention"
    )(context)


class DiTBlock(nn.Module):
  """Self-attention, cross-attention to the context, MLP, each behind adaLN and a gate that starts
  at zero.
  """

  heads: int
  mlp: int
  epsilon: float = 1e-6
  initializer: str = "mae"
  dtype: Any = jnp.float32
  attention_kernel: str = "auto"

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array,
    context_mask: jax.Array,
    condition: jax.Array,
    group: jax.Array,
    memory: Memory,
  ) -> jax.Array:
    """One layer.

    Args:
      x: [B, N, D].
      mask: bool [B, 1, N, N], True = may attend.
      context_mask: bool [B, 1, 1, S].
      condition: [B, G, D], the diffusion times' embeddings.
      group: int [N], which condition each token has.
      memory: the context's keys and values for this layer, [B, S, H, D/H] each.

    Returns:
      [B, N, D].
    """
    x = nn.with_logical_constraint(x, ("batch", "token", "embed"))
    parts = Modulation(9, self.dtype, name="modulation")(condition)
    parts = [jnp.take(part, group, axis=1) for part in parts]

    def normed(x: jax.Array, number: int) -> jax.Array:
      return modulated_norm(
        x, parts[3 * number], parts[3 * number + 1], epsilon=self.epsilon
      ).astype(self.dtype)

    def attend(name: str) -> transformer.Attention:
      return transformer.Attention(
        self.heads, self.initializer, self.dtype, self.attention_kernel, name=name
      )

    x = x + parts[2] * attend("attention")(normed(x, 0), mask)
    x = x + parts[5] * attend("cross_attention")(normed(x, 1), context_mask, None, memory)
    x = x + parts[8] * transformer.MLP(self.mlp, self.initializer, self.dtype, name="mlp")(
      normed(x, 2)
    )
    return nn.with_logical_constraint(x, ("batch", "token", "embed"))


class TokenDenoiser(nn.Module):
  """Residual MLP that denoises single tokens, each under a condition of its own. [..., D] -> [...,
  D], float32.
  """

  width: int
  depth: int
  epsilon: float = 1e-6
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, time: jax.Array, condition: jax.Array) -> jax.Array:
    """X [..., D]; time [...]; condition [..., any]."""
    shape, init = x.shape, transformer.INITIALISERS["mae"]
    x, time, condition = (
      x.reshape((-1, shape[-1])),
      time.reshape((-1,)),
      condition.reshape((-1, condition.shape[-1])),
    )
    condition = nn.Dense(self.width, dtype=self.dtype, kernel_init=init, name="condition")(
      condition
    )
    condition = condition + TimeEmbedding(self.width, self.dtype, name="time")(time)
    for number in range(self.depth):
      shift, scale, gate = Modulation(3, self.dtype, name=f"modulation_{number}")(condition)
      y = modulated_norm(x, shift, scale, epsilon=self.epsilon).astype(self.dtype)
      y = nn.Dense(self.width, dtype=self.dtype, kernel_init=init, name=f"up_{number}")(y)
      x = x + gate * nn.Dense(
        self.width, dtype=self.dtype, kernel_init=init, name=f"down_{number}"
      )(jax.nn.silu(y))
    shift, scale = Modulation(2, self.dtype, name="modulation_out")(condition)
    return modulated_norm(x, shift, scale, epsilon=self.epsilon).reshape(shape)


def repeat(row: jax.Array, batch: int, dtype: Any) -> jax.Array:
  """Learned tokens [N, D] -> [B, N, D]."""
  return einops.repeat(row.astype(dtype), "n d -> b n d", b=batch)
