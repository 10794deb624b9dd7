"""A small convolutional network that reads numbers of a thing from windows about it: how much one
picture tells, and how much both.

It looks at a window about the thing in each picture, where `place_probe` found it, and is told
where the window is: more of the pixels than `picture_probe` sees, and less of what stands around.
Trained with labels, so it is no motion model: it says what can be known. Early stopping on held-out
groups. Legend: N pairs, B batch, S window, A numbers asked for.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from como_jax.evaluate import small_network

# of the convolutions, each halving the window, and of the layers after them
WIDTHS, HIDDEN = (32, 64, 96, 128), (192, 256)
MARGIN = 8  # pixels by which windows are cut wider, so that they can be shifted while fitting


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Windows:
  """Parts of pictures: `pixels` uint8 [N, S + MARGIN, S + MARGIN, 3] and their middles, `places`
  [N, 2], in widths of the picture from its middle; `pixel`, the width of one of its pixels in
  widths of the picture.
  """

  pixels: np.ndarray
  places: np.ndarray
  pixel: float

  def __len__(self) -> int:
    return len(self.pixels)

  def __getitem__(self, rows: Any) -> "Windows":
    return dataclasses.replace(self, pixels=self.pixels[rows], places=self.places[rows])


def windows(pictures: np.ndarray, places: np.ndarray, size: int) -> Windows:
  """Cuts windows of `size` pixels about places [N, 2] out of uint8 [N, H, H, 3]; the picture's edge
  goes on outside.
  """
  height, reach = pictures.shape[1], (size + MARGIN) // 2
  # rows and columns of the picture
  middles = np.clip(np.round((np.asarray(places) + 0.5) * height).astype(int), 0, height)
  cut = np.empty((len(pictures), 2 * reach, 2 * reach, 3), np.uint8)
  for row, (right, down) in enumerate(middles):
    y, x = (
      np.clip(np.arange(middle - reach, middle + reach), 0, height - 1) for middle in (down, right)
    )
    cut[row] = pictures[row][np.ix_(y, x)]
  return Windows(cut, (middles / height - 0.5).astype(np.float32), 1 / height)


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
    first, second: windows of N pairs.
    targets: [N, A] with mean about zero, each turned around where the pictures change places
      ("both").
    groups: [N], pairs of one group are held out together.
    mirrored: [A], what a target is multiplied by where the pictures are mirrored left to right;
      empty: never mirrored.
    settings: "kind" of `picture_probe.KINDS`, "steps", "seed", and "batch_size" (96).
  """
  parameters = _start(
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


def _start(key: jax.Array, size: int, outputs: int) -> dict[str, Any]:
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
  parameters: Any, seen: tuple[jax.Array, jax.Array], places: tuple[jax.Array, jax.Array], kind: str
) -> jax.Array:
  """Normalized windows [B, S, S, 3] and their places [B, 2] of the first and of the second picture
  -> [B, A].
  """
  chosen = {"first": (0, 0), "second": (1, 1), "both": (0, 1)}[kind]
  x = jnp.concatenate(seen) if kind == "both" else seen[chosen[0]]
  for i in range(len(WIDTHS)):
    x = jax.nn.gelu(small_network.convolution(parameters[f"convolution{i}"], x, stride=2))
  x = jax.nn.gelu(small_network.dense(parameters["window"], x.reshape(len(x), -1)))
  a, b = jnp.split(x, 2) if kind == "both" else (x, x)
  at, to = (places[i] for i in chosen)
  # widths of the picture brought to about 1
  x = jnp.concatenate([a, b, b - a, 5 * at, 5 * to, 15 * (to - at)], axis=-1)
  return small_network.dense(
    parameters["out"], jax.nn.gelu(small_network.dense(parameters["pair"], x))
  )


@functools.partial(jax.jit, static_argnames="kind")
def _run(parameters: Any, first: Windows, second: Windows, *, kind: str) -> jax.Array:
  edge, at, to = MARGIN // 2, first.places, second.places
  seen = [
    small_network.normalized(one.pixels[:, edge:-edge, edge:-edge]) for one in (first, second)
  ]
  forward = _apply(parameters, tuple(seen), (at, to), kind)
  if kind != "both":
    return forward
  # the way back is the way there, turned around
  return (forward - _apply(parameters, tuple(reversed(seen)), (to, at), kind)) / 2


@functools.partial(jax.jit, static_argnames=("kind", "steps"))
def _step(
  state: tuple,
  key: jax.Array,
  first: Windows,
  second: Windows,
  targets: jax.Array,
  signs: jax.Array | None,
  *,
  kind: str,
  steps: int,
) -> tuple:
  keys = jax.random.split(key, 5)
  seen, places = zip(
    *(_shifted(key, one) for key, one in zip(keys, (first, second), strict=False)), strict=True
  )
  seen, size = small_network.recolored(keys[2], *seen), len(targets)
  if signs is not None:
    mirror = jax.random.bernoulli(keys[3], 0.5, (size, 1))
    seen = [jnp.where(mirror[:, :, None, None], x[:, :, ::-1], x) for x in seen]
    places = [jnp.where(mirror, at * jnp.array([[-1.0, 1.0]]), at) for at in places]
    targets = jnp.where(mirror, targets * signs[None], targets)
  if kind == "both":
    turn = jax.random.bernoulli(keys[4], 0.5, (size, 1))
    seen = [jnp.where(turn[:, :, None, None], *both) for both in (seen[::-1], seen)]
    places = [jnp.where(turn, *both) for both in (places[::-1], places)]
    targets = jnp.where(turn, -targets, targets)
  grads = jax.grad(
    lambda p: jnp.square(_apply(p, tuple(seen), tuple(places), kind) - targets).mean()
  )(state[0])
  return small_network.update(state, grads, small_network.rate(state[-1], steps))


def _shifted(key: jax.Array, wide: Windows) -> tuple[jax.Array, jax.Array]:
  """Windows [B, S, S, 3], normalized, cut at random out of the wider ones, and their middles."""
  size = wide.pixels.shape[1] - MARGIN
  by = jax.random.randint(key, (len(wide.pixels), 2), 0, MARGIN + 1)
  cut = jax.vmap(
    lambda window, by: jax.lax.dynamic_slice(window, (by[1], by[0], 0), (size, size, 3))
  )(wide.pixels, by)
  return small_network.normalized(cut), wide.places + (by - MARGIN // 2) * wide.pixel
