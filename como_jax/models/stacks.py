"""Stacks of transformer blocks: scanned or not, rematerialized or not.

Legend: B batch, N tokens, D width, L layers.

`nn.scan` and `nn.remat` are used in this file and nowhere else.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import attention, config_utils, specs, transformer


def _keeps_attention(primitive: Any, *args: Any, **params: Any) -> bool:
  """Keeps what "dots_no_batch" keeps, and the results of attention.

  Of a fused kernel these are also the sums of its softmax: without them its backward pass would run
  the forward kernel again.
  """
  return bool(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *args, **params)
    or primitive.name in attention.FUSED_OPERATIONS
    or jax.checkpoint_policies.save_only_these_names(attention.RESULT)(primitive, *args, **params)
  )


# What the backward pass may keep of a layer: everything, only its input, or also the results of
# matrix products; "dots_attention" keeps those of "dots_no_batch" and of attention.
REMAT: dict[str, Callable | None] = {
  "none": None,
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_saveable,
  "dots_no_batch": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  "dots_attention": _keeps_attention,
}


class Stack(nn.Module):
  """`depth` blocks (none: the identity). [B, N, D] -> [B, N, D].

  With `scan` the parameters lie under "blocks" with a leading layer axis L and the compiled program
  holds one layer. Without it they lie under "blocks_0", "blocks_1", ... (see `stack_layers` and
  `unstack_layers`). Parents add a stack with `add_stack`, so that it adds no level to the names.

  With `token_multiple` the tokens are padded once, before the first block, and not around every
  call of a fused kernel. Nobody attends to the padding, and the result does not have it.

  Attributes:
    stack: settings of the stack.
    block: class of the layers. `block(x, *inputs)`, or `block(x, *inputs, layer)` with what belongs
      to that layer alone, returns x or (x, a result of that layer).
    settings: fields of the block that `StackConfig` does not have.
  """

  stack: specs.StackConfig
  block: Any = transformer.Block
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

    Raises:
      ValueError: padding of blocks that receive `inputs` or `layers`, which say nothing of it.
    """
    chex.assert_rank(x, 3)
    stack, num_tokens = self.stack, x.shape[1]
    padding = -num_tokens % stack.token_multiple
    if padding:
      if inputs or layers is not None:
        raise ValueError("token_multiple: only blocks without further inputs can be padded")
      x = jnp.pad(x, ((0, 0), (0, padding), (0, 0)))
    policy = config_utils.lookup(REMAT, stack.remat, "remat")
    config_utils.lookup(transformer.INITIALIZERS, stack.initializer, "initializer")
    # Inside scan the loop itself keeps XLA from merging the recomputation away.
    block = (
      self.block
      if policy is None
      else nn.remat(self.block, prevent_cse=not stack.scan, policy=policy)
    )
    fields: dict[str, Any] = {"stack": stack, **self.settings}
    if padding:
      fields["num_tokens"] = num_tokens
    x = x.astype(stack.dtype)

    def run(module: nn.Module, x: jax.Array, layer: Any, inputs: tuple) -> tuple[jax.Array, Any]:
      result = module(x, *inputs) if layers is None else module(x, *inputs, layer)
      return result if isinstance(result, tuple) else (result, None)

    if not stack.depth:
      return x[:, : num_tokens if num_outputs is None else num_outputs]
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
        in_axes=cast(Any, (0, nn.broadcast)),  # a value for each argument: Flax declares one int
        length=stack.depth,
      )
      x, stacked = scanned(block(**fields, name="blocks"), x, layers, inputs)
    if padding and num_outputs is None:
      x = x[:, :num_tokens]
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
