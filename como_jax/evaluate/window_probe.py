"""A small convolutional network that predicts targets of an object from windows around it.

In each picture, it sees a window around the place where `place_probe` found the object, and the
location of the window. So it sees the object in a higher resolution than `picture_probe`, and less
of its surroundings. It uses one picture or both. It is trained with labels, so it is not a motion
model: it shows what the pictures allow to predict. Training stops early, by held-out groups.

Legend: N pairs, B batch, S window, A target dimensions.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from como_jax.evaluate import small_network

# Widths of the convolutions (each halves the window) and of the dense layers after them.
WIDTHS, HIDDEN = (32, 64, 96, 128), (192, 256)
Array = np.ndarray | jax.Array
MARGIN = 8  # extra pixels of a window, so that it can be shifted during training


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Windows:
  """Windows of pictures.

  Attributes:
    pixels: uint8 [N, S + MARGIN, S + MARGIN, 3].
    places: centers of the windows [N, 2]: (right, down) from the center of the picture, in units of
      the width of the picture.
    pixel: width of a pixel in the same unit.
  """

  pixels: Array
  places: Array
  pixel: float

  def __len__(self) -> int:
    return len(self.pixels)

  def __getitem__(self, rows: Any) -> "Windows":
    return dataclasses.replace(self, pixels=self.pixels[rows], places=self.places[rows])


def windows(pictures: np.ndarray, places: np.ndarray, size: int) -> Windows:
  """Cuts windows out of pictures; outside a picture, its edge is repeated.

  Args:
    pictures: uint8 [N, H, H, 3].
    places: centers of the windows [N, 2], as in `Windows`.
    size: S, in pixels.
  """
  height, half = pictures.shape[1], (size + MARGIN) // 2
  # Columns and rows of the picture.
  centers = np.clip(np.round((np.asarray(places) + 0.5) * height).astype(int), 0, height)
  pixels = np.empty((len(pictures), 2 * half, 2 * half, 3), np.uint8)
  for row, (right, down) in enumerate(centers):
    y, x = (
      np.clip(np.arange(middle - half, middle + half), 0, height - 1) for middle in (down, right)
    )
    pixels[row] = pictures[row][np.ix_(y, x)]
  return Windows(pixels, (centers / height - 0.5).astype(np.float32), 1 / height)


def fit(
  first: Windows,
  second: Windows,
  targets: np.ndarray,
  *,
  groups: np.ndarray,
  mirrored: Sequence[float],
  settings: dict[str, Any],
) -> small_network.PairProbe:
  """Fits one network.

  Args:
    first: windows of N pairs.
    second: windows of N pairs.
    targets: [N, A] with a mean near zero; for "both", a target changes its sign if the pictures are
      swapped.
    groups: group of each pair [N]; the pairs of a group are held out together.
    mirrored: factor of each target [A] if the pictures are mirrored left to right; empty: pictures
      are never mirrored.
    settings: "kind" (one of `picture_probe.KINDS`), "steps", "seed", and "batch_size" (default 96).
  """
  parameters = _init(
    jax.random.key(settings["seed"]), first.pixels.shape[1] - MARGIN, targets.shape[1]
  )
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
    settings={"batch_size": 96} | settings,
  )


def _init(key: jax.Array, size: int, outputs: int) -> dict[str, Any]:
  keys = iter(jax.random.split(key, len(WIDTHS) + 3))
  channels, edges = (3, *WIDTHS), (5, *[3] * (len(WIDTHS) - 1))
  parameters = {
    f"convolution{i}": small_network.layer(next(keys), edge, edge, *channels[i : i + 2])
    for i, edge in enumerate(edges)
  }
  for _ in WIDTHS:
    size = -(-size // 2)
  parameters |= {
    "window": small_network.layer(next(keys), size * size * WIDTHS[-1], HIDDEN[0]),
    "pair": small_network.layer(next(keys), 3 * HIDDEN[0] + 6, HIDDEN[1]),
  }
  out = small_network.layer(next(keys), HIDDEN[1], outputs)
  return parameters | {"out": out | {"kernel": 0.1 * out["kernel"]}}


def _apply(
  parameters: Any, windows: Sequence[jax.Array], places: Sequence[Array], kind: str
) -> jax.Array:
  """Predicts targets [B, A].

  Args:
    parameters: parameters of the network.
    windows: normalized windows [B, S, S, 3] of the first and of the second pictures.
    places: places [B, 2] of these windows.
    kind: one of `picture_probe.KINDS`.
  """
  chosen = {"first": (0, 0), "second": (1, 1), "both": (0, 1)}[kind]
  x = jnp.concatenate(windows) if kind == "both" else windows[chosen[0]]
  for i in range(len(WIDTHS)):
    x = jax.nn.gelu(small_network.convolution(parameters[f"convolution{i}"], x, stride=2))
  x = jax.nn.gelu(small_network.dense(parameters["window"], x.reshape(len(x), -1)))
  a, b = jnp.split(x, 2) if kind == "both" else (x, x)
  first_place, second_place = (places[i] for i in chosen)
  # The factors scale the places to a size of about 1.
  x = jnp.concatenate(
    [a, b, b - a, 5 * first_place, 5 * second_place, 15 * (second_place - first_place)], axis=-1
  )
  return small_network.dense(
    parameters["out"], jax.nn.gelu(small_network.dense(parameters["pair"], x))
  )


@functools.partial(jax.jit, static_argnames="kind")
def _run(parameters: Any, first: Windows, second: Windows, *, kind: str) -> jax.Array:
  edge, first_place, second_place = MARGIN // 2, first.places, second.places
  pixels = [
    small_network.normalized(windows.pixels[:, edge:-edge, edge:-edge])
    for windows in (first, second)
  ]
  forward = _apply(parameters, pixels, (first_place, second_place), kind)
  if kind != "both":
    return forward
  # The prediction for the swapped pair must be the negative: average both.
  return (forward - _apply(parameters, pixels[::-1], (second_place, first_place), kind)) / 2


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
  """One step on shifted, recolored, mirrored and swapped windows."""
  keys, targets = jax.random.split(key, 5), pairs.targets
  (first, first_place), (second, second_place) = (
    _shifted(key, windows) for key, windows in zip(keys, pairs[:2], strict=False)
  )
  pixels, places = [first, second], [first_place, second_place]
  pixels, size = small_network.recolored(keys[2], *pixels), len(targets)
  if signs is not None:
    mirrored = jax.random.bernoulli(keys[3], 0.5, (size, 1))
    pixels = [jnp.where(mirrored[:, :, None, None], x[:, :, ::-1], x) for x in pixels]
    places = [jnp.where(mirrored, place * jnp.array([[-1.0, 1.0]]), place) for place in places]
    targets = jnp.where(mirrored, targets * signs[None], targets)
  if kind == "both":
    swapped = jax.random.bernoulli(keys[4], 0.5, (size, 1))
    pixels = [jnp.where(swapped[:, :, None, None], *values) for values in (pixels[::-1], pixels)]
    places = [jnp.where(swapped, *values) for values in (places[::-1], places)]
    targets = jnp.where(swapped, -targets, targets)
  grads = jax.grad(lambda p: jnp.square(_apply(p, pixels, places, kind) - targets).mean())(state[0])
  return small_network.update(state, grads, small_network.rate(state[-1], steps))


def _shifted(key: jax.Array, windows: Windows) -> tuple[jax.Array, Array]:
  """Crops at random: (normalized windows [B, S, S, 3], places of their centers [B, 2])."""
  size = windows.pixels.shape[1] - MARGIN
  shift = jax.random.randint(key, (len(windows.pixels), 2), 0, MARGIN + 1)
  pixels = jax.vmap(
    lambda window, shift: jax.lax.dynamic_slice(window, (shift[1], shift[0], 0), (size, size, 3))
  )(windows.pixels, shift)
  return small_network.normalized(pixels), windows.places + (shift - MARGIN // 2) * windows.pixel
