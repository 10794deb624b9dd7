"""Patch embedding and sin-cos positions.

Legend: B batch, H W image, N patches, D width, p patch size, G patches along a side.
"""

from collections.abc import Callable
from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from como_jax.models import pixels


class PatchEmbedding(nn.Module):
  """[B, H, W, 3] -> [B, N, D] in raster order.

  It is a convolution whose stride is its size, computed as one matrix product.

  Attributes:
    width: D.
    patch: p.
    kernel_init: initializer of the matrix.
    dtype: of the matrix product.
  """

  width: int
  patch: int
  kernel_init: Callable
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, frames: jax.Array) -> jax.Array:
    """frames: [B, H, W, 3]."""
    size = self.patch
    # Initialized as a matrix [p*p*3, D], as in MAE, so that the fan-in is a whole patch.
    kernel = self.param(
      "kernel",
      lambda key, shape: einops.rearrange(
        self.kernel_init(key, (size * size * 3, self.width)), "(p q c) d -> p q c d", p=size, q=size
      ),
      (size, size, 3, self.width),
    )
    bias = self.param("bias", nn.initializers.zeros, (self.width,))
    matrix = einops.rearrange(kernel, "p q c d -> (p q c) d").astype(self.dtype)
    tokens = pixels.patchify(frames.astype(self.dtype), size) @ matrix
    return tokens + bias.astype(self.dtype)[None, None]


def sincos_2d(width: int, grid: int, *, cls: bool) -> np.ndarray:
  """MAE's fixed positions, float32 [1, G*G (+1 first, zeros, for CLS), D].

  The first half of the width encodes the column, the second the row; each half is [sin, cos] over
  frequencies 10000^(-i/(D/4)). Source: MAE (facebookresearch/mae, util/pos_embed.py), rewritten.

  Args:
    width: D.
    grid: G.
    cls: whether a position for CLS comes first.
  """
  frequency = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width / 4))
  angle = np.arange(grid, dtype=np.float64)[:, None] * frequency[None]  # [G, D/4]
  axis = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)  # [G, D/2]
  column = np.broadcast_to(axis[None], (grid, grid, width // 2))
  row = np.broadcast_to(axis[:, None], (grid, grid, width // 2))
  table = np.concatenate([column, row], axis=2).reshape(grid * grid, width)
  if cls:
    table = np.concatenate([np.zeros((1, width)), table])
  return table[None].astype(np.float32)
