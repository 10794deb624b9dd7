"""Pre-LayerNorm transformer: attention, MLP, block, and a scanned, rematerialized stack.

Legend: B batch, N tokens, S tokens of a cache, D width, H heads, M width of the MLP, L layers.

A KV cache is {"key", "value"}, each [B, S, H, D/H]. Either it holds another sequence, which
attention reads instead of its own tokens, or attention writes the keys and values of its own tokens
into it. It is an argument and a result; nothing is stored in modules.

Parameters are float32; matrix products run in `dtype`. LayerNorm statistics and the softmax are
always float32. `nn.scan` and `nn.remat` are used in this file and nowhere else.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import attention, config_utils, specs

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

# What the backward pass may keep of a layer: everything, only its input, or also the results of
# matrix products.
REMAT: dict[str, Callable | None] = {
  "none": None,
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_saveable,
  "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


KVCache = dict[str, jax.Array]


class LayerNorm(nn.LayerNorm):
  """LayerNorm in float32 with the two-pass variance.

  The fast variance loses digits that parity with torch needs.
  """

  epsilon: float = 1e-12
  dtype: Any = jnp.float32
  use_fast_variance: bool = False


class Attention(nn.Module):
  """Multi-head attention with biases on query, key, value and output. [B, N, D] -> [B, N, D]."""

  stack: specs.StackConfig

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

    query = attention.split_heads(dense("query")(x[:, :num_outputs]), num_heads)
    if cache is None or cache_index is not None:
      own = {name: attention.split_heads(dense(name)(x), num_heads) for name in ("key", "value")}
      cache = (
        own
        if cache is None
        else {
          name: jax.lax.dynamic_update_slice_in_dim(
            cache[name], own[name].astype(cache[name].dtype), cache_index, axis=1
          )
          for name in own
        }
      )
    kernel = self.stack.attention_kernel
    y = attention.attend(query, cache["key"], cache["value"], mask, kernel=kernel)
    y = dense("output")(y.reshape((*y.shape[:2], x.shape[-1])))
    return y if cache_index is None else (y, cache)


class MLP(nn.Module):
  """Two layers with the exact (erf) GELU (or ReLU) between them. [B, N, D] -> [B, N, D]."""

  stack: specs.StackConfig
  activation: str = "gelu"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """x: [B, N, D]."""
    kernel_init, dtype = INITIALIZERS[self.stack.initializer], self.stack.dtype
    y = nn.Dense(self.stack.mlp_dim, dtype=dtype, kernel_init=kernel_init, name="up")(x)
    y = nn.with_logical_constraint(y, ("batch", "token", "mlp"))
    y = ACTIVATIONS[self.activation](y)
    return nn.Dense(x.shape[-1], dtype=dtype, kernel_init=kernel_init, name="down")(y)


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)). [B, N, D] -> [B, N, D].

  The residual stream keeps the stack's `dtype`.

  Attributes:
    stack: settings of the stack.
    activation: a key of `ACTIVATIONS`.
    num_outputs: only the first `num_outputs` tokens are computed, from all tokens; None = all.
  """

  stack: specs.StackConfig
  activation: str = "gelu"
  num_outputs: int | None = None

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
    x = nn.with_logical_constraint(x, ("batch", "token", "embed"))
    y = LayerNorm(epsilon=stack.epsilon, name="norm_attention")(x).astype(stack.dtype)
    y = Attention(stack, name="attention")(y, mask, cache_index, cache, self.num_outputs)
    if cache_index is not None:
      y, cache = y
    x = x[:, : self.num_outputs] + y
    y = LayerNorm(epsilon=stack.epsilon, name="norm_mlp")(x).astype(stack.dtype)
    x = x + MLP(stack, self.activation, name="mlp")(y)
    x = nn.with_logical_constraint(x, ("batch", "token", "embed"))
    return x if cache_index is None else (x, cache)


