"""Sizes of encoders as strings.

"L/16" is a named size with its patch, "32x2x2/8" is WIDTHxDEPTHxHEADS/PATCH.
"""

import dataclasses
import re
from typing import Any

from como_jax import errors
from como_jax.models import specs

NAMED = {  # width, depth, num_heads; the MLP is four times as wide as the model in all of them
  "Ti": (192, 12, 3),
  "S": (384, 12, 6),
  "B": (768, 12, 12),
  "L": (1024, 24, 16),
  "H": (1280, 32, 16),
  "debug": (128, 6, 4),
}


@dataclasses.dataclass(frozen=True)
class Size:
  """A vision transformer's shape.

  Attributes:
    width: of the tokens.
    depth: number of layers.
    num_heads: attention heads of a layer.
    mlp_dim: width of the MLP.
    patch: pixels along a side of a patch.
  """

  width: int
  depth: int
  num_heads: int
  mlp_dim: int
  patch: int

  def stack(self, **settings: Any) -> specs.StackConfig:
    """The transformer of this size; `settings` are the other fields of `StackConfig`."""
    return specs.StackConfig(self.width, self.depth, self.num_heads, self.mlp_dim, **settings)

  def grid(self, image_size: int) -> int:
    """Patches along one side of a square image.

    Args:
      image_size: pixels along a side.

    Raises:
      errors.UserError: the image is not a whole number of patches wide.
    """
    if image_size % self.patch:
      raise errors.UserError(
        f"image_size {image_size} is not a multiple of the encoder's patch {self.patch}"
      )
    return image_size // self.patch


def parse(text: str) -> Size:
  """Size of a name such as "B/16" or "192x4x3/8".

  Args:
    text: the name.

  Raises:
    errors.UserError: unknown name, or heads that do not divide the width.
  """
  name, slash, patch = str(text).partition("/")
  explicit = re.fullmatch(r"(\d+)x(\d+)x(\d+)", name)
  if not slash or not patch.isdigit() or int(patch) < 1 or not (explicit or name in NAMED):
    known = [
      f"{key}/{size}"
      for key, size in (("Ti", 16), ("S", 16), ("B", 16), ("L", 16), ("H", 14), ("debug", 8))
    ]
    raise errors.UserError(
      f"encoder size {text!r} is neither NAME/PATCH nor WIDTHxDEPTHxHEADS/PATCH; "
      f"{errors.nearest(str(text), known)}"
    )
  width, depth, heads = (int(n) for n in explicit.groups()) if explicit else NAMED[name]
  if min(width, depth, heads) < 1 or width % heads or width % 4:
    raise errors.UserError(
      f"encoder size {text!r}: the width must be a multiple of the heads and of 4 (positions)"
    )
  return Size(width, depth, heads, 4 * width, int(patch))
