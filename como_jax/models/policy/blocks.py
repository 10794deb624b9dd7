"""Parts of the denoisers: the DiT block, the context's keys and values, a single-token denoiser.

Legend: B batch, N tokens of a sample, S tokens of the context, G groups of tokens with a diffusion
time of their own, D width, H heads, ... any axes.

Source: Peebles and Xie (DiT), arXiv 2212.09748: adaLN-zero. Here a cross-attention to the context,
with a shift, scale and gate of its own, lies between the self-attention and the MLP. Li et al.
(MAR), arXiv 2406.11838, for single tokens.
"""

from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import spmd

from como_jax.models import attention, specs, transformer
from como_jax.models.transformer import KVCache

FREQUENCIES = 128


def time_features(time: jax.Array) -> jax.Array:
  """Cosines and sines of 1000 t at 128 frequencies, as in DiT.

  Args:
    time: diffusion times [...] in [0, 1].

  Returns:
    float32 [..., 256].
  """
  frequency = jnp.exp(-jnp.log(10000.0) * jnp.arange(FREQUENCIES, dtype=jnp.float32) / FREQUENCIES)
  angle = 1000.0 * time.astype(jnp.float32)[..., None] * frequency.reshape((1,) * time.ndim + (-1,))
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class TimeEmbedding(nn.Module):
  """Diffusion times [...] in [0, 1] -> [..., D]: two layers with SiLU between them.

  Attributes:
    width: D.
    dtype: of matrix products.
  """

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, time: jax.Array) -> jax.Array:
    """time: [...] in [0, 1]."""
    normal = nn.initializers.normal(0.02)
    x = nn.Dense(self.width, dtype=self.dtype, kernel_init=normal, name="in")(time_features(time))
    return nn.Dense(self.width, dtype=self.dtype, kernel_init=normal, name="out")(jax.nn.silu(x))


class Modulation(nn.Module):
  """`parts` vectors for each condition, zero at first: [B, ..., D] -> parts x [B, ..., D].

  On a mesh each device of an fsdp group computes its share of the vectors for all conditions of the
  group, which are few. So the kernel, as large as that of an MLP, is not gathered.

  Attributes:
    parts: number of vectors.
    dtype: of matrix products.
  """

  parts: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, condition: jax.Array) -> list[jax.Array]:
    """condition: [B, ..., D]."""
    zeros = nn.initializers.zeros
    table = nn.Dense(self.parts * condition.shape[-1], dtype=self.dtype, kernel_init=zeros)
    nn.share_scope(self, table)
    others = (None,) * (condition.ndim - 1)
    condition = spmd.with_logical_constraint(jax.nn.silu(condition), ("gathered_batch", *others))
    parts = spmd.with_logical_constraint(
      table(condition), ("gathered_batch", *others[1:], "modulation")
    )
    parts = spmd.with_logical_constraint(parts, ("batch", *others))
    return jnp.split(parts, self.parts, axis=-1)


def token_modulation(
  modulation: Modulation, condition: jax.Array, group: jax.Array | np.ndarray
) -> list[jax.Array]:
  """The vectors of each token: those of its group's condition.

  Args:
    modulation: makes `parts` vectors of a condition.
    condition: [B, G, D].
    group: int [N], the index of each token's condition.

  Returns:
    parts x [B, N, D].
  """
  return [jnp.take(part, group, axis=1) for part in modulation(condition)]


def modulated_norm(
  x: jax.Array, shift: jax.Array, scale: jax.Array, *, epsilon: float
) -> jax.Array:
  """LayerNorm without parameters of its own, then scale and shift, all in float32.

  Args:
    x: [..., D].
    shift: [..., D].
    scale: [..., D], added to 1.
    epsilon: added to the variance.

  Returns:
    float32 [..., D].
  """
  x = x.astype(jnp.float32)
  x = x - jnp.mean(x, axis=-1, keepdims=True)
  x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)
  return x * (1 + scale.astype(jnp.float32)) + shift.astype(jnp.float32)


