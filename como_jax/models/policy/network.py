"""The transformer of the autoregressive policy, with an explicit cache.

Legend: B batch, N tokens, D width, H heads.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import transformer


class Network(nn.Module):
  """The transformer and its final LayerNorm."""

  width: int
  depth: int
  heads: int
  mlp: int
  activation: str = "gelu"
  epsilon: float = 1e-6
  initializer: str = "mae"
  dtype: Any = jnp.float32
  scan: bool = True
  remat: str = "none"
  attention_kernel: str = "auto"

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array,
    start: jax.Array | int | None = None,
    memory: transformer.Memory | None = None,
  ) -> tuple[jax.Array, transformer.Memory | None]:
    """Runs tokens that see each other, or a memory.

    Args:
      x: [B, N, D].
      mask: bool [B, 1, N, N or the memory's length].
      start: where the tokens' keys and values are written in the memory; None to only read it.
      memory: as from `empty`.

    Returns:
      (float32 [B, N, D], the memory as it is now, None without `start`).
    """
    x = transformer.add_stack(self, settings={"activation": self.activation})(
      x, mask, start, layers=memory
    )
    x, memory = x if start is not None else (x, None)
    return transformer.LayerNorm(epsilon=self.epsilon, name="norm")(x), memory

  def empty(self, batch: int, length: int) -> transformer.Memory:
    """A memory of all layers for `length` tokens: {"key", "value"}, each [layers, B, length, H,
    D/H].
    """
    shape = (self.depth, batch, length, self.heads, self.width // self.heads)
    return {name: jnp.zeros(shape, self.dtype) for name in ("key", "value")}
