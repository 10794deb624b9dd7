"""Pre-LayerNorm transformer: attention, MLP, block, and a stack that is scanned over layers and rematerialised.

Legend: B batch, N tokens, D width, H heads, M width of the MLP, L layers.

Parameters are float32; `dtype` is what matrix products run in. LayerNorm statistics and the softmax are always float32.
`nn.scan` and `nn.remat` are used in this file and nowhere else.
"""

from collections.abc import Callable, Mapping
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax import errors
from como_jax.models import spread

# "mae" is what MAE initialises its transformer with; "vit" what the ViT of Hugging Face (and so Moto and CoMo) does.
INITIALISERS: dict[str, Callable] = {
    "mae": nn.initializers.xavier_uniform(),
    "vit": nn.initializers.truncated_normal(0.02),
}

# What the backward pass may keep of a layer: everything, only its input, or also the results of matrix products.
REMAT: dict[str, Callable | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_saveable,
    "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class LayerNorm(nn.LayerNorm):
  """LayerNorm in float32 with the two-pass variance (the fast one loses digits that torch parity needs)."""

  epsilon: float = 1e-12
  dtype: Any = jnp.float32
  use_fast_variance: bool = False


class Attention(nn.Module):
  """Multi-head self-attention with biases on query, key, value and output. [B, N, D] -> [B, N, D]."""

  heads: int
  initialiser: str = "vit"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Args: x [B, N, D]; mask bool, True = may attend, [B or 1, 1 or H, N, N]."""
    width = x.shape[-1]
    if width % self.heads:
      raise errors.UserError(f"attention: width {width} is not a multiple of heads {self.heads}")

    def dense(name: str) -> nn.Dense:
      return nn.Dense(width, dtype=self.dtype, kernel_init=INITIALISERS[self.initialiser], name=name)

    def split(y: jax.Array) -> jax.Array:
      y = y.reshape((*y.shape[:-1], self.heads, width // self.heads))
      return nn.with_logical_constraint(y, ("batch", "token", "heads", None))

    query, key, value = (split(dense(name)(x)) for name in ("query", "key", "value"))
    y = jax.nn.dot_product_attention(query, key, value, mask=mask)
    return dense("output")(y.reshape(x.shape))


class MLP(nn.Module):
  """Two layers with the exact (erf) GELU between them. [B, N, D] -> [B, N, D]."""

  mlp: int
  initialiser: str = "vit"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    kernel_init = INITIALISERS[self.initialiser]
    y = nn.Dense(self.mlp, dtype=self.dtype, kernel_init=kernel_init, name="up")(x)
    y = nn.with_logical_constraint(y, ("batch", "token", "mlp"))
    y = jax.nn.gelu(y, approximate=False)
    return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=kernel_init, name="down")(y)


class Block(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)). [B, N, D] -> [B, N, D]; the residual stream keeps `dtype`."""

  heads: int
  mlp: int
  epsilon: float = 1e-12
  initialiser: str = "vit"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    x = nn.with_logical_constraint(x, ("batch", "token", "embed"))
    y = LayerNorm(epsilon=self.epsilon, name="norm_attention")(x).astype(self.dtype)
    x = x + Attention(self.heads, self.initialiser, self.dtype, name="attention")(y, mask)
    y = LayerNorm(epsilon=self.epsilon, name="norm_mlp")(x).astype(self.dtype)
    x = x + MLP(self.mlp, self.initialiser, self.dtype, name="mlp")(y)
    return nn.with_logical_constraint(x, ("batch", "token", "embed"))


class Stack(nn.Module):
  """`depth` blocks. [B, N, D] -> [B, N, D].

  With `scan` the parameters lie under "blocks" with a leading layer axis L and the compiled program holds one layer;
  without it they lie under "blocks_0", "blocks_1", ... (see `stack_layers` and `unstack_layers`).
  Parents add it with `add_stack`, so that it brings no level of its own into the names.
  """

  depth: int
  heads: int
  mlp: int
  epsilon: float = 1e-12
  initialiser: str = "vit"
  dtype: Any = jnp.float32
  scan: bool = True
  remat: str = "none"

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    chex.assert_rank(x, 3)
    policy = spread.pick(REMAT, self.remat, "remat")
    spread.pick(INITIALISERS, self.initialiser, "initialiser")
    # Inside scan the loop itself keeps XLA from merging the recomputation away.
    block = Block if policy is None else nn.remat(Block, prevent_cse=not self.scan, policy=policy)
    fields = dict(heads=self.heads, mlp=self.mlp, epsilon=self.epsilon, initialiser=self.initialiser, dtype=self.dtype)
    x = x.astype(self.dtype)
    if not self.scan:
      for layer in range(self.depth):
        x = block(**fields, name=f"blocks_{layer}")(x, mask)
      return x
    scanned = nn.scan(lambda module, carry, mask: (module(carry, mask), None), variable_axes={"params": 0},
                      split_rngs={"params": True}, in_axes=nn.broadcast, length=self.depth)
    return scanned(block(**fields, name="blocks"), x, mask)[0]


def add_stack(parent: nn.Module, **fields: Any) -> Stack:
  """A Stack inside `parent` whose parameters are called parent/blocks/..., without a level of its own.

  Fields that are not given are the parent's of the same name.
  """
  names = ("depth", "heads", "mlp", "epsilon", "initialiser", "dtype", "scan", "remat")
  stack = Stack(**{name: fields[name] if name in fields else getattr(parent, name) for name in names})
  nn.share_scope(parent, stack)
  return stack


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters of an unrolled model -> those of the scanned one: blocks_0, blocks_1, ... become blocks [L, ...]."""
  layers = sorted((name for name in params if name.startswith("blocks_")), key=lambda name: int(name.split("_")[1]))
  out = {name: stack_layers(value) if isinstance(value, Mapping) else value
         for name, value in params.items() if name not in layers}
  if layers:
    out["blocks"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[name] for name in layers))
  return out


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `stack_layers`."""
  out = {}
  for name, value in params.items():
    if name == "blocks":
      depth = jax.tree.leaves(value)[0].shape[0]
      out.update({f"blocks_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], value) for i in range(depth)})
    else:
      out[name] = unstack_layers(value) if isinstance(value, Mapping) else value
  return out
