"""Pixels in and out of models: ImageNet normalization, patches, and the two layouts of a patch.

Legend: ... any leading axes, H W image, h w patch grid, p patch size, c colors (3).
"""

import einops
import jax
import jax.numpy as jnp
import numpy as np

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def _colors(values: np.ndarray, rank: int) -> np.ndarray:
  return values.reshape((1,) * (rank - 1) + (3,))


def normalize(frames: jax.Array) -> jax.Array:
  """`frames` uint8 [..., H, W, 3] -> float32, with ImageNet's mean and standard deviation.

  Raises:
    TypeError: the frames are not uint8 (so they cannot be normalized twice by accident).
  """
  if frames.dtype != jnp.uint8:
    raise TypeError(
      f"normalize expects uint8 frames, got {frames.dtype}: are they normalized already?"
    )
  x = frames.astype(jnp.float32) / 255.0
  return (x - _colors(MEAN, x.ndim)) / _colors(STD, x.ndim)


def denormalize(frames: jax.Array) -> jax.Array:
  """Normalized `frames` [..., H, W, 3] -> float32 in [0, 1] (clipped)."""
  x = frames.astype(jnp.float32) * _colors(STD, frames.ndim) + _colors(MEAN, frames.ndim)
  return jnp.clip(x, 0.0, 1.0)


def patchify(frames: jax.Array, patch: int) -> jax.Array:
  """`frames` [..., H, W, 3] -> [..., h*w, p*p*3] with p = `patch`.

  The order inside a patch is row, column, color, as in MAE and in a kernel [p, p, 3, D].
  """
  return einops.rearrange(frames, "... (h p) (w q) c -> ... (h w) (p q c)", p=patch, q=patch)


def unpatchify(patches: jax.Array, patch: int) -> jax.Array:
  """The inverse of `patchify`, for a square grid."""
  side = _side(patches.shape[-2])
  return einops.rearrange(
    patches, "... (h w) (p q c) -> ... (h p) (w q) c", h=side, p=patch, q=patch
  )


def pixel_shuffle(patches: jax.Array, patch: int) -> jax.Array:
  """`patches` [..., h*w, 3*p*p] -> [..., H, W, 3] with p = `patch`.

  The order inside a patch is color, row, column, as in torch's PixelShuffle.
  """
  side = _side(patches.shape[-2])
  return einops.rearrange(
    patches, "... (h w) (c p q) -> ... (h p) (w q) c", h=side, p=patch, q=patch
  )


def _side(patches: int) -> int:
  side = round(patches**0.5)
  if side * side != patches:
    raise ValueError(f"{patches} patches do not form a square grid")
  return side
