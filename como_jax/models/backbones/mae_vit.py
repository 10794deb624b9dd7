"""The encoder of a masked autoencoder: a ViT with CLS, fixed sin-cos positions and a final
LayerNorm.

Legend: B batch, H W image, N patches, V visible patches, D width. Source: He et al., arXiv
2111.06377.
"""

from collections.abc import Mapping
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import config_utils, embed, sizes, transformer


class Encoder(nn.Module):
  """Frames -> tokens after the final LayerNorm (float32), CLS first."""

  size: sizes.Size
  image_size: int
  epsilon: float = 1e-12
  initializer: str = "mae"
  dtype: Any = jnp.float32
  scan: bool = True
  remat: str = "none"
  attention_kernel: str = "auto"

  @nn.compact
  def __call__(self, frames: jax.Array, keep: jax.Array | None = None) -> jax.Array:
    """Encodes frames, or only some of their patches.

    Args:
      frames: [B, H, W, 3], ImageNet-normalized.
      keep: int [B, V], the patches to look at, in raster numbering; None for all of them.

    Returns:
      [B, V+1, D], or [B, N+1, D] when `keep` is None.
    """
    chex.assert_shape(frames, (None, self.image_size, self.image_size, 3))
    size, grid = self.size, self.size.grid(self.image_size)
    kernel_init = config_utils.lookup(transformer.INITIALISERS, self.initializer, "initializer")
    tokens = embed.PatchEmbedding(size.width, size.patch, kernel_init, self.dtype, name="patch")(
      frames
    )
    cls = self.param("cls", nn.initializers.normal(0.02), (1, 1, size.width))
    # A parameter, so that it is saved and counted (303,301,632 for L/16), but always kept frozen.
    position = self.param(
      "position", lambda key: jnp.asarray(embed.sincos_2d(size.width, grid, cls=True))
    )
    tokens = tokens + position[:, 1:].astype(self.dtype)
    if keep is not None:
      chex.assert_shape(keep, (frames.shape[0], None))
      tokens = jnp.take_along_axis(tokens, keep[..., None], axis=1)
    first = jnp.broadcast_to(
      (cls + position[:, :1]).astype(self.dtype), (frames.shape[0], 1, size.width)
    )
    x = jnp.concatenate([first, tokens], axis=1)
    x = transformer.add_stack(self, depth=size.depth, heads=size.heads, mlp=size.mlp)(x)
    return transformer.LayerNorm(epsilon=self.epsilon, name="norm")(x)


def refit_positions(params: Mapping[str, Any], image_size: int) -> dict[str, Any]:
  """Encoder parameters for another image size: the fixed position table is computed again for the
  new grid.

  Args:
    params: the encoder's parameters (with "patch/kernel" [p, p, 3, D] and "position").
    image_size: the new size in pixels.

  Raises:
    errors.UserError: the image is not a whole number of patches wide.
  """
  patch, _, _, width = params["patch"]["kernel"].shape
  grid = sizes.Size(width, 1, 1, 1, patch).grid(image_size)
  if params["position"].shape[1] == grid * grid + 1:
    return dict(params)
  return {
    **params,
    "position": jnp.asarray(embed.sincos_2d(width, grid, cls=True), params["position"].dtype),
  }
