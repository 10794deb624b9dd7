"""Augmentation: each transform is a frozen dataclass that maps one sample to another.

A sample is a dict of numpy arrays. Its images are "frames" and "jittered", uint8 [..., H, W, 3].
Every random parameter is drawn once and shared by all images of the sample: different shifts of two
frames would look like motion.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from como_jax import errors
from como_jax.data import video

IMAGES = ("frames", "jittered")
Sample = dict[str, np.ndarray]


def _on_images(sample: Sample, function: Callable[[np.ndarray], np.ndarray]) -> Sample:
  return {name: function(value) if name in IMAGES else value for name, value in sample.items()}


def _each(
  images: np.ndarray, function: Callable[[np.ndarray], np.ndarray], size: tuple[int, int]
) -> np.ndarray:
  """Applies a function of one image [H, W, 3] to all images [..., H, W, 3].

  Args:
    images: uint8 [..., H, W, 3].
    function: [H, W, 3] -> [*size, 3].
    size: height and width of the results. It is needed when there is no image.
  """
  flat = images.reshape(-1, *images.shape[-3:])
  out = np.empty((len(flat), *size, 3), np.uint8)
  for i, image in enumerate(flat):
    out[i] = function(image)
  return out.reshape(*images.shape[:-3], *size, 3)


def _shift(images: np.ndarray, dy: int, dx: int, out: np.ndarray | None = None) -> np.ndarray:
  """Shifts images: result[y, x] = images[y + dy, x + dx], with the border repeated.

  Args:
    images: uint8 [..., H, W, 3].
    dy: rows.
    dx: columns.
    out: C-contiguous array for the result, None = a new one. It may be `images` itself, which is
      the fastest.
  """
  if out is None:
    if not dy and not dx:
      return images
    out = np.array(images, order="C")
  elif out is not images:
    out[...] = images
  height, width = out.shape[-3:-1]
  dy, dx = max(1 - height, min(dy, height - 1)), max(1 - width, min(dx, width - 1))
  top, bottom, left, right = max(0, -dy), height - max(0, dy), max(0, -dx), width - max(0, dx)
  move = 3 * (dy * width + dx)
  for image in out.reshape(-1, height, width, 3):
    # An assignment between slices of a memoryview is one memmove. numpy's is not, when the slices
    # overlap backwards.
    flat = image.reshape(-1).data
    if move > 0:
      flat[:-move] = flat[move:]
    elif move < 0:
      flat[-move:] = flat[:move]
    pixels = image.view("V3")[..., 0]  # the border now replaces pixels moved in from other rows
    pixels[top:bottom, :left] = pixels[top:bottom, left : left + 1]
    pixels[top:bottom, right:] = pixels[top:bottom, right - 1 : right]
    pixels[:top] = pixels[top]
    pixels[bottom:] = pixels[bottom - 1]
  return out


@dataclasses.dataclass(frozen=True)
class RandomShift:
  """Shifts the picture by whole pixels and repeats the border, as in DrQ.

  Attributes:
    fraction: largest shift as a share of the picture's height and width.
  """

  fraction: float = 0.05

  def __call__(self, sample: Sample, rng: np.random.Generator, out: Sample | None = None) -> Sample:
    """Shifts all images of a sample.

    Args:
      sample: the sample.
      rng: source of randomness.
      out: C-contiguous arrays for the shifted images. They may be those of the sample.
    """
    height, width = sample["frames"].shape[-3:-1]
    max_dy, max_dx = int(round(self.fraction * height)), int(round(self.fraction * width))
    dy, dx = int(rng.integers(-max_dy, max_dy + 1)), int(rng.integers(-max_dx, max_dx + 1))
    return {
      name: _shift(value, dy, dx, None if out is None else out[name]) if name in IMAGES else value
      for name, value in sample.items()
    }


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
  """Crops a random part of the picture and resizes it to the picture's size.

  Attributes:
    scale: range of the crop's area, as a share of the picture's area.
    ratio: range of the crop's width / height, relative to the picture's.
  """

  scale: tuple[float, float] = (0.8, 1.0)
  ratio: tuple[float, float] = (0.9, 1.1)

  def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
    """Crops all images of a sample at the same random box."""
    height, width = sample["frames"].shape[-3:-1]
    area = rng.uniform(*self.scale)
    ratio = np.exp(rng.uniform(*np.log(self.ratio)))
    h, w = min(1.0, np.sqrt(area / ratio)) * height, min(1.0, np.sqrt(area * ratio)) * width
    top, left = rng.uniform(0, height - h), rng.uniform(0, width - w)
    box = (left, top, left + w, top + h)

    def crop(image):
      return np.asarray(
        Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box=box)
      )

    return _on_images(sample, lambda images: _each(images, crop, (height, width)))


@dataclasses.dataclass(frozen=True)
class ColorJitter:
  """Scales brightness, contrast (around the sample's mean gray) and saturation.

  Attributes:
    brightness: x; the factor is drawn from [1 - x, 1 + x].
    contrast: the same for contrast.
    saturation: the same for saturation.
  """

  brightness: float = 0.2
  contrast: float = 0.2
  saturation: float = 0.2

  def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
    """Scales the colors of all images of a sample by the same random factors."""
    brightness, contrast, saturation = (
      rng.uniform(max(0.0, 1 - x), 1 + x) for x in (self.brightness, self.contrast, self.saturation)
    )
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    mean = (
      float(sample["frames"][..., ::4, ::4, :].reshape(-1, 3).mean(0) @ weights) * brightness
    )  # every 16th pixel is enough
    table = (
      np.clip((np.arange(256) * brightness - mean) * contrast + mean + 0.5, 0, 255)
      .astype(np.uint8)
      .tolist()
      * 3
    )

    # Here Pillow's table lookup and blend are about five times faster than numpy.
    def change(image):
      image = Image.fromarray(image).point(table)
      return np.asarray(Image.blend(image.convert("L").convert("RGB"), image, saturation))

    return _on_images(sample, lambda images: _each(images, change, images.shape[-3:-1]))


@dataclasses.dataclass(frozen=True)
class HorizontalFlip:
  """Mirrors the sample with a probability.

  Use it only for videos without actions: a mirrored motion to the left is a motion to the right.
  """

  probability: float = 0.5

  def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirrors all images of a sample, or none."""
    if rng.random() >= self.probability:
      return sample
    return _on_images(sample, lambda images: images[..., ::-1, :])


@dataclasses.dataclass(frozen=True)
class Resize:
  """Resizes to a square of `size` pixels: area average to shrink, bicubic to grow. Not random."""

  size: int

  def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> Sample:
    """Resizes all images of a sample; `rng` is not used."""
    del rng

    def change(images):
      if images.shape[-3:-1] == (self.size, self.size):
        return images
      return _each(
        images, lambda image: video.resize(image, self.size, self.size), (self.size, self.size)
      )

    return _on_images(sample, change)


def resized_to(chain: Sequence[Callable]) -> tuple[int, int]:
  """The size to which a chain of transforms resizes images: (height, width).

  It is the argument `to` of `reader.SegmentReader.images`, which may then decode at a reduced size.
  The result is (0, 0), which means full size, when the chain has no `Resize`, or has a
  `RandomResizedCrop`, which enlarges a part. A `RandomShift` has no effect on it: the shift is a
  share of the picture, in whole pixels of the decoded size.
  """
  enlarges = any(isinstance(transform, RandomResizedCrop) for transform in chain)
  return (
    (0, 0)
    if enlarges
    else next(
      ((transform.size, transform.size) for transform in chain if isinstance(transform, Resize)),
      (0, 0),
    )
  )


TRANSFORMS = {
  "shift": RandomShift,
  "crop": RandomResizedCrop,
  "color": ColorJitter,
  "flip": HorizontalFlip,
}


def build(
  settings: dict[str, dict[str, Any]],
) -> tuple[Callable[[Sample, np.random.Generator], Sample], ...]:
  """Builds transforms from settings such as {"shift": {"fraction": 0.05}, "color": {}}.

  Args:
    settings: name of the transform -> its fields.

  Returns:
    The transforms, in the order of the settings.

  Raises:
    errors.UserError: a name or a field is unknown.
  """
  built = []
  for name, arguments in settings.items():
    if name not in TRANSFORMS:
      raise errors.UserError(f"unknown augmentation {name!r}: {errors.nearest(name, TRANSFORMS)}")
    fields = [field.name for field in dataclasses.fields(TRANSFORMS[name])]
    for key in arguments:
      if key not in fields:
        raise errors.UserError(
          f"augmentation {name!r} has no setting {key!r}: {errors.nearest(key, fields)}"
        )
    built.append(
      TRANSFORMS[name](
        **{
          key: tuple(value) if isinstance(value, list) else value
          for key, value in arguments.items()
        }
      )
    )
  return tuple(built)


def apply(
  transforms: Sequence[Callable],
  sample: Sample,
  rng: np.random.Generator,
  out: Sample | None = None,
) -> Sample:
  """Applies transforms one after the other.

  Args:
    transforms: see `build`, possibly with a `Resize` at the end.
    sample: the sample.
    rng: source of randomness.
    out: arrays for the results, None = new ones. They may be those of the sample.

  Returns:
    The transformed sample. Its arrays are contiguous.
  """
  if out is None:
    for transform in transforms:
      sample = transform(sample, rng)
    return {name: np.ascontiguousarray(value) for name, value in sample.items()}
  last_is_idle = (
    bool(transforms)
    and isinstance(transforms[-1], Resize)
    and sample["frames"].shape[-3:-1] == (transforms[-1].size,) * 2
  )
  *before, last = transforms[:-1] if last_is_idle and len(transforms) > 1 else transforms
  for transform in before:
    sample = transform(sample, rng)
  if isinstance(last, RandomShift):  # the usual case: it writes to `out` itself, without a copy
    return last(sample, rng, out)
  for name, value in last(sample, rng).items():
    if value is not out[name]:
      out[name][...] = value
  return out
