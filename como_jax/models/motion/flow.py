"""Dense optical flow by iterated Lucas-Kanade steps on a pyramid, in JAX, without training.

Source: B. D. Lucas and T. Kanade, 1981; J.-Y. Bouguet's pyramid.
Legend: B pairs, H W image.
"""

import functools

import jax
import numpy as np
from jax import numpy as jnp

LEVELS, STEPS = 3, 4  # levels of the pyramid, and steps on each
# standard deviations in pixels: of the neighborhood that moves together, and of the smoothing of
# the image
WINDOW, BLUR = 2.5, 0.8
# squared gray per pixel: where the neighborhood has less structure, nothing moves
STIFFNESS = 4.0 / 255**2
_MAX_STEP = 2.0  # pixels


def optical_flow(first: jax.Array, second: jax.Array) -> jax.Array:
  """The displacement of every pixel of the first image. It has no gradient.

  Args:
    first: [B, H, W, 3] in 0..1, H = W a multiple of 4.
    second: [B, H, W, 3] in 0..1.

  Returns:
    float32 [B, H, W, 2]: to the right and down, in pixels.
  """
  gray = [jax.lax.stop_gradient(x).astype(jnp.float32).mean(axis=-1) for x in (first, second)]
  pyramid = [[_smooth(x, BLUR) for x in gray]]
  for _ in range(LEVELS - 1):
    pyramid.append([_downsample(x) for x in pyramid[-1]])
  flow = jnp.zeros((*pyramid[-1][0].shape, 2), jnp.float32)
  for level, (before, after) in enumerate(reversed(pyramid)):
    if level:
      flow = 2 * flow.repeat(2, axis=1).repeat(2, axis=2)
    flow = _refine(before, after, flow)
  return flow


def mean_per_cell(flow: jax.Array, side: int) -> jax.Array:
  """Flow averaged over side x side cells.

  Args:
    flow: [B, H, W, 2].
    side: cells along a side.

  Returns:
    [B, side^2, 2].
  """
  batch, height, width, _ = flow.shape
  parts = flow.reshape(batch, side, height // side, side, width // side, 2).mean(axis=(2, 4))
  return parts.reshape(batch, side * side, 2)


def _refine(before: jax.Array, after: jax.Array, flow: jax.Array) -> jax.Array:
  down, right = jnp.gradient(before, axis=(1, 2))
  xx, xy, yy = (
    _smooth(right * right, WINDOW) + STIFFNESS,
    _smooth(right * down, WINDOW),
    _smooth(down * down, WINDOW) + STIFFNESS,
  )
  determinant = xx * yy - xy * xy

  def step(flow, _):
    error = _warp(after, flow) - before
    x, y = _smooth(right * error, WINDOW), _smooth(down * error, WINDOW)
    change = jnp.stack([xy * y - yy * x, xy * x - xx * y], axis=-1) / determinant[..., None]
    return flow + jnp.clip(change, -_MAX_STEP, _MAX_STEP), None

  return jax.lax.scan(step, flow, None, length=STEPS)[0]


def _downsample(x: jax.Array) -> jax.Array:
  return x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2).mean(axis=(2, 4))


@functools.cache
def _gaussian(size: int, sigma: float) -> np.ndarray:
  """Smoothing along one axis as a matrix [size, size].

  The edges are reflected as in scipy.ndimage.
  """
  radius = int(4 * sigma + 0.5)
  weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
  matrix = np.zeros((size, size), np.float32)
  for row in range(size):
    for offset, weight in zip(range(-radius, radius + 1), weights / weights.sum(), strict=False):
      index = (row + offset) % (2 * size)
      matrix[row, index if index < size else 2 * size - 1 - index] += weight
  return matrix


def _smooth(x: jax.Array, sigma: float) -> jax.Array:
  along, across = (jnp.asarray(_gaussian(size, sigma)) for size in x.shape[1:])
  return jnp.einsum("ij,bjk,lk->bil", along, x, across, precision=jax.lax.Precision.HIGHEST)


def _warp(images: jax.Array, flow: jax.Array) -> jax.Array:
  """The images [B, H, W] sampled bilinearly at every pixel's position plus its motion.

  Positions outside take the value of the edge.
  """
  batch, height, width = images.shape
  y = jnp.clip(jnp.arange(height, dtype=jnp.float32)[None, :, None] + flow[..., 1], 0, height - 1)
  x = jnp.clip(jnp.arange(width, dtype=jnp.float32)[None, None, :] + flow[..., 0], 0, width - 1)
  top, left = (
    jnp.minimum(y.astype(jnp.int32), height - 2),
    jnp.minimum(x.astype(jnp.int32), width - 2),
  )
  y, x = y - top, x - left
  flat, index = images.reshape(batch, -1), (top * width + left).reshape(batch, -1)

  def pixel(offset: int) -> jax.Array:
    return jnp.take_along_axis(flat, index + offset, axis=1).reshape(batch, height, width)

  return (1 - y) * ((1 - x) * pixel(0) + x * pixel(1)) + y * (
    (1 - x) * pixel(width) + x * pixel(width + 1)
  )
