"""Layers of the text encoders: attention with an optional bias, MLP, stacked layers, pooling.

Legend: B texts, N tokens, D width, H heads, K width of one head, L layers.

These encoders are frozen and use published weights, so they are separate from
`models.transformer`: no sharding constraints, no rematerialization. Parameters are float32 (or the
loaded dtype); matrix products run in `dtype`. Norms, the softmax and the residual stream are always
float32: T5's activations are too large for 16-bit floats.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import config_utils, modules

_tanh_gelu = functools.partial(jax.nn.gelu, approximate=True)
ACTIVATIONS: dict[str, Callable] = {  # by their names in Hugging Face's config.json
  "gelu": functools.partial(jax.nn.gelu, approximate=False),
  "gelu_new": _tanh_gelu,
  "gelu_pytorch_tanh": _tanh_gelu,
  "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
  "relu": jax.nn.relu,
  "silu": jax.nn.silu,
}


class Attention(nn.Module):
  """Multi-head self-attention. [B, N, D] -> [B, N, D].

  Attributes:
    heads: H.
    head_width: K; H * K need not be D.
    use_bias: whether query, key, value and output have biases.
    scale: of the logits; None is 1 / sqrt(K).
    dtype: of matrix products.
  """

  heads: int
  head_width: int
  use_bias: bool = True
  scale: float | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """Attends.

    Args:
      x: [B, N, D].
      mask: bool [B or 1, 1, N, N], True = may attend.
      bias: [1, H, N, N], added to the logits.
    """

    def dense(name: str, width: int) -> nn.Dense:
      return nn.Dense(width, use_bias=self.use_bias, dtype=self.dtype, name=name)

    shape = (*x.shape[:-1], self.heads, self.head_width)
    query, key, value = (
      dense(name, self.heads * self.head_width)(x).reshape(shape)
      for name in ("query", "key", "value")
    )
    y = jax.nn.dot_product_attention(query, key, value, bias=bias, mask=mask, scale=self.scale)
    return dense("output", x.shape[-1])(y.reshape((*x.shape[:-1], -1)))


class MLP(nn.Module):
  """down(act(up(x))), or down(act(gate(x)) * up(x)) when gated. [B, N, D] -> [B, N, D].

  Attributes:
    mlp: width between the layers.
    activation: a key of `ACTIVATIONS`.
    use_bias: whether the layers have biases.
    gated: whether there is a gate.
    dtype: of matrix products.
  """

  mlp: int
  activation: str
  use_bias: bool = True
  gated: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """x: [B, N, D]."""

    def dense(name: str, width: int) -> nn.Dense:
      return nn.Dense(width, use_bias=self.use_bias, dtype=self.dtype, name=name)

    activation = config_utils.lookup(ACTIVATIONS, self.activation, "activation")
    y = dense("up", self.mlp)(x)
    y = activation(dense("gate", self.mlp)(x)) * y if self.gated else activation(y)
    return dense("down", x.shape[-1])(y)


def stack(
  parent: nn.Module, block: nn.Module, depth: int, x: jax.Array, *arguments: jax.Array
) -> jax.Array:
  """Runs `depth` layers. [B, N, D] -> [B, N, D].

  The parameters lie in `parent` under "blocks" with a leading axis L, and the compiled program
  holds one layer.

  Args:
    parent: the module that owns the parameters.
    block: one layer, made with parent=None.
    depth: L.
    x: [B, N, D].
    *arguments: further arguments of every layer.
  """

  def init(key: jax.Array) -> Mapping[str, Any]:
    return jax.vmap(lambda key: block.init(key, x, *arguments)["params"])(
      jax.random.split(key, depth)
    )

  layers = parent.param("blocks", init)
  return jax.lax.scan(
    lambda x, layer: (modules.apply(block, layer, x, *arguments), None), x, layers
  )[0]


def attend_to(mask: jax.Array) -> jax.Array:
  """Attention mask [B, 1, N, N] of `mask` [B, N], True = a token: all attend to every token."""
  return jnp.broadcast_to(mask[:, None, None, :], (mask.shape[0], 1, mask.shape[1], mask.shape[1]))


def mean(tokens: jax.Array, mask: jax.Array) -> jax.Array:
  """The mean over the tokens of each text; 0 for a text without tokens.

  Args:
    tokens: [B, N, D].
    mask: bool [B, N], True = a token.

  Returns:
    [B, D].
  """
  weights = mask.astype(tokens.dtype)[..., None]
  return jnp.sum(tokens * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1.0)
