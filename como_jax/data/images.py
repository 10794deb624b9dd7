"""Single pictures: their stored geometry, resizing, and the image codecs of shards and tables.

Pictures are uint8 RGB [H, W, 3].
"""

import dataclasses
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import Image

from como_jax.data import pyav

if TYPE_CHECKING:
  from como_jax.data.sources.options import SourceOptions


def decode_errors() -> tuple[type[Exception], ...]:
  """Exceptions of PyAV, the file system and the parsers in this package for damaged bytes."""
  return (*pyav.errors(), OSError, ValueError, EOFError)


class UnreadableError(Exception):
  """An episode cannot be used. The message is the reason in the quarantine list."""


@dataclasses.dataclass(frozen=True)
class Geometry:
  """How source frames are converted to stored frames.

  Attributes:
    size: side of the square result in pixels; 0 keeps the source's size.
    mode: "squash" (ignore the aspect ratio, as Moto does), "crop" (center square) or "pad" (black
      borders).
    bars: bars to remove first, (top, bottom, left, right), as shares of the height and width.
  """

  size: int = 0
  mode: str = "squash"
  bars: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

  def inner(self, height: int, width: int, pixel_aspect: float = 1.0) -> tuple[int, int]:
    """(height, width) to which the picture without bars is resized before `finish`.

    Args:
      height: of the source in pixels.
      width: of the source in pixels.
      pixel_aspect: width / height of one source pixel. It has an effect only when the picture is
        cropped or padded: a picture that keeps its size is stored as it is, and "squash" ignores
        the aspect ratio.
    """
    top, bottom, left, right = self.bars
    shown_height, shown_width = height * (1 - top - bottom), width * (1 - left - right)
    if not self.size:
      return max(1, round(shown_height)), max(1, round(shown_width))
    if self.mode == "squash":
      return self.size, self.size
    shown_width = shown_width * pixel_aspect
    shorter, longer = min(shown_height, shown_width), max(shown_height, shown_width)
    scale = self.size / (shorter if self.mode == "crop" else longer)
    return max(1, round(shown_height * scale)), max(1, round(shown_width * scale))

  def outer(self, height: int, width: int) -> tuple[int, int]:
    """Size with bars of a picture that has the given size without bars."""
    top, bottom, left, right = self.bars
    return max(1, round(height / (1 - top - bottom))), max(1, round(width / (1 - left - right)))

  def without_bars(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The part without bars, [height, width, 3], of a picture of `outer` size."""
    top = min(round(self.bars[0] * image.shape[0]), image.shape[0] - height)
    left = min(round(self.bars[2] * image.shape[1]), image.shape[1] - width)
    return image[top : top + height, left : left + width]

  def finish(self, image: np.ndarray) -> np.ndarray:
    """Crops or pads a resized image [h, w, 3] to the square."""
    if not self.size or self.mode == "squash":
      return image
    height, width = image.shape[:2]
    if self.mode == "crop":
      top, left = (height - self.size) // 2, (width - self.size) // 2
      return image[top : top + self.size, left : left + self.size]
    out = np.zeros((self.size, self.size, 3), np.uint8)
    top, left = (self.size - height) // 2, (self.size - width) // 2
    out[top : top + height, left : left + width] = image
    return out

  def apply(self, image: np.ndarray) -> np.ndarray:
    """Converts a source image [H, W, 3] to its stored form."""
    inner = self.inner(*image.shape[:2])
    return self.finish(self.without_bars(resize(image, *self.outer(*inner)), *inner))


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Resizes [H, W, 3]: area average to shrink (no aliasing), bicubic to grow."""
  if image.shape[:2] == (height, width):
    return image
  shrinking = height <= image.shape[0] and width <= image.shape[1]
  method = Image.Resampling.BOX if shrinking else Image.Resampling.BICUBIC
  return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), method))


# Version of the decoding of stored frames. Increase it when the same bytes give other pixels. It is
# 2 since `reduction` exists.
DECODING = 2


def is_deep_gray(pixel_format: str) -> bool:
  """Whether FFmpeg's pixel format of this name is gray with more than 8 bits, like depth."""
  return bool(re.match(r"gray(9|1\d|f)", pixel_format))


