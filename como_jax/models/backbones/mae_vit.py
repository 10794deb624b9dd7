"""The encoder of a masked autoencoder: ViT with CLS, fixed sin-cos positions, final LayerNorm.

Legend: B batch, H W image, N patches, V visible patches, D width. Source: He et al., arXiv
2111.06377.
"""

import re
from collections.abc import Mapping
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax import trees
from como_jax.models import config_utils, embed, sizes, specs, stacks, transformer

_MATRICES = re.compile(r"(patch|attention/\w+|mlp/\w+)/(kernel|bias)$")


class Encoder(nn.Module):
  """Frames -> tokens after the final LayerNorm (float32), CLS first.

  Attributes:
    stack: settings of the transformer.
    patch: pixels along a side of a patch.
    image_size: H = W.
    param_dtype: in which the weights of matrix products are kept, see `stored`.
  """

  stack: specs.StackConfig
  patch: int
  image_size: int
  param_dtype: str = "float32"

  @property
  def width(self) -> int:
    """D."""
    return self.stack.width

  @property
  def grid(self) -> int:
    """Patches along a side of an image."""
    return self.image_size // self.patch

  @nn.compact
  def __call__(self, frames: jax.Array, ids_keep: jax.Array | None = None) -> jax.Array:
    """Encodes frames, or only some of their patches.

    Args:
      frames: [B, H, W, 3], ImageNet-normalized.
      ids_keep: int [B, V], the patches to encode, numbered in raster order; None for all of them.

    Returns:
      [B, V+1, D], or [B, N+1, D] when `ids_keep` is None.
    """
    chex.assert_shape(frames, (None, self.image_size, self.image_size, 3))
    width, dtype = self.width, self.stack.dtype
    kernel_init = config_utils.lookup(
      transformer.INITIALIZERS, self.stack.initializer, "initializer"
    )
    tokens = embed.PatchEmbedding(width, self.patch, kernel_init, dtype, name="patch")(frames)
    cls = self.param("cls", nn.initializers.normal(0.02), (1, 1, width))
    # A parameter, so that it is saved and counted (303,301,632 for L/16), but always kept frozen.
    position = self.param(
      "position", lambda key: jnp.asarray(embed.sincos_2d(width, self.grid, cls=True))
    )
    tokens = tokens + position[:, 1:].astype(dtype)
    if ids_keep is not None:
      chex.assert_shape(ids_keep, (frames.shape[0], None))
      tokens = jnp.take_along_axis(tokens, ids_keep[..., None], axis=1)
    first = jnp.broadcast_to((cls + position[:, :1]).astype(dtype), (frames.shape[0], 1, width))
    x = jnp.concatenate([first, tokens], axis=1)
    x = stacks.add_stack(self)(x)
    return transformer.LayerNorm(epsilon=self.stack.epsilon, name="norm")(x)


def stored(encoder: Any, params: Mapping[str, Any]) -> dict[str, Any]:
  """The parameters in the dtypes in which a model keeps them.

  The weights of matrix products have the encoder's `param_dtype`. If that is the dtype of the
  products, which round them anyway, no result changes. LayerNorms and positions stay float32.

  Args:
    encoder: the encoder; one without `param_dtype` keeps float32.
    params: its parameters.
  """
  dtype = jnp.dtype(getattr(encoder, "param_dtype", "float32"))
  return trees.unflatten(
    {
      name: leaf.astype(dtype) if _MATRICES.search(name) else leaf
      for name, leaf in trees.flatten(params).items()
    }
  )


def refit_positions(params: Mapping[str, Any], image_size: int) -> dict[str, Any]:
  """Encoder parameters for another image size, with the position table of the new grid.

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
