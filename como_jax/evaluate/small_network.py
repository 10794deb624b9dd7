"""Parts of the small convolutional networks that are fitted with labels, in plain JAX.

`place_probe`, `picture_probe` and `window_probe` use them.

Legend: B batch, H W picture, C channels, A target dimensions.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

_MEAN, _SCALE = 0.45, 0.25  # mean and standard deviation of pictures in 0..1
WARM, RATE, _DECAY = 100, 2e-3, 0.02

# parameters, mean gradients, mean squared gradients, number of steps
State = tuple[Any, Any, Any, jax.Array]


def normalized(pictures: Any) -> jax.Array:
  """Normalizes uint8 pictures to float32 with a mean near 0."""
  return (jnp.asarray(pictures, jnp.float32) / 255 - _MEAN) / _SCALE


def layer(key: jax.Array, *shape: int) -> dict[str, jax.Array]:
  """Initial weights of a dense layer (in, out) or of a convolution (height, width, in, out)."""
  return {
    "kernel": jax.random.normal(key, shape) * np.sqrt(2 / np.prod(shape[:-1])),
    "bias": jnp.zeros(shape[-1]),
  }


def dense(parameters: dict[str, jax.Array], x: jax.Array) -> jax.Array:
  """Applies a dense layer: [B, in] -> [B, out]."""
  return x @ parameters["kernel"] + parameters["bias"][None]


def convolution(parameters: dict[str, jax.Array], x: jax.Array, *, stride: int = 1) -> jax.Array:
  """Applies a convolution: [B, H, W, in] -> [B, H / stride, W / stride, out]."""
  x = jax.lax.conv_general_dilated(
    x, parameters["kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  return x + parameters["bias"][None, None, None]


def recolored(key: jax.Array, *pictures: jax.Array) -> list[jax.Array]:
  """Changes colors and brightness at random.

  Each row of the batch has its own change, which is the same for all pictures of the row.

  Args:
    key: random key.
    *pictures: normalized pictures [B, H, W, 3].
  """
  keys, size = jax.random.split(key, 3), len(pictures[0])
  mix = 0.25 * jax.random.normal(keys[0], (size, 3, 3)) + jnp.eye(3)[None] * (
    1 + 0.2 * jax.random.normal(keys[1], (size, 1, 1))
  )
  offset = 0.2 * jax.random.normal(keys[2], (size, 1, 1, 3))
  return [jnp.einsum("bhwc,bcd->bhwd", x, mix) + offset for x in pictures]


def start(parameters: Any) -> State:
  """The state before the first step."""
  zeros = jax.tree.map(jnp.zeros_like, parameters)
  return parameters, zeros, zeros, jnp.zeros((), jnp.int32)


def update(state: State, grads: Any, rate: jax.Array) -> State:
  """One step of Adam with decoupled weight decay; gradients are clipped to a global norm of 1."""
  parameters, mean, square, count = state
  norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
  grads = jax.tree.map(lambda g: g / jnp.maximum(1.0, norm), grads)
  count = count + 1
  time = count.astype(jnp.float32)
  mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, grads)
  square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, square, grads)
  moved = jax.tree.map(
    lambda p, m, s: (
      p * (1 - rate * _DECAY)
      - rate * (m / (1 - 0.9**time)) / (jnp.sqrt(s / (1 - 0.999**time)) + 1e-8)
    ),
    parameters,
    mean,
    square,
  )
  return moved, mean, square, count


def rate(count: jax.Array, steps: int) -> jax.Array:
  """Learning rate of step `count`: linear warmup for `WARM` steps, then cosine decay."""
  warm = min(WARM, steps // 2)
  falling = 0.5 * (1 + jnp.cos(jnp.pi * (count - warm) / (steps - warm)))
  return RATE * jnp.where(count < warm, count / max(1, warm), falling)


class PairProbe:
  """A network that was fitted on pairs.

  Attributes:
    text: describes the fit.
    error: error on the held-out groups; 1: no better than a prediction of 0.
  """

  def __init__(
    self,
    run: Callable[..., jax.Array],
    parameters: Any,
    scale: np.ndarray,
    text: str = "",
    error: float = np.nan,
  ):
    """Wraps a fitted network.

    Args:
      run: (parameters, first, second) -> scaled targets [B, A].
      parameters: parameters of the network.
      scale: scale of each target [A].
      text: see the class.
      error: see the class.
    """
    self._run, self._scale, self.text, self.error = (
      functools.partial(run, parameters),
      scale,
      text,
      error,
    )

  def predict(self, first: Any, second: Any) -> np.ndarray:
    """Predicts the targets of N pairs: float64 [N, A].

    Args:
      first: input of the network for the first picture of each pair; it has a length and rows.
      second: the same for the second picture.
    """
    return batched(self._run, (first, second)) * self._scale


class Pairs(NamedTuple):
  """A batch of pairs of pictures.

  Attributes:
    first: inputs of the network for the first pictures.
    second: the same for the second pictures.
    targets: scaled targets [B, A].
  """

  first: Any
  second: Any
  targets: Any


def fit_pairs(
  networks: tuple[Any, Callable, Callable],
  inputs: tuple[Any, Any],
  targets: np.ndarray,
  *,
  groups: np.ndarray,
  mirrored: Sequence[float],
  settings: dict[str, Any],
) -> PairProbe:
  """Fits a network, with early stopping on held-out groups.

  Args:
    networks: (initial parameters, step(state, key, pairs, signs) -> state,
      run(parameters, first, second) -> [B, A]).
    inputs: inputs of the network for the first and the second pictures of N pairs; each has a
      length and rows.
    targets: as for `picture_probe.fit`.
    groups: as for `picture_probe.fit`.
    mirrored: as for `picture_probe.fit`.
    settings: as for `picture_probe.fit`, but "batch_size" is required.
  """
  (parameters, step, run), (first, second), (steps, seed, size) = (
    networks,
    inputs,
    (settings[name] for name in ("steps", "seed", "batch_size")),
  )
  scale = np.sqrt(np.mean(np.square(targets), axis=0))
  scaled = (targets / scale).astype(np.float32)
  rng = np.random.default_rng(seed)
  names = np.unique(groups)
  held = np.isin(groups, rng.permutation(names)[: max(1, len(names) // 8)])
  train, check = np.flatnonzero(~held), np.flatnonzero(held)
  signs = jnp.asarray(mirrored, jnp.float32) if len(mirrored) else None
  state = start(parameters)
  best, best_error, best_step = parameters, np.inf, 0
  for index in range(steps):
    rows = rng.choice(train, min(size, len(train)), replace=False)
    state = step(
      state,
      jax.random.fold_in(jax.random.key(seed + 1), index),
      Pairs(first[rows], second[rows], scaled[rows]),
      signs,
    )
    if (index + 1) % max(1, steps // 10) == 0:
      predicted = PairProbe(run, state[0], np.ones(len(scale))).predict(first[check], second[check])
      error = float(np.minimum(1.0, np.mean(np.square(predicted - scaled[check]), axis=0)).mean())
      if error < best_error:
        best, best_error, best_step = state[0], error, index + 1
  text = (
    f"on {settings['kind']}, {steps} steps of {size}, best on held-out groups at step {best_step}"
  )
  return PairProbe(run, best, scale, text, best_error)


def batched(
  run: Callable[..., jax.Array], inputs: tuple[Any, ...], *, size: int = 256
) -> np.ndarray:
  """Calls run(*inputs) in batches of equal size, so that it is compiled only once.

  Args:
    run: arrays with up to `size` rows each -> [rows, ...].
    inputs: inputs, each with a length and rows.
    size: maximum number of rows of a batch.

  Returns:
    The results of all rows in float64.
  """
  count, parts = len(inputs[0]), []
  size = min(size, count)
  for begin in range(0, count, size):
    rows = np.minimum(np.arange(begin, begin + size), count - 1)
    parts.append(np.asarray(run(*(values[rows] for values in inputs)), np.float64)[: count - begin])
  return np.concatenate(parts)
