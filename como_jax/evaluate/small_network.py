"""Parts of the small convolutional networks that are fitted with labels (`place_probe`, `picture_probe`). Legend: B batch, H W picture, C channels."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax import numpy as jnp

_MEAN, _SCALE = 0.45, 0.25  # of pictures in 0..1
_WARM, _RATE, _DECAY = 100, 2e-3, 0.02


def normalized(pictures: Any) -> jax.Array:
  """uint8 -> float32, about 0."""
  return (jnp.asarray(pictures, jnp.float32) / 255 - _MEAN) / _SCALE


def layer(key: jax.Array, *shape: int) -> dict[str, jax.Array]:
  """Weights of a dense layer (in, out) or a convolution (height, width, in, out)."""
  return {"kernel": jax.random.normal(key, shape) * np.sqrt(2 / np.prod(shape[:-1])), "bias": jnp.zeros(shape[-1])}


def dense(parameters: dict[str, jax.Array], x: jax.Array) -> jax.Array:
  """[B, in] -> [B, out]."""
  return x @ parameters["kernel"] + parameters["bias"][None]


def convolution(parameters: dict[str, jax.Array], x: jax.Array, *, stride: int = 1) -> jax.Array:
  """[B, H, W, in] -> [B, H / stride, W / stride, out]."""
  x = jax.lax.conv_general_dilated(x, parameters["kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
  return x + parameters["bias"][None, None, None]


def recolored(key: jax.Array, *pictures: jax.Array) -> list[jax.Array]:
  """Normalized [B, H, W, 3], each time with other colors and brightness, drawn anew for each row, the same for all pictures of a row."""
  keys, size = jax.random.split(key, 3), len(pictures[0])
  mix = 0.25 * jax.random.normal(keys[0], (size, 3, 3)) + jnp.eye(3)[None] * (1 + 0.2 * jax.random.normal(keys[1], (size, 1, 1)))
  offset = 0.2 * jax.random.normal(keys[2], (size, 1, 1, 3))
  return [jnp.einsum("bhwc,bcd->bhwd", x, mix) + offset for x in pictures]


@functools.cache
def optimizer(steps: int) -> optax.GradientTransformation:
  """Adam with decoupled decay; the rate rises for `_WARM` steps and falls as a cosine."""
  rate = optax.warmup_cosine_decay_schedule(0.0, _RATE, min(_WARM, steps // 2), steps)
  return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=_DECAY))


def batched(run: Callable[..., jax.Array], arrays: tuple[np.ndarray, ...], *, size: int = 256) -> np.ndarray:
  """run(*arrays) in equal parts of at most `size` rows, so that it is compiled once: float64."""
  count, parts = len(arrays[0]), []
  size = min(size, count)
  for begin in range(0, count, size):
    rows = np.minimum(np.arange(begin, begin + size), count - 1)
    parts.append(np.asarray(run(*(values[rows] for values in arrays)), np.float64)[: count - begin])
  return np.concatenate(parts)
