"""Augmentation: frozen dataclasses from a dict of numpy arrays to a dict of numpy arrays.

Image entries are "frames" and "jittered", uint8 [..., H, W, 3]. Every random parameter is drawn
once and shared by all
images of the
sample: a shift that differed between two frames would look like motion.
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
  """Applies a function of [H, W, 3] over the leading dimensions; `size` is the result's, needed
  when there is no image.
  """
  flat = images.reshape(-1, *images.shape[-3:])
  out = np.empty((len(flat), *size, 3), np.uint8)
  for i, image in enumerate(flat):
    out[i] = function(image)
  return out.reshape(*images.shape[:-3], *size, 3)


def _shift(images: np.ndarray, dy: int, dx: int, out: np.ndarray | None = None) -> np.ndarray:
  """result[y, x] = images[y + dy, x + dx], the border repeated.

  `out`, C-contiguous, may be `images`, which costs least.
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
    # its slices move like memmove, which numpy does not when they overlap backwards
    flat = memoryview(image.reshape(-1))
    if move > 0:
      flat[:-move] = flat[move:]
    elif move < 0:
      flat[-move:] = flat[:move]
    pixels = image.view("V3")[..., 0]  # what came around from the next row is now written over
    pixels[top:bottom, :left] = pixels[top:bottom, left : left + 1]
    pixels[top:bottom, right:] = pixels[top:bottom, right - 1 : right]
    pixels[:top] = pixels[top]
    pixels[bottom:] = pixels[bottom - 1]
  return out


@dataclasses.dataclass(frozen=True)
class RandomShift:
  """Moves the picture by up to `fraction` of its sides, whole pixels, repeating the border (as in
  DrQ).
  """

  fraction: float = 0.05

  def __call__(self, sample: Sample, rng: np.random.Generator, out: Sample | None = None) -> Sample:
    """`out`: C-contiguous arrays to write the images into; may be those of the sample."""
    height, width = sample["frames"].shape[-3:-1]
    most_y, most_x = int(round(self.fraction * height)), int(round(self.fraction * width))
    dy, dx = int(rng.integers(-most_y, most_y + 1)), int(rng.integers(-most_x, most_x + 1))
    return {
      name: _shift(value, dy, dx, out and out[name]) if name in IMAGES else value
      for name, value in sample.items()
    }


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
  """A random part of the picture, scaled back to its size.

  Attributes:
    scale: range of the part's area as a share of the picture's.
    ratio: range of the part's width / height relative to the picture's.
  """

  scale: tuple[float, float] = (0.8, 1.0)
  ratio: tuple[float, float] = (0.9, 1.1)

  def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
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
  """Scales brightness, contrast (about the sample's mean gray) and saturation by factors in [1 - x,
  1 + x].
  """

  brightness: float = 0.2
  contrast: float = 0.2
  saturation: float = 0.2

  def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
    brightness, contrast, saturation = (
      rng.uniform(max(0.0, 1 - x), 1 + x) for x in (self.brightness, self.contrast, self.saturation)
    )
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    mean = (
      float(sample["frames"][..., ::4, ::4, :].reshape(-1, 3).mean(0) @ weights) * brightness
    )  # every 16th pixel will do
    table = (
      np.clip((np.arange(256) * brightness - mean) * contrast + mean + 0.5, 0, 255)
      .astype(np.uint8)
      .tolist()
      * 3
    )

    # pillow's table look-up and blend are about five times faster than numpy here
    def change(image):
      image = Image.fromarray(image).point(table)
      return np.asarray(Image.blend(image.convert("L").convert("RGB"), image, saturation))

    return _on_images(sample, lambda images: _each(images, change, images.shape[-3:-1]))


@dataclasses.dataclass(frozen=True)
class HorizontalFlip:
  """Mirrors the sample with a probability.

  Mirrors left and right actions too, so it is for videos without actions.
  """

  probability: float = 0.5

  def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
    if rng.random() >= self.probability:
      return sample
    return _on_images(sample, lambda images: images[..., ::-1, :])


@dataclasses.dataclass(frozen=True)
class Resize:
  """To a square of `size` pixels: area average when shrinking, bicubic when growing. Not random."""

  size: int

  def __call__(self, sample: Sample, rng: np.random.Generator | None = None) -> Sample:
    del rng

    def change(images):
      if images.shape[-3:-1] == (self.size, self.size):
        return images
      return _each(
        images, lambda image: video.resize(image, self.size, self.size), (self.size, self.size)
      )

    return _on_images(sample, change)


def resized_to(chain: Sequence[Callable]) -> tuple[int, int]:
  """What to give to `episode.Frames.decode` for images that go through the chain: the size of its
  resize, or (0, 0), so that they are decoded whole, where there is none or a random crop looks
  closer. A shift moves by whole pixels of what was decoded, equally far.
  """
  closer = any(isinstance(transform, RandomResizedCrop) for transform in chain)
  return (
    (0, 0)
    if closer
    else next(
      ((transform.size,) * 2 for transform in chain if isinstance(transform, Resize)), (0, 0)
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
  """{"shift": {"fraction": 0.05}, "color": {}} -> transforms, in the order given."""
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
  """One after the other; the results own their memory and are contiguous, or are written into the
  arrays of `out`, which may be the sample's.
  """
  if out is None:
    for transform in transforms:
      sample = transform(sample, rng)
    return {name: np.ascontiguousarray(value) for name, value in sample.items()}
  idle = (
    bool(transforms)
    and isinstance(transforms[-1], Resize)
    and sample["frames"].shape[-3:-1] == (transforms[-1].size,) * 2
  )
  *before, last = transforms[:-1] if idle and len(transforms) > 1 else transforms
  for transform in before:
    sample = transform(sample, rng)
  if isinstance(last, RandomShift):  # the usual one: no copy after it
    return last(sample, rng, out)
  for name, value in last(sample, rng).items():
    if value is not out[name]:
      out[name][...] = value
  return out
