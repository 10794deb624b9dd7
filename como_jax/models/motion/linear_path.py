"""The linear path from two frames to z, which starts as principal components.

Legend: B batch, N patches, D width of the encoder (2 for flow), G groups of patches, C components,
Q queries, Z latent dimensions per query.

The first C of the Q*Z values of z are a matrix times the difference of the frames' features, or
times the optical flow between them, plus the output of the Q-former, which starts at zero. So z
starts as the principal components, which take seconds to compute, and training improves on them.
There is no constant: two equal frames give 0, and with the features' difference a reversed pair
gives the negative.

The linear path is this part of the model; components are the C numbers that it computes. They are
what the config counts (model.idm.components, components_pool and components_of; C = 0: there is no
linear path) and what its parameters are called ("idm/components"). The exam's rows "components of
the difference" and "components of the optical flow" are principal components of the same
quantities, without a model and without training.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import chex
import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax import errors
from como_jax.models import pixels, specs
from como_jax.models.motion import flow as flow_lib

INPUTS = ("feature_diff", "none")  # those that read the tokens of both frames
SOURCES = ("features", "flow")  # what the components are of
FLOW_SIDE = 64  # pixels: larger images are averaged down to this before the flow is computed
BOTTLENECKS = ("continuous", "kl")  # a codebook starts far from values of unit variance


def pool_patches(tokens: jax.Array, pool: int) -> jax.Array:
  """Means over pool x pool patches, without CLS.

  Args:
    tokens: [B, N+1, D], CLS first, raster order.
    pool: patches along a side of a group.

  Returns:
    [B, G, D].
  """
  side = round((tokens.shape[1] - 1) ** 0.5)
  return einops.reduce(
    tokens[:, 1:],
    "b (h p w q) d -> b (h w) d",
    "mean",
    p=pool,
    q=pool,
    h=side // pool,
    w=side // pool,
  )


def flow_downscale(size: int, side: int) -> int:
  """The factor by which images are reduced before their flow is computed; 0 where none fits.

  The reduced size is `FLOW_SIDE`, or the next size above it that divides into side x side cells and
  can be halved twice.

  Args:
    size: pixels along a side of an image.
    side: cells along a side.
  """
  factors = [
    factor
    for factor in range(max(1, size // FLOW_SIDE), 0, -1)
    if size % factor == 0 and size // factor % side == 0 and size // factor % 4 == 0
  ]
  return factors[0] if factors else 0


def flow_cells(first: jax.Array, second: jax.Array, groups: int) -> jax.Array:
  """Optical flow between frames, in units of 1/64 of the image.

  Args:
    first: [B, H, W, 3], ImageNet-normalized.
    second: [B, H, W, 3], ImageNet-normalized.
    groups: number of cells, a square.

  Returns:
    [B, groups, 2].
  """
  factor = flow_downscale(first.shape[1], round(groups**0.5))

  def downscale(x: jax.Array) -> jax.Array:
    x = pixels.denormalize(x)
    return (
      einops.reduce(x, "b (h p) (w q) c -> b h w c", "mean", p=factor, q=factor)
      if factor > 1
      else x
    )

  first, second = downscale(first), downscale(second)
  flow = flow_lib.optical_flow(first, second) * (FLOW_SIDE / first.shape[1])
  return flow_lib.mean_per_cell(flow, round(groups**0.5))


class LinearPath(nn.Module):
  """z = mean over groups g of kernel[g]^T (difference or flow of group g).

  The mean, not the sum: a step of Adam then moves z as far as a step of any other layer of width D
  would. The kernel has N / pool^2 * D * C values: 262,144 for 64 patches of width 128 and 32
  components, 25.7 million for L/16 at 224 px and 128 components, which is too many: use pool 2 or
  7.

  Attributes:
    count: C.
    latent: Q and Z.
    num_patches: N, a square grid.
    pool: patches along a side of a group.
    source: of `SOURCES`.
  """

  count: int
  latent: specs.LatentSpec
  num_patches: int
  pool: int = 1
  source: str = "features"

  @property
  def groups(self) -> int:
    """G."""
    return self.num_patches // self.pool**2

  def differences(
    self, tokens: tuple[jax.Array, jax.Array], images: tuple[jax.Array, jax.Array] | None
  ) -> jax.Array:
    """What differs between frames: [B, G, D].

    Args:
      tokens: of the first and second frames, each [B, N+1, D], CLS first.
      images: the frames [B, H, W, 3], ImageNet-normalized; only flow reads them.

    Raises:
      ValueError: flow without images.
    """
    if self.source == "flow":
      if images is None:
        raise ValueError("the flow between frames needs their images")
      return flow_cells(*images, self.groups)
    chex.assert_shape(list(tokens), (None, self.num_patches + 1, None))
    return pool_patches(tokens[1] - tokens[0], self.pool).astype(jnp.float32)

  @nn.compact
  def __call__(self, difference: jax.Array) -> jax.Array:
    """`difference` [B, G, D], as from `differences` -> [B, Q, Z]; 0 beyond the first C values."""
    groups, width = difference.shape[1:]
    # Replaced by the principal components when a run starts (linear_path_init.py).
    kernel = self.param(
      "kernel", nn.initializers.truncated_normal(0.02), (groups, width, self.count)
    )
    z = jnp.einsum("bgd,gdc->bc", difference, kernel) / groups
    z = jnp.pad(z, ((0, 0), (0, self.latent.size - self.count)))
    return z.reshape((-1, *dataclasses.astuple(self.latent)))


def pop_settings(section: dict[str, Any]) -> dict[str, Any]:
  """Pops this path's keys of the section model.idm; {} where the path is off."""
  settings = {
    "count": section.pop("components", 0),
    "pool": section.pop("components_pool", 1),
    "source": section.pop("components_of", "features"),
  }
  return settings if settings["count"] else {}


