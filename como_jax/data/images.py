"""Single pictures: their stored geometry, resizing, and the image codecs of shards and tables.

Pictures are uint8 RGB [H, W, 3].
"""

import dataclasses
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import av
import numpy as np
import simplejpeg
from PIL import Image

if TYPE_CHECKING:
  from como_jax.data.sources.options import SourceOptions

# Everything PyAV, the file system and our own parsing raise on bad bytes.
DECODE_ERRORS = (av.FFmpegError, OSError, ValueError, EOFError)


class Unreadable(Exception):
  """An episode that cannot be used; the text is the reason shown in the quarantine list."""


@dataclasses.dataclass(frozen=True)
class Geometry:
  """How source frames become stored frames.

  Attributes:
    size: side of the square result in pixels; 0 keeps the source's size.
    mode: "squash" (ignore the aspect ratio, as Moto does), "crop" (center square) or "pad" (black
      borders).
    bars: shares of the picture's height and width to cut off first: (top, bottom, left, right).
  """

  size: int = 0
  mode: str = "squash"
  bars: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

  def inner(self, height: int, width: int, pixel_aspect: float = 1.0) -> tuple[int, int]:
    """Size to scale to before `finish` crops or pads.

    Args:
      height, width: of the source in pixels.
      pixel_aspect: width / height of one of its pixels. It matters where the picture is cropped or
        padded; pixels that keep their size stay as they are stored, and "squash" ignores the aspect
        ratio anyway.
    """
    top, bottom, left, right = self.bars
    height, width = height * (1 - top - bottom), width * (1 - left - right)
    if not self.size:
      return max(1, round(height)), max(1, round(width))
    if self.mode == "squash":
      return self.size, self.size
    shown = width * pixel_aspect
    scale = self.size / (min(height, shown) if self.mode == "crop" else max(height, shown))
    return max(1, round(height * scale)), max(1, round(shown * scale))

  def outer(self, height: int, width: int) -> tuple[int, int]:
    """Size of the whole picture, bars included, whose inside has the size `inner` says."""
    top, bottom, left, right = self.bars
    return max(1, round(height / (1 - top - bottom))), max(1, round(width / (1 - left - right)))

  def without_bars(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The inside [height, width, 3] of a picture of `outer` size."""
    top = min(round(self.bars[0] * image.shape[0]), image.shape[0] - height)
    left = min(round(self.bars[2] * image.shape[1]), image.shape[1] - width)
    return image[top : top + height, left : left + width]

  def finish(self, image: np.ndarray) -> np.ndarray:
    """Crops or pads a scaled image [h, w, 3] to the square."""
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
    """A whole image [H, W, 3] to its stored form."""
    inner = self.inner(*image.shape[:2])
    return self.finish(self.without_bars(resize(image, *self.outer(*inner)), *inner))


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Resizes [H, W, 3]: area average when shrinking (no aliasing), bicubic when growing."""
  if image.shape[:2] == (height, width):
    return image
  shrinking = height <= image.shape[0] and width <= image.shape[1]
  method = Image.Resampling.BOX if shrinking else Image.Resampling.BICUBIC
  return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), method))


# of stored frames into pixels: raise it when the same bytes begin to give others, 2 with
# `reduction`
DECODING = 2


def is_deep_gray(pixel_format: str) -> bool:
  """Whether a pixel format, by FFmpeg's name of it, is one channel of more than 8 bits, as depth
  has.
  """
  return bool(re.match(r"gray(9|1\d|f)", pixel_format))


def reduction(height: int, width: int, to_height: int, to_width: int) -> int:
  """How many times smaller a JPEG may be decoded that is then resized: 8, 4, 2, or 1 where it must
  be decoded whole.

  libjpeg then skips the details and averages blocks of pixels, about as `resize` does, as long as
  whole pixels are averaged: the sides must be multiples of that many times the target's. On frames
  of CALVIN and RT-1 (448 -> 224, 128 -> 64, 256 -> 64 px, quality 95) that was 2.2 to 2.6 times as
  fast as decoding whole and differed from it by 0.4 to 0.6 levels on average, 8 at most; quality 95
  itself costs 0.4 to 0.9, 9 at most. At other ratios (224 -> 64, 320 -> 64 px) the difference was
  4, up to 107: those are decoded whole. With color at half resolution (JPEG of other programs) the
  difference is 0.3 to 1.5, up to 56, and quality 95 costs 0.4 to 2.0, up to 55.
  """
  if to_height <= 0 or to_width <= 0:
    return 1
  return next(
    (f for f in (8, 4, 2) if height % (f * to_height) == 0 and width % (f * to_width) == 0), 1
  )


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
  """JPEG of [H, W, 3] without color subsampling (shards hold small images, where it shows)."""
  return simplejpeg.encode_jpeg(
    np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="444"
  )


def decode_jpeg(data: bytes, out: np.ndarray | None = None, *, by: int = 1) -> np.ndarray:
  """[H / by, W / by, 3] from JPEG, in `out` if given; `by` is a `reduction`.

  Raises:
    ValueError: the bytes are damaged or do not fit `out`.
  """
  height, width = (
    (-(-side // by) for side in simplejpeg.decode_jpeg_header(data)[:2]) if by > 1 else (0, 0)
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
  """The stored form [H, W, 3] of an image, from PNG, JPEG or whatever pillow reads.

  A JPEG is decoded smaller by its `reduction`. What is transparent becomes black. The picture stays
  as it is stored: an EXIF orientation is not applied.

  Args:
    data: the bytes of the file.
    geometry: size of the result.
    options: their `depth_range` turns pictures of 16 and more bits, as of depth cameras, into 8.

  Raises:
    Unreadable: a picture of more than 8 bits a channel without a `depth_range`.
    OSError, ValueError, SyntaxError: the bytes are damaged.
  """
  image = Image.open(io.BytesIO(data))
  if image.mode.startswith("I") or image.mode == "F":
    return geometry.apply(
      _scale_depth(np.asarray(image), image.mode, options.depth_range if options else ())
    )
  by = reduction(image.height, image.width, *geometry.inner(image.height, image.width))
  if by > 1:
    # of libjpeg as well; other formats ignore it
    image.draft(None, (image.width // by, image.height // by))
  if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
    image = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
  return geometry.apply(np.asarray(image.convert("RGB")))


def _scale_depth(image: np.ndarray, mode: str, depth_range: Sequence[float]) -> np.ndarray:
  """Gray [H, W] of any depth to RGB [H, W, 3] by the range that the user states; values outside are
  clipped to it.
  """
  if not depth_range:
    kind = "16-bit" if mode.startswith("I;16") else "32-bit"
    raise Unreadable(
      f"{kind} picture (values {image.min()} to {image.max()}): set depth_range=(nearest, "
      "farthest), the values that become 0 and 255"
    )
  nearest, farthest = depth_range
  scaled = (image.astype(np.float64) - nearest) * (255 / (farthest - nearest))
  gray = np.rint(np.clip(np.nan_to_num(scaled), 0, 255)).astype(np.uint8)
  return np.repeat(gray[..., None], 3, 2)
