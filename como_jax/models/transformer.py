"""Pre-LayerNorm transformer: attention, MLP, block, and a stack that is scanned over layers and
rematerialized.

Legend: B batch, N tokens, S tokens of a memory, D width, H heads, M width of the MLP, L layers.

A memory is {"key", "value"}, each [B, S, H, D/H]: what attention reads instead of its own tokens
(another sequence), or the cache it writes its own tokens' keys and values into. Both are arguments
and results; nothing is stored in modules.

Parameters are float32; `dtype` is what matrix products run in. LayerNorm statistics and the softmax
are always float32. `nn.scan` and `nn.remat` are used in this file and nowhere else.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import attention, config_utils

# "mae" is what MAE initializes its transformer with; "vit" what the ViT of Hugging Face (and so
# Moto and CoMo) does.
INITIALISERS: dict[str, Callable] = {
  "mae": nn.initializers.xavier_uniform(),
  "vit": nn.initializers.truncated_normal(0.02),
}


def _normal(x: jax.Array) -> jax.Array:
  """The standard normal distribution function, by erf as in torch (erfc is dearer; its relative
  digits far out are not needed here).
  """
  return 0.5 * (1.0 + jax.lax.erf(x * 0.5**0.5))


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
  """X times the normal distribution function of x, exact.

  Computed in float32; the backward pass keeps its slope and nothing else.
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


Memory = dict[str, jax.Array]


class LayerNorm(nn.LayerNorm):
  """LayerNorm in float32 with the two-pass variance (the fast one loses digits that torch parity
  needs).
  """

  epsilon: float = 1e-12
  dtype: Any = jnp.float32
  use_fast_variance: bool = False


class Attention(nn.Module):
  """Multi-head attention with biases on query, key, value and output. [B, N, D] -> [B, N, D]."""

  heads: int
  initializer: str = "vit"
  dtype: Any = jnp.float32
  attention_kernel: str = "auto"

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array | None = None,
    start: jax.Array | int | None = None,
    memory: Memory | None = None,
    first: int | None = None,
  ) -> Any:
    """Attends to its own tokens or to a memory.

    Args:
      x: [B, N, D].
      mask: bool, True = may attend, [B or 1, 1 or H, N or 1, N or S].
      start: where in the memory to write the keys and values of x before reading it; None leaves
        the memory as it is.
      memory: None for self-attention.
      first: only so many tokens ask (N in the mask and the result); all of them are read. None =
        all.

    Returns:
      [B, N, D], and the memory if `start` is given.
    """

    def dense(name: str) -> nn.Dense:
      return nn.Dense(
        x.shape[-1], dtype=self.dtype, kernel_init=INITIALISERS[self.initializer], name=name
      )

    query = attention.split_heads(dense("query")(x[:, :first]), self.heads)
    if memory is None or start is not None:
      own = {name: attention.split_heads(dense(name)(x), self.heads) for name in ("key", "value")}
      memory = (
        own
        if memory is None
        else {
          name: jax.lax.dynamic_update_slice_in_dim(
            memory[name], own[name].astype(memory[name].dtype), start, axis=1
          )
          for name in own
        }
      )
    y = attention.attend(query, memory["key"], memory["value"], mask, kernel=self.attention_kernel)
    y = dense("output")(y.reshape((*y.shape[:2], x.shape[-1])))
    return y if start is None else (y, memory)


