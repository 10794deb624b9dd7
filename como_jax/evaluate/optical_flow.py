"""Dense optical flow by iterated Lucas-Kanade steps on a pyramid: motion without any learning.

Source: B. D. Lucas and T. Kanade, 1981; J.-Y. Bouguet's pyramid. Legend: B pairs, H W picture.
"""

import numpy as np
from scipy import ndimage

_LEVELS, _STEPS = 3, 4  # halvings of the picture, and steps on each
_WINDOW, _BLUR = 2.5, 0.8  # standard deviations in pixels: of the neighborhood that moves together, and of the smoothing before
_STIFFNESS = 4.0  # squared gray levels a pixel: where the neighborhood has less structure, nothing moves


def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Where every pixel of the first picture goes.

  Args:
    first, second: uint8 [B, H, W, 3], H and W multiples of 4.

  Returns:
    float32 [B, H, W, 2]: to the right and down, in pixels.
  """
  pyramid = [tuple(ndimage.gaussian_filter(x.astype(np.float32).mean(axis=-1), (0, _BLUR, _BLUR)) for x in (first, second))]
  for _ in range(_LEVELS - 1):
    pyramid.append(tuple(_halved(x) for x in pyramid[-1]))
  moved = np.zeros((*pyramid[-1][0].shape, 2), np.float32)
  for level, (before, after) in enumerate(reversed(pyramid)):
    if level:
      moved = 2 * moved.repeat(2, axis=1).repeat(2, axis=2)
    moved = _refine(before, after, moved)
  return moved


def _refine(before: np.ndarray, after: np.ndarray, moved: np.ndarray) -> np.ndarray:
  down, right = np.gradient(before, axis=(1, 2))
  smooth = lambda x: ndimage.gaussian_filter(x, (0, _WINDOW, _WINDOW))
  xx, xy, yy = smooth(right * right) + _STIFFNESS, smooth(right * down), smooth(down * down) + _STIFFNESS
  determinant = xx * yy - xy * xy
  for _ in range(_STEPS):
    miss = _warped(after, moved) - before
    x, y = smooth(right * miss), smooth(down * miss)
    step = np.stack([xy * y - yy * x, xy * x - xx * y], axis=-1) / determinant[..., None]
    moved = moved + np.clip(step, -2, 2)
  return moved


def _halved(x: np.ndarray) -> np.ndarray:
  return x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2).mean(axis=(2, 4))


def _warped(pictures: np.ndarray, moved: np.ndarray) -> np.ndarray:
  """The pictures [B, H, W] looked up at every pixel's place plus its motion, bilinearly; the edge goes on outside."""
  size, height, width = pictures.shape
  y = np.clip(np.arange(height, dtype=np.float32)[None, :, None] + moved[..., 1], 0, height - 1)
  x = np.clip(np.arange(width, dtype=np.float32)[None, None, :] + moved[..., 0], 0, width - 1)
  top, left = np.minimum(y.astype(np.int32), height - 2), np.minimum(x.astype(np.int32), width - 2)
  b = np.arange(size)[:, None, None]
  y, x = y - top, x - left
  return ((1 - y) * ((1 - x) * pictures[b, top, left] + x * pictures[b, top, left + 1])
          + y * ((1 - x) * pictures[b, top + 1, left] + x * pictures[b, top + 1, left + 1]))