def reduction(height: int, width: int, to_height: int, to_width: int) -> int:
  """The factor by which a JPEG may be reduced when it is decoded and then resized: 8, 4, 2 or 1.

  1 means that it must be decoded at full size. For other factors, libjpeg skips details and
  averages blocks of pixels, almost like `resize`. This holds only for blocks of whole pixels, so
  each side must be a multiple of factor * target side.

  Measured differences are in gray levels. On frames of CALVIN and RT-1 (448 -> 224, 128 -> 64,
  256 -> 64 px, quality 95), reduced decoding was 2.2 to 2.6 times as fast as full decoding. The
  results differed by 0.4 to 0.6 on average and at most 8; JPEG at quality 95 itself causes 0.4 to
  0.9 and at most 9. At other ratios (224 -> 64, 320 -> 64 px), where blocks are not whole, the
  difference was 4 and at most 107. With color at half resolution (JPEG of other programs), the
  difference is 0.3 to 1.5 and at most 56; quality 95 causes 0.4 to 2.0 and at most 55.

  Args:
    height: of the JPEG in pixels.
    width: of the JPEG in pixels.
    to_height: target height; 0 = no target.
    to_width: target width; 0 = no target.
  """
  if to_height <= 0 or to_width <= 0:
    return 1
  return next(
    (by for by in (8, 4, 2) if height % (by * to_height) == 0 and width % (by * to_width) == 0), 1
  )


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
  """Encodes [H, W, 3] as JPEG without color subsampling, which is visible in small images."""
  return simplejpeg.encode_jpeg(
    np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="444"
  )


def decode_jpeg(data: bytes, out: np.ndarray | None = None, *, by: int = 1) -> np.ndarray:
  """Decodes a JPEG to [H / by, W / by, 3].

  Args:
    data: the bytes.
    out: array for the result, None = a new one.
    by: a factor from `reduction`.

  Raises:
    ValueError: the bytes are damaged or do not fit `out`.
  """
  height, width = (
    (-(-int(side) // by) for side in simplejpeg.decode_jpeg_header(data)[:2]) if by > 1 else (0, 0)
  )
  image = simplejpeg.decode_jpeg(
    data, colorspace="RGB", min_height=height, min_width=width, buffer=out
  )
  if out is not None and image.shape != out.shape:
    raise ValueError(
      f"a frame of {image.shape[0]}x{image.shape[1]} pixels, expected {out.shape[0]}x{out.shape[1]}"
    )
  return image


def decode_image(
  data: bytes, geometry: Geometry, options: "SourceOptions | None" = None
) -> np.ndarray:
  """Decodes an image (PNG, JPEG or another format of Pillow) to its stored form [H, W, 3].

  A JPEG is decoded at a reduced size, see `reduction`. Transparent pixels become black. An EXIF
  orientation is not applied.

  Args:
    data: the bytes of the file.
    geometry: size of the result.
    options: only `depth_range` is used. It scales pictures of 16 and more bits, as from depth
      cameras, to 8 bits.

  Raises:
    UnreadableError: the picture has more than 8 bits per channel, and there is no `depth_range`.
    OSError, ValueError, SyntaxError: the bytes are damaged.
  """
  image = Image.open(io.BytesIO(data))
  if image.mode.startswith("I") or image.mode == "F":
    return geometry.apply(
      _scale_depth(np.asarray(image), image.mode, options.depth_range if options else ())
    )
  by = reduction(image.height, image.width, *geometry.inner(image.height, image.width))
  if by > 1:
    # This reduces a JPEG in libjpeg too. Other formats ignore it.
    image.draft(None, (image.width // by, image.height // by))
  if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
    image = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
  return geometry.apply(np.asarray(image.convert("RGB")))


def _scale_depth(image: np.ndarray, mode: str, depth_range: Sequence[float]) -> np.ndarray:
  """Converts gray [H, W] of any bit depth to RGB [H, W, 3]; values outside the range are clipped.

  Args:
    image: [H, W].
    mode: Pillow's mode of the image.
    depth_range: (nearest, farthest), the values that become 0 and 255.

  Raises:
    UnreadableError: the range is empty.
  """
  if not depth_range:
    kind = "16-bit" if mode.startswith("I;16") else "32-bit"
    raise UnreadableError(
      f"{kind} picture (values {image.min()} to {image.max()}): set depth_range=(nearest, "
      "farthest), the values that become 0 and 255"
    )
  nearest, farthest = depth_range
  scaled = (image.astype(np.float64) - nearest) * (255 / (farthest - nearest))
  gray = np.rint(np.clip(np.nan_to_num(scaled), 0, 255)).astype(np.uint8)
  return np.repeat(gray[..., None], 3, 2)
