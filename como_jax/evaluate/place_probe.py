"""Predicts where something is in a picture: a small convolutional network with a spatial softmax.

It is fitted with labels. A place is (right, down) from the center of the picture, in units of the
width of the picture.

Legend: N pictures, B batch, H W picture.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from como_jax.evaluate import small_network

WIDTHS, STRIDES = (24, 48, 64, 64, 64), (2, 2, 1, 1, 1)


def fit(
  pictures: np.ndarray, places: np.ndarray, *, steps: int, seed: int = 0, batch_size: int = 64
) -> Callable[[np.ndarray], np.ndarray]:
  """Fits the network.

  Args:
    pictures: uint8 [N, H, W, 3]; H = W, a multiple of 4.
    places: [N, 2].
    steps: number of training steps.
    seed: seed of the initial parameters and of the batches.
    batch_size: pictures per step.

  Returns:
    A function: pictures [n, H, W, 3] -> places [n, 2].
  """
  keys = jax.random.split(jax.random.key(seed), len(WIDTHS) + 1)
  channels = (3, *WIDTHS, 1)
  parameters = [
    small_network.layer(key, edge, edge, *channels[i : i + 2])
    for i, (key, edge) in enumerate(zip(keys, (5, *[3] * len(WIDTHS)), strict=True))
  ]
  state, rng = small_network.start(parameters), np.random.default_rng(seed)
  for step in range(steps):
    rows = rng.integers(0, len(pictures), size=batch_size)
    state = _step(
      state,
      jax.random.fold_in(jax.random.key(seed + 1), step),
      pictures[rows],
      places[rows].astype(np.float32),
      steps=steps,
    )
  return lambda new: small_network.batched(functools.partial(_run, state[0]), (new,))


def _apply(parameters: Any, x: jax.Array) -> jax.Array:
  """Normalized pictures [B, H, W, 3] -> places [B, 2]."""
  for layer, stride in zip(parameters, STRIDES, strict=False):
    y = jax.nn.gelu(small_network.convolution(layer, x, stride=stride))
    x = x + y if x.shape == y.shape else y
  heat = small_network.convolution(parameters[-1], x)[..., 0]
  share = jax.nn.softmax(heat.reshape(len(heat), -1)).reshape(heat.shape)
  centers = (jnp.arange(heat.shape[1]) + 0.5) / heat.shape[1] - 0.5
  return jnp.stack([share.sum(axis=1) @ centers, share.sum(axis=2) @ centers], axis=-1)


@jax.jit
def _run(parameters: Any, pictures: jax.Array) -> jax.Array:
  return _apply(parameters, small_network.normalized(pictures))


@functools.partial(jax.jit, static_argnames="steps")
def _step(
  state: tuple, key: jax.Array, pictures: jax.Array, places: jax.Array, *, steps: int
) -> tuple:
  keys = jax.random.split(key)
  (x,) = small_network.recolored(keys[0], small_network.normalized(pictures))
  mirror = jax.random.bernoulli(keys[1], 0.5, (len(x),))
  x = jnp.where(mirror[:, None, None, None], x[:, :, ::-1], x)
  places = places * jnp.where(mirror[:, None], jnp.array([[-1.0, 1.0]]), 1.0)
  grads = jax.grad(lambda p: jnp.abs(_apply(p, x) - places).mean())(state[0])
  return small_network.update(state, grads, small_network.rate(state[-1], steps))