def check(path: LinearPath, idm: Mapping[str, Any], kind: str, image_size: int) -> LinearPath:
  """The same module, after a check that it fits the rest of the model.

  Args:
    path: the module.
    idm: the section model.idm.
    kind: of the bottleneck.
    image_size: pixels.

  Raises:
    errors.UserError: naming the key.
  """
  if path.source not in SOURCES:
    raise errors.UserError(
      f"model.idm.components_of={path.source!r} is unknown: {errors.nearest(path.source, SOURCES)}"
    )
  count, max_count = f"model.idm.components={path.count}", path.latent.size
  if not 0 < path.count <= max_count:
    raise errors.UserError(
      f"{count}, expected 0 (off) to {max_count}, the length of z (model.idm.num_queries x "
      "model.bottleneck.latent_dim)"
    )
  side = round(path.num_patches**0.5)
  if path.pool < 1 or side % path.pool:
    valid = ", ".join(str(i) for i in range(1, side + 1) if side % i == 0)
    raise errors.UserError(
      f"model.idm.components_pool={path.pool} does not divide {side}, the patches along a "
      f"side: take one of {valid}"
    )
  cells = round(path.groups**0.5)
  if path.source == "flow" and not flow_downscale(image_size, cells):
    raise errors.UserError(
      f"model.idm.components_of=flow: pictures of {image_size} px do not divide into {cells} x "
      f"{cells} cells with sides that are multiples of 4: take another model.image_size or "
      "model.idm.components_pool"
    )
  if kind not in BOTTLENECKS:
    raise errors.UserError(
      f"{count} needs model.bottleneck.kind={' or '.join(BOTTLENECKS)}, it is {kind!r}"
    )
  if idm["inputs"] not in INPUTS:
    raise errors.UserError(
      f"{count} needs model.idm.inputs={' or '.join(INPUTS)}, it is {idm['inputs']!r}"
    )
  if idm.get("patch_order", "raster") != "raster":
    raise errors.UserError(
      f"{count} needs model.idm.patch_order=raster, it is {idm['patch_order']!r}"
    )
  return path
