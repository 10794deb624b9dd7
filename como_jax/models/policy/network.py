"""The transformer of the autoregressive policy, with an explicit cache.

Legend: B batch, N tokens, D width, H heads.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import modules, specs, stacks, transformer


class Network(nn.Module):
  """The transformer and its final LayerNorm.

  Attributes:
    stack: settings of the transformer.
    activation: a key of `transformer.ACTIVATIONS`.
  """

  stack: specs.StackConfig
  activation: str = "gelu"

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array,
    cache_index: jax.Array | int | None = None,
    cache: transformer.KVCache | None = None,
  ) -> tuple[jax.Array, transformer.KVCache | None]:
    """Runs tokens that attend to each other, or to a cache.

    Args:
      x: [B, N, D].
      mask: bool [B, 1, N, N or the cache's length].
      cache_index: where the tokens' keys and values are written in the cache; None only reads it.
      cache: as from `empty_cache`.

    Returns:
      (float32 [B, N, D], the updated cache, or None without `cache_index`).
    """
    x = stacks.add_stack(self, settings={"activation": self.activation})(
      x, mask, cache_index, layers=cache
    )
    x, cache = x if cache_index is not None else (x, None)
    return transformer.LayerNorm(epsilon=self.stack.epsilon, name="norm")(x), cache

  def empty_cache(self, batch: int, length: int) -> transformer.KVCache:
    """The caches of all layers, filled with zeros.

    Args:
      batch: B.
      length: tokens that it can hold.

    Returns:
      {"key", "value"}, each [layers, B, length, H, D/H].
    """
    stack = self.stack
    shape = (stack.depth, batch, length, stack.num_heads, stack.head_dim)
    return {name: jnp.zeros(shape, stack.dtype) for name in ("key", "value")}


def run(
  network: Network,
  params: modules.Params,
  x: jax.Array,
  mask: jax.Array,
  cache: transformer.KVCache | None = None,
) -> jax.Array:
  """Outputs float32 [B, N, D] of tokens that attend to each other, or only to a cache.

  Args:
    network: the transformer.
    params: its parameters.
    x: [B, N, D].
    mask: bool [B, 1, N, N or the cache's length].
    cache: as from `empty_cache`; it is only read.
  """
  return modules.apply(network, params, x, mask, None, cache)[0]


def extend(
  network: Network,
  params: modules.Params,
  x: jax.Array,
  mask: jax.Array,
  cache_index: jax.Array | int,
  cache: transformer.KVCache,
) -> tuple[jax.Array, transformer.KVCache]:
  """Runs tokens whose keys and values are written into a cache.

  Args:
    network: the transformer.
    params: its parameters.
    x: [B, N, D].
    mask: bool [B, 1, N, the cache's length].
    cache_index: where the keys and values are written.
    cache: as from `empty_cache`.

  Returns:
    (outputs float32 [B, N, D], the new cache).
  """
  outputs, written = modules.apply(network, params, x, mask, cache_index, cache)
  assert written is not None  # because of `cache_index`
  return outputs, written