class KeysAndValues(nn.Module):
  """Keys and values of the context: [B, S, any] -> {"key", "value"}, each [B, S, H, D/H]."""

  stack: specs.StackConfig

  @nn.compact
  def __call__(self, context: jax.Array) -> KVCache:
    """context: [B, S, any]."""
    stack, init = self.stack, transformer.INITIALIZERS[self.stack.initializer]
    return {
      name: attention.split_heads(
        nn.Dense(stack.width, dtype=stack.dtype, kernel_init=init, name=name)(context),
        stack.num_heads,
      )
      for name in ("key", "value")
    }


class ContextKVBlock(nn.Module):
  """A layer of a `stacks.Stack` that returns the context and its keys and values.

  The context passes unchanged; the keys and values are those of one DiT block.
  """

  stack: specs.StackConfig

  @nn.compact
  def __call__(self, context: jax.Array) -> tuple[jax.Array, KVCache]:
    """context: [B, S, any]."""
    return context, KeysAndValues(self.stack, name="cross_attention")(context)


class DiTBlock(nn.Module):
  """Self-attention, cross-attention to the context, and MLP, each with adaLN-zero."""

  stack: specs.StackConfig

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array,
    context_mask: jax.Array,
    condition: jax.Array,
    group: jax.Array,
    context_kv: KVCache,
  ) -> jax.Array:
    """Runs one layer.

    Args:
      x: [B, N, D].
      mask: bool [B, 1, N, N], True = may attend.
      context_mask: bool [B, 1, 1, S].
      condition: [B, G, D], embeddings of the diffusion times.
      group: int [N], the index of each token's condition.
      context_kv: the context's keys and values for this layer, [B, S, H, D/H] each.

    Returns:
      [B, N, D].
    """
    stack = self.stack
    x = transformer.constrain_tokens(x)
    parts = token_modulation(Modulation(9, stack.dtype, name="modulation"), condition, group)

    def normed(x: jax.Array, index: int) -> jax.Array:
      shift, scale = parts[3 * index : 3 * index + 2]
      return modulated_norm(x, shift, scale, epsilon=stack.epsilon).astype(stack.dtype)

    def attend(name: str) -> transformer.Attention:
      return transformer.Attention(stack, name=name)

    x = x + parts[2] * attend("attention")(normed(x, 0), mask)
    x = x + parts[5] * attend("cross_attention")(normed(x, 1), context_mask, None, context_kv)
    x = x + parts[8] * transformer.MLP(stack, name="mlp")(normed(x, 2))
    return transformer.constrain_tokens(x)


class TokenDenoiser(nn.Module):
  """Residual MLP that denoises single tokens, each with a condition of its own.

  Attributes:
    width: of the layers.
    depth: number of residual layers.
    epsilon: of the LayerNorms.
    dtype: of matrix products.
  """

  width: int
  depth: int
  epsilon: float = 1e-6
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, time: jax.Array, condition: jax.Array) -> jax.Array:
    """Predicts the target of noisy tokens.

    Args:
      x: [..., D].
      time: [...].
      condition: [..., any].

    Returns:
      float32 [..., D].
    """
    shape, init = x.shape, transformer.INITIALIZERS["mae"]
    x, time, condition = (
      x.reshape((-1, shape[-1])),
      time.reshape((-1,)),
      condition.reshape((-1, condition.shape[-1])),
    )
    condition = nn.Dense(self.width, dtype=self.dtype, kernel_init=init, name="condition")(
      condition
    )
    condition = condition + TimeEmbedding(self.width, self.dtype, name="time")(time)
    for index in range(self.depth):
      shift, scale, gate = Modulation(3, self.dtype, name=f"modulation_{index}")(condition)
      y = modulated_norm(x, shift, scale, epsilon=self.epsilon).astype(self.dtype)
      y = nn.Dense(self.width, dtype=self.dtype, kernel_init=init, name=f"up_{index}")(y)
      x = x + gate * nn.Dense(self.width, dtype=self.dtype, kernel_init=init, name=f"down_{index}")(
        jax.nn.silu(y)
      )
    shift, scale = Modulation(2, self.dtype, name="modulation_out")(condition)
    return modulated_norm(x, shift, scale, epsilon=self.epsilon).reshape(shape)


def repeat(row: jax.Array, batch: int, dtype: Any) -> jax.Array:
  """Learned tokens [N, D] for a batch: [B, N, D]."""
  return einops.repeat(row.astype(dtype), "n d -> b n d", b=batch)
