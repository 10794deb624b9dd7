"""A small convolutional network that predicts targets from one picture or from both.

It is trained with labels, so it is not a motion model: it shows what the pictures allow to predict.
Training stops early, by held-out groups.

Legend: N pairs, B batch, H W picture, A target dimensions.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from como_jax.evaluate import small_network

# Widths of the convolutions (each halves the picture) and of the dense layer after them.
WIDTHS, HIDDEN = (32, 64, 96, 128), 256
KINDS = ("first", "second", "both")  # which pictures the network sees


def fit(
  first: np.ndarray,
  second: np.ndarray,
  targets: np.ndarray,
  *,
  groups: np.ndarray,
  mirrored: Sequence[float],
  settings: dict[str, Any],
) -> small_network.PairProbe:
  """Fits one network.

  Args:
    first: uint8 [N, H, W, 3], H and W multiples of 16.
    second: as `first`.
    targets: [N, A] with a mean near zero; for "both", a target changes its sign if the pictures are
      swapped.
    groups: group of each pair [N]; the pairs of a group are held out together.
    mirrored: factor of each target [A] if the pictures are mirrored left to right; empty: pictures
      are never mirrored.
    settings: "kind" (one of `KINDS`), "steps", "seed", and "batch_size" (default 128).
  """
  parameters = _init(jax.random.key(settings["seed"]), first.shape[1:3], targets.shape[1])
  step, run = (
    functools.partial(_step, kind=settings["kind"], steps=settings["steps"]),
    functools.partial(_run, kind=settings["kind"]),
  )
  return small_network.fit_pairs(
    (parameters, step, run),
    (first, second),
    targets,
    groups=groups,
    mirrored=mirrored,
    settings={"batch_size": 128} | settings,
  )


def _init(key: jax.Array, picture: tuple[int, int], outputs: int) -> dict[str, jax.Array]:
  keys = jax.random.split(key, len(WIDTHS) + 2)
  parameters, channels = {}, 9
  for i, width in enumerate(WIDTHS):
    edge = 5 if i == 0 else 3
    parameters[f"conv{i}"] = jax.random.normal(keys[i], (edge, edge, channels, width)) * np.sqrt(
      2 / (edge * edge * channels)
    )
    parameters[f"bias{i}"], channels = jnp.zeros(width), width
  flat = (picture[0] // 16) * (picture[1] // 16) * channels
  return parameters | {
    "hidden": jax.random.normal(keys[-2], (flat, HIDDEN)) * np.sqrt(2 / flat),
    "hidden_bias": jnp.zeros(HIDDEN),
    "out": jax.random.normal(keys[-1], (HIDDEN, outputs)) * 0.01,
    "out_bias": jnp.zeros(outputs),
  }


def _apply(parameters: Any, first: jax.Array, second: jax.Array, kind: str) -> jax.Array:
  """Two normalized pictures [B, H, W, 3] -> targets [B, A]."""
  inputs = {
    "first": (first, first, first),
    "second": (second, second, second),
    "both": (first, second, second - first),
  }[kind]
  x = jnp.concatenate(inputs, axis=-1)
  for i in range(len(WIDTHS)):
    x = jax.lax.conv_general_dilated(
      x, parameters[f"conv{i}"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    x = jax.nn.gelu(x + parameters[f"bias{i}"][None, None, None])
  x = jax.nn.gelu(x.reshape(len(x), -1) @ parameters["hidden"] + parameters["hidden_bias"][None])
  return x @ parameters["out"] + parameters["out_bias"][None]


@functools.partial(jax.jit, static_argnames="kind")
def _run(parameters: Any, first: jax.Array, second: jax.Array, *, kind: str) -> jax.Array:
  return _apply(parameters, small_network.normalized(first), small_network.normalized(second), kind)


def _augment(
  key: jax.Array, pairs: small_network.Pairs, signs: jax.Array | None, kind: str
) -> small_network.Pairs:
  """Augments pairs by changes that leave the targets as they are or change them in a known way.

  Pairs are mirrored, swapped in time, recolored and shifted.
  """
  first, second, targets = pairs
  keys, size = jax.random.split(key, 6), len(first)
  if signs is not None:
    mirrored = jax.random.bernoulli(keys[0], 0.5, (size, 1, 1, 1))
    first, second = (
      jnp.where(mirrored, first[:, :, ::-1], first),
      jnp.where(mirrored, second[:, :, ::-1], second),
    )
    targets = jnp.where(mirrored[:, :, 0, 0], targets * signs[None], targets)
  if kind == "both":
    swapped = jax.random.bernoulli(keys[1], 0.5, (size, 1, 1, 1))
    first, second = jnp.where(swapped, second, first), jnp.where(swapped, first, second)
    targets = jnp.where(swapped[:, :, 0, 0], -targets, targets)
  mix = 0.25 * jax.random.normal(keys[2], (size, 3, 3)) + jnp.eye(3)[None] * (
    1 + 0.2 * jax.random.normal(keys[3], (size, 1, 1))
  )
  offset = 0.2 * jax.random.normal(keys[4], (size, 1, 1, 3))
  max_shift = first.shape[1] // 10
  shift = jax.random.randint(keys[5], (size, 2), -max_shift, max_shift + 1)
  roll = jax.vmap(lambda picture, by: jnp.roll(picture, by, (0, 1)))

  def augment(pictures: jax.Array) -> jax.Array:
    return roll(jnp.einsum("bhwc,bcd->bhwd", pictures, mix) + offset, shift)

  return small_network.Pairs(augment(first), augment(second), targets)


@functools.partial(jax.jit, static_argnames=("kind", "steps"))
def _step(
  state: small_network.State,
  key: jax.Array,
  pairs: small_network.Pairs,
  signs: jax.Array | None,
  *,
  kind: str,
  steps: int,
) -> small_network.State:
  """One step; the learning rate warms up for `small_network.WARM` steps, under a cosine decay."""
  parameters, *_, count = state
  normalized = small_network.Pairs(
    small_network.normalized(pairs.first), small_network.normalized(pairs.second), pairs.targets
  )
  first, second, targets = _augment(key, normalized, signs, kind)
  grads = jax.grad(lambda p: jnp.mean(jnp.square(_apply(p, first, second, kind) - targets)))(
    parameters
  )
  time = (count + 1).astype(jnp.float32)
  rate = small_network.RATE * jnp.minimum(
    time / small_network.WARM, 0.5 * (1 + jnp.cos(jnp.pi * time / steps))
  )
  return small_network.update(state, grads, rate)
