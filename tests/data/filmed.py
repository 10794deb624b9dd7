"""Views of a textured canvas from a camera that moves."""

import numpy as np
from PIL import Image

# x, y of the view's center on the canvas, zoom (logarithm), rotation
HEIGHT, WIDTH = 96, 128
STILL = (160.0, 120.0, 0.0, 0.0)


def canvas(seed, brightness=120.0):
  """[240, 320, 3]: soft blobs, coarse squares, fine grain."""
  rng = np.random.default_rng(seed)
  out = np.full((240, 320, 3), brightness, np.float32) + rng.uniform(-30, 30, 3).astype(np.float32)
  for cells, strength in ((6, 45), (20, 30), (60, 15)):
    noise = rng.normal(0, strength, (cells * 3 // 4, cells, 3)).astype(np.float32)
    channels = [
      Image.fromarray(noise[..., c]).resize((320, 240), Image.Resampling.BICUBIC) for c in range(3)
    ]
    out += np.stack([np.asarray(one) for one in channels], -1)
  for _ in range(12):
    x, y = rng.integers(0, 300), rng.integers(0, 220)
    out[y : y + rng.integers(10, 60), x : x + rng.integers(10, 60)] = rng.integers(0, 255, 3)
  return Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))


def view(picture, x, y, zoom=0.0, rotation=0.0, height=HEIGHT, width=WIDTH):
  """The content moves against x, y (pixels), gets larger with the zoom and turns clockwise with the
  rotation.
  """
  scale = np.exp(-zoom)
  cos, sin = scale * np.cos(rotation), -scale * np.sin(rotation)
  data = (
    cos,
    -sin,
    x - cos * width / 2 + sin * height / 2,
    sin,
    cos,
    y - sin * width / 2 - cos * height / 2,
  )
  return np.asarray(
    picture.transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC)
  )
