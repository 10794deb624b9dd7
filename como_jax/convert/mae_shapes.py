"""Sizes of a published MAE or ViT, and the shapes that our parameters then have."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.convert import mae_layouts, mapping


@dataclasses.dataclass(frozen=True)
class Shape:
  """Sizes of a transformer: width, number of layers, attention heads, width of the MLP."""

  width: int
  depth: int
  num_heads: int
  mlp_dim: int


@dataclasses.dataclass(frozen=True)
class Measured:
  """What the patch projection and the positions tell.

  Attributes:
    width: of the encoder.
    patch: pixels along a side of a patch.
    grid: patches along a side of an image.
  """

  width: int
  patch: int
  grid: int


def measure(tensors: Mapping[str, np.ndarray], layout: str) -> Measured | None:
  """Width, patch size and patches per side, from the patch projection and the positions.

  None if one of them is missing or has an unexpected shape.
  """
  foreign = {rule.target: rule.source for rule in mae_layouts.rules(layout)}
  kernel, position = (
    np.shape(tensors.get(foreign[f"encoder/{part}"], 0.0)) for part in ("patch/kernel", "position")
  )
  if len(kernel) != 4 or len(position) != 3:
    return None
  grid = math.isqrt(max(position[1] - 1, 0))
  if not grid or grid * grid + 1 != position[1]:
    return None
  return Measured(width=kernel[0], patch=kernel[2], grid=grid)


def expected(
  tensors: Mapping[str, np.ndarray], layout: str, measured: Measured, *, decoder: bool
) -> dict[str, tuple[int, ...]]:
  """The names and shapes of our parameters.

  The number of layers is counted in the checkpoint.

  Args:
    tensors: {foreign name: array}.
    layout: the layout.
    measured: as from `measure`.
    decoder: also for the pixel decoder.
  """
  foreign = {rule.target: rule.source for rule in mae_layouts.rules(layout, decoder=decoder)}
  width, patch, positions = measured.width, measured.patch, measured.grid**2 + 1

  def stack(part: str, width: int) -> dict[str, tuple[int, ...]]:
    prefix, suffix = foreign[f"{part}/blocks/mlp/up/bias"].split(mapping.LAYER)
    depth = sum(name.startswith(prefix) and name.endswith(suffix) for name in tensors)
    return _stack(width, depth, positions)

  encoder = {
    **stack("encoder", width),
    "cls": (1, 1, width),
    "patch/kernel": (patch, patch, 3, width),
    "patch/bias": (width,),
  }
  shapes = {f"encoder/{name}": shape for name, shape in encoder.items()}
  if not decoder:
    return shapes
  inner = np.shape(tensors.get(foreign["decoder/mask_token"], 0.0))[-1:] or (0,)
  pixels = 3 * patch * patch
  decoder_shapes = {
    **stack("decoder", inner[0]),
    "embed/kernel": (width, *inner),
    "embed/bias": inner,
    "mask_token": (1, 1, *inner),
    "head/kernel": (*inner, pixels),
    "head/bias": (pixels,),
  }
  return shapes | {f"decoder/{name}": shape for name, shape in decoder_shapes.items()}


def _stack(width: int, depth: int, positions: int) -> dict[str, tuple[int, ...]]:
  """Shapes of a transformer of `depth` layers, with its positions and final LayerNorm."""
  blocks = {
    "norm_attention/scale": (width,),
    "norm_attention/bias": (width,),
    "norm_mlp/scale": (width,),
    "norm_mlp/bias": (width,),
    "mlp/up/kernel": (width, 4 * width),
    "mlp/up/bias": (4 * width,),
    "mlp/down/kernel": (4 * width, width),
    "mlp/down/bias": (width,),
  }
  for head in ("query", "key", "value", "output"):
    blocks |= {f"attention/{head}/kernel": (width, width), f"attention/{head}/bias": (width,)}
  return {
    "norm/scale": (width,),
    "norm/bias": (width,),
    "position": (1, positions, width),
    **{f"blocks/{name}": (depth, *shape) for name, shape in blocks.items()},
  }


def of_params(params: Mapping[str, Any], heads: float, *, what: str) -> Shape:
  """The sizes of a converted transformer.

  Args:
    params: of the encoder or of the decoder.
    heads: attention heads.
    what: its name in messages.

  Raises:
    errors.UserError: the width cannot be split over so many heads.
  """
  depth, width, mlp = params["blocks"]["mlp"]["up"]["kernel"].shape
  if heads != int(heads) or heads < 1 or width % int(heads):
    raise errors.UserError(
      f"{what} of width {width} cannot have {heads:g} attention heads; say how many (--heads)"
    )
  return Shape(width, depth, int(heads), mlp)