class MLP(nn.Module):
  """Two layers with the exact (erf) GELU (or ReLU) between them. [B, N, D] -> [B, N, D]."""

  mlp: int
  initializer: str = "vit"
  dtype: Any = jnp.float32
  activation: str = "gelu"

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel_init = INITIALISERS[self.initializer]
    y = nn.Dense(self.mlp, dtype=self.dtype, kernel_init=kernel_init, name="up")(x)
    y = nn.with_logical_constraint(y, ("batch", "token", "mlp"))
    y = ACTIVATIONS[self.activation](y)
    return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=kernel_init, name="down")(y)


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)). [B, N, D] -> [B, N, D]; the residual stream
  keeps `dtype`.
  """

  heads: int
  mlp: int
  epsilon: float = 1e-12
  initializer: str = "vit"
  dtype: Any = jnp.float32
  activation: str = "gelu"
  attention_kernel: str = "auto"
  first: int | None = None  # only so many tokens are computed, from all; None = all

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array | None = None,
    start: jax.Array | int | None = None,
    memory: Memory | None = None,
  ) -> Any:
    """Arguments as for `Attention`; with `start` the result is (x, memory)."""
    x = nn.with_logical_constraint(x, ("batch", "token", "embed"))
    y = LayerNorm(epsilon=self.epsilon, name="norm_attention")(x).astype(self.dtype)
    y = Attention(
      self.heads, self.initializer, self.dtype, self.attention_kernel, name="attention"
    )(y, mask, start, memory, self.first)
    if start is not None:
      y, memory = y
    x = x[:, : self.first] + y
    y = LayerNorm(epsilon=self.epsilon, name="norm_mlp")(x).astype(self.dtype)
    x = x + MLP(self.mlp, self.initializer, self.dtype, self.activation, name="mlp")(y)
    x = nn.with_logical_constraint(x, ("batch", "token", "embed"))
    return x if start is None else (x, memory)


class Stack(nn.Module):
  """`depth` blocks (none: the identity). [B, N, D] -> [B, N, D].

  `block` is the class of the layers: `block(x, *inputs)`, or `block(x, *inputs, layer)` with what
  belongs to that layer alone, returns x or (x, something of that layer). `settings` are fields of
  the block that the stack does not know.

  With `scan` the parameters lie under "blocks" with a leading layer axis L and the compiled program
  holds one layer; without it they lie under "blocks_0", "blocks_1", ... (see `stack_layers` and
  `unstack_layers`). Parents add it with `add_stack`, so that it brings no level of its own into the
  names.
  """

  depth: int
  heads: int
  mlp: int
  epsilon: float = 1e-12
  initializer: str = "vit"
  dtype: Any = jnp.float32
  scan: bool = True
  remat: str = "none"
  attention_kernel: str = "auto"
  block: Any = Block
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @nn.compact
  def __call__(
    self, x: jax.Array, *inputs: Any, layers: Any = None, first: int | None = None
  ) -> Any:
    """Runs the blocks.

    Args:
      x: [B, N, D].
      *inputs: what every block gets (masks, conditions).
      layers: a tree of arrays [L, ...], a slice for each block.
      first: only so many tokens of the result are wanted: the last layer computes no others
        (without inputs and layers).

    Returns:
      x, or (x, the blocks' second results stacked to [L, ...]).
    """
    chex.assert_rank(x, 3)
    policy = config_utils.lookup(REMAT, self.remat, "remat")
    config_utils.lookup(INITIALISERS, self.initializer, "initializer")
    # Inside scan the loop itself keeps XLA from merging the recomputation away.
    block = (
      self.block
      if policy is None
      else nn.remat(self.block, prevent_cse=not self.scan, policy=policy)
    )
    fields = dict(
      heads=self.heads,
      mlp=self.mlp,
      epsilon=self.epsilon,
      initializer=self.initializer,
      dtype=self.dtype,
      attention_kernel=self.attention_kernel,
      **self.settings,
    )
    x = x.astype(self.dtype)

    def one(module: nn.Module, x: jax.Array, layer: Any, inputs: tuple) -> tuple[jax.Array, Any]:
      result = module(x, *inputs) if layers is None else module(x, *inputs, layer)
      return result if isinstance(result, tuple) else (result, None)

    if not self.depth:
      return x[:, :first]
    if first is not None and self.scan:
      if not self.is_initializing():
        return self._all_but_last(x, fields, policy, first)
      x = x[:, :first]  # shapes of parameters do not depend on the number of tokens
    if not self.scan:
      results = []
      for number in range(self.depth):
        layer = jax.tree.map(lambda leaf, number=number: leaf[number], layers)
        last = {"first": first} if first is not None and number == self.depth - 1 else {}
        x, result = one(block(**fields, **last, name=f"blocks_{number}"), x, layer, inputs)
        results.append(result)
      stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)
    else:
      scanned = nn.scan(
        one,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast),
        length=self.depth,
      )
      x, stacked = scanned(block(**fields, name="blocks"), x, layers, inputs)
    return x if stacked is None else (x, stacked)

  def _all_but_last(
    self, x: jax.Array, fields: dict[str, Any], policy: Callable | None, first: int
  ) -> jax.Array:
    """The layers but the last in a scan, then the last one for the first tokens alone."""
    params = self.variables["params"]["blocks"]

    def layer(**more: Any) -> Callable[[jax.Array, Any], jax.Array]:
      module = self.block(**fields, **more, parent=None)

      def run(x, params):
        return module.apply({"params": params}, x)

      return run if policy is None else jax.checkpoint(run, prevent_cse=bool(more), policy=policy)

    every, last = layer(), layer(first=first)
    x, _ = jax.lax.scan(
      lambda x, params: (every(x, params), None), x, jax.tree.map(lambda leaf: leaf[:-1], params)
    )
    return last(x, jax.tree.map(lambda leaf: leaf[-1], params))


def add_stack(parent: nn.Module, **fields: Any) -> Stack:
  """A Stack inside `parent` whose parameters are called parent/blocks/..., without a level of its
  own.

  Fields that are not given are the parent's of the same name, or Stack's defaults for `block` and
  `settings`.
  """
  names = (
    "depth",
    "heads",
    "mlp",
    "epsilon",
    "initializer",
    "dtype",
    "scan",
    "remat",
    "attention_kernel",
  )
  stack = Stack(**{name: getattr(parent, name) for name in names if name not in fields}, **fields)
  nn.share_scope(parent, stack)
  return stack


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters of an unrolled model -> those of the scanned one: blocks_0, blocks_1, ... become
  blocks [L, ...].
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