class Stack(nn.Module):
  """`depth` blocks (none: the identity). [B, N, D] -> [B, N, D].

  With `scan` the parameters lie under "blocks" with a leading layer axis L and the compiled program
  holds one layer. Without it they lie under "blocks_0", "blocks_1", ... (see `stack_layers` and
  `unstack_layers`). Parents add a stack with `add_stack`, so that it adds no level to the names.

  Attributes:
    stack: settings of the stack.
    block: class of the layers. `block(x, *inputs)`, or `block(x, *inputs, layer)` with what belongs
      to that layer alone, returns x or (x, a result of that layer).
    settings: fields of the block that `StackConfig` does not have.
  """

  stack: specs.StackConfig
  block: Any = Block
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @nn.compact
  def __call__(
    self, x: jax.Array, *inputs: Any, layers: Any = None, num_outputs: int | None = None
  ) -> Any:
    """Runs the blocks.

    Args:
      x: [B, N, D].
      *inputs: what every block receives (masks, conditions).
      layers: a tree of arrays [L, ...], a slice for each block.
      num_outputs: only the first `num_outputs` tokens of the result are needed: the last layer
        computes no others (without `inputs` and `layers`).

    Returns:
      x, or (x, the blocks' second results stacked to [L, ...]).
    """
    chex.assert_rank(x, 3)
    stack = self.stack
    policy = config_utils.lookup(REMAT, stack.remat, "remat")
    config_utils.lookup(INITIALIZERS, stack.initializer, "initializer")
    # Inside scan the loop itself keeps XLA from merging the recomputation away.
    block = (
      self.block
      if policy is None
      else nn.remat(self.block, prevent_cse=not stack.scan, policy=policy)
    )
    fields = dict(stack=stack, **self.settings)
    x = x.astype(stack.dtype)

    def run(module: nn.Module, x: jax.Array, layer: Any, inputs: tuple) -> tuple[jax.Array, Any]:
      result = module(x, *inputs) if layers is None else module(x, *inputs, layer)
      return result if isinstance(result, tuple) else (result, None)

    if not stack.depth:
      return x[:, :num_outputs]
    if num_outputs is not None and stack.scan:
      if not self.is_initializing():
        return self._all_but_last(x, fields, policy, num_outputs)
      x = x[:, :num_outputs]  # shapes of parameters do not depend on the number of tokens
    if not stack.scan:
      results = []
      for index in range(stack.depth):
        layer = jax.tree.map(lambda leaf, index=index: leaf[index], layers)
        is_last = num_outputs is not None and index == stack.depth - 1
        last = {"num_outputs": num_outputs} if is_last else {}
        x, result = run(block(**fields, **last, name=f"blocks_{index}"), x, layer, inputs)
        results.append(result)
      stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
    else:
      scanned = nn.scan(
        run,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast),
        length=stack.depth,
      )
      x, stacked = scanned(block(**fields, name="blocks"), x, layers, inputs)
    return x if stacked is None else (x, stacked)

  def _all_but_last(
    self, x: jax.Array, fields: dict[str, Any], policy: Callable | None, num_outputs: int
  ) -> jax.Array:
    """The layers but the last in a scan, then the last one for the first tokens alone."""
    params = self.variables["params"]["blocks"]

    def layer(**extra: Any) -> Callable[[jax.Array, Any], jax.Array]:
      module = self.block(**fields, **extra, parent=None)

      def run(x, params):
        return module.apply({"params": params}, x)

      return run if policy is None else jax.checkpoint(run, prevent_cse=bool(extra), policy=policy)

    every, last = layer(), layer(num_outputs=num_outputs)
    x, _ = jax.lax.scan(
      lambda x, params: (every(x, params), None), x, jax.tree.map(lambda leaf: leaf[:-1], params)
    )
    return last(x, jax.tree.map(lambda leaf: leaf[-1], params))


def add_stack(parent: nn.Module, **fields: Any) -> Stack:
  """A Stack inside `parent` whose parameters are called parent/blocks/..., without an extra level.

  Args:
    parent: a module with a field `stack`.
    **fields: `block` and `settings` of the Stack, where they are not its defaults.
  """
  stack = Stack(parent.stack, **fields)
  nn.share_scope(parent, stack)
  return stack


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters of an unrolled model -> those of the scanned model.

  blocks_0, blocks_1, ... become blocks [L, ...].
  """
  layers = sorted(
    (name for name in params if name.startswith("blocks_")),
    key=lambda name: int(name.split("_")[1]),
  )
  out = {
    name: stack_layers(value) if isinstance(value, Mapping) else value
    for name, value in params.items()
    if name not in layers
  }
  if layers:
    out["blocks"] = jax.tree.map(
      lambda *leaves: jnp.stack(leaves), *(params[name] for name in layers)
    )
  return out


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `stack_layers`."""
  out = {}
  for name, value in params.items():
    if name == "blocks":
      depth = jax.tree.leaves(value)[0].shape[0]
      out.update(
        {f"blocks_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], value) for i in range(depth)}
      )
    else:
      out[name] = unstack_layers(value) if isinstance(value, Mapping) else value
  return out
