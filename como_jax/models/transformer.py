"""Pre-LayerNorm transformer: attention, MLP, block; stacks.py has stacks of blocks.

Legend: B batch, N tokens, S tokens of a cache, D width, H heads, M width of the MLP.

A KV cache is {"key", "value"}, each [B, S, H, D/H]. Either it holds another sequence, which
attention reads instead of its own tokens, or attention writes the keys and values of its own tokens
into it. It is an argument and a result; nothing is stored in modules.

Parameters are float32; matrix products run in `dtype`. LayerNorm statistics and the softmax are
always float32.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import spmd

from como_jax.models import attention, specs

# "mae" is the initialization of MAE's transformer; "vit" that of Hugging Face's ViT, and so of
# Moto and CoMo.
INITIALIZERS: dict[str, Callable] = {
  "mae": nn.initializers.xavier_uniform(),
  "vit": nn.initializers.truncated_normal(0.02),
}


def _normal(x: jax.Array) -> jax.Array:
  """The standard normal distribution function, computed with erf as in torch.

  erfc costs more; its relative accuracy in the tails is not needed here.
  """
  return 0.5 * (1.0 + jax.lax.erf(x * 0.5**0.5))


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
  """The exact GELU: x times the normal distribution function of x.

  Computed in float32; the backward pass keeps only the slope.
  """
  wide = x.astype(jnp.float32)
  return (wide * _normal(wide)).astype(x.dtype)


@gelu.defjvp
def _gelu_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
  wide = primals[0].astype(jnp.float32)
  below = _normal(wide)
  slope = below + wide * jnp.exp(-0.5 * jnp.square(wide)) * (2 * math.pi) ** -0.5
  return (wide * below).astype(primals[0].dtype), tangents[0] * slope.astype(primals[0].dtype)


ACTIVATIONS: dict[str, Callable] = {"gelu": gelu, "relu": jax.nn.relu}

KVCache = dict[str, jax.Array]


class LayerNorm(nn.LayerNorm):
  """LayerNorm in float32 with the two-pass variance.

  The fast variance loses digits that parity with torch needs.
  """

  epsilon: float = 1e-12
  dtype: Any = jnp.float32
  use_fast_variance: bool = False


def constrain_tokens(x: jax.Array) -> jax.Array:
  """Tokens [B, N, D], split over the mesh as the rules of their logical axes say."""
  return spmd.with_logical_constraint(x, ("batch", "token", "embed"))


class _Weights(nn.Module):
  """The parameters of an `nn.Dense` of the same name, without its product."""

  features: int
  kernel_init: Callable

  @nn.compact
  def __call__(self, inputs: int) -> tuple[jax.Array, jax.Array]:
    """`inputs` -> kernel [inputs, features] and bias [features]."""
    return (
      self.param("kernel", self.kernel_init, (inputs, self.features)),
      self.param("bias", nn.initializers.zeros, (self.features,)),
    )


class Attention(nn.Module):
  """Multi-head attention with biases on query, key, value and output. [B, N, D] -> [B, N, D].

  Attributes:
    stack: settings of the stack. With its `fused_qkv` the layers that read the same tokens are one
      product. Their parameters keep their names and shapes, so checkpoints fit either way.
    num_tokens: as for `attention.attend`.
  """

  stack: specs.StackConfig
  num_tokens: int | None = None

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array | None = None,
    cache_index: jax.Array | int | None = None,
    cache: KVCache | None = None,
    num_outputs: int | None = None,
  ) -> Any:
    """Attends to its own tokens or to a cache.

    Args:
      x: [B, N, D].
      mask: bool, True = may attend, [B or 1, 1 or H, N or 1, N or S].
      cache_index: where in the cache the keys and values of x are written before it is read; None
        leaves the cache as it is.
      cache: None for self-attention.
      num_outputs: only the first `num_outputs` tokens are queries (N in the mask and the result);
        all tokens are still keys and values. None = all.

    Returns:
      [B, N, D], and the cache if `cache_index` is given.
    """
    num_heads = self.stack.num_heads

    def dense(name: str) -> nn.Dense:
      return nn.Dense(
        x.shape[-1],
        dtype=self.stack.dtype,
        kernel_init=INITIALIZERS[self.stack.initializer],
        name=name,
      )

    def project(*names: str) -> dict[str, jax.Array]:
      if not self.stack.fused_qkv:
        return {name: attention.split_heads(dense(name)(x), num_heads) for name in names}
      products = self._fused(x, names)
      return {name: attention.split_heads(y, num_heads) for name, y in products.items()}

    reads_itself = cache is None or cache_index is not None
    own = {}
    if self.stack.fused_qkv and reads_itself and num_outputs is None:
      own = project("query", "key", "value")
      query = own.pop("query")
    else:
      query = attention.split_heads(dense("query")(x[:, :num_outputs]), num_heads)
    if reads_itself:
      own = own or project("key", "value")
      if cache is not None and cache_index is not None:
        cache = {
          name: jax.lax.dynamic_update_slice_in_dim(
            cache[name], own[name].astype(cache[name].dtype), cache_index, axis=1
          )
          for name in own
        }
      else:
        cache = own
    assert cache is not None  # given, or its own
    kernel = self.stack.attention_kernel
    y = attention.attend(
      query, cache["key"], cache["value"], mask, kernel=kernel, num_tokens=self.num_tokens
    )
    y = dense("output")(y.reshape((*y.shape[:2], x.shape[-1])))
    return y if cache_index is None else (y, cache)

  def _fused(self, x: jax.Array, names: tuple[str, ...]) -> dict[str, jax.Array]:
    """Several linear layers of x as one product with their stacked kernels [D, layers, D].

    Stacked on an axis of their own, not concatenated: each stays split over the mesh as its rule
    says.
    """
    kernel_init, dtype = INITIALIZERS[self.stack.initializer], self.stack.dtype
    weights = [_Weights(x.shape[-1], kernel_init, name=name)(x.shape[-1]) for name in names]
    kernel, bias = (
      jnp.stack([part.astype(dtype) for part in parts], axis=-2)
      for parts in zip(*weights, strict=True)
    )
    y = jnp.einsum("bnd,dke->bnke", x.astype(dtype), kernel) + bias[None, None]
    return {name: y[:, :, index] for index, name in enumerate(names)}


class MLP(nn.Module):
  """Two layers with the exact (erf) GELU (or ReLU) between them. [B, N, D] -> [B, N, D]."""

  stack: specs.StackConfig
  activation: str = "gelu"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """x: [B, N, D]."""
    kernel_init, dtype = INITIALIZERS[self.stack.initializer], self.stack.dtype
    y = nn.Dense(self.stack.mlp_dim, dtype=dtype, kernel_init=kernel_init, name="up")(x)
    y = spmd.with_logical_constraint(y, ("batch", "token", "mlp"))
    y = ACTIVATIONS[self.activation](y)
    return nn.Dense(x.shape[-1], dtype=dtype, kernel_init=kernel_init, name="down")(y)


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)). [B, N, D] -> [B, N, D].

  The residual stream keeps the stack's `dtype`.

  Attributes:
    stack: settings of the stack.
    activation: a key of `ACTIVATIONS`.
    num_outputs: only the first `num_outputs` tokens are computed, from all tokens; None = all.
    num_tokens: the tokens after the first `num_tokens` are padding; None = none is.
  """

  stack: specs.StackConfig
  activation: str = "gelu"
  num_outputs: int | None = None
  num_tokens: int | None = None

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array | None = None,
    cache_index: jax.Array | int | None = None,
    cache: KVCache | None = None,
  ) -> Any:
    """Runs one layer; the result is (x, cache) when `cache_index` is given.

    Args:
      x: [B, N, D].
      mask: as for `Attention`.
      cache_index: as for `Attention`.
      cache: as for `Attention`.
    """
    stack = self.stack
    x = constrain_tokens(x)
    y = LayerNorm(epsilon=stack.epsilon, name="norm_attention")(x).astype(stack.dtype)
    y = Attention(stack, self.num_tokens, name="attention")(
      y, mask, cache_index, cache, self.num_outputs
    )
    if cache_index is not None:
      y, cache = y
    x = x[:, : self.num_outputs] + y
    y = LayerNorm(epsilon=stack.epsilon, name="norm_mlp")(x).astype(stack.dtype)
    x = x + MLP(stack, self.activation, name="mlp")(y)
    x = constrain_tokens(x)
    return x if cache_index is None else (x, cache)
