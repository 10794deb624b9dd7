"""The pictures of the exam as arrays, and as tokens of the bundled encoder.

Legend: V views of three pictures, P = 2V pairs, N patches, D width of the encoder.
"""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from como_jax import model_presets, models
from como_jax.data import video
from como_jax.exam import exam_set
from como_jax.models import pixels
from como_jax.train import encoder_weights, rng

PICTURES = "pictures.mp4"
# Shift of both pictures of a pair, as share of the side, to test whether z depends on the location.
SHIFT = 1 / 16
CORNERS = ((0, 0), (0, 2), (2, 0), (2, 2))


class Pictures(NamedTuple):
  """The pictures of a set and their tokens from a frozen encoder.

  Attributes:
    frames: uint8 [V, 3, H, W, 3], at the size of the encoder.
    whole: the same pictures, as they are stored.
    tokens: tokens of the patches, float16 [V, 3, N, D].
    table: arrays of the set (`exam.npz`).
    shifted: tokens of the shifted frames (see `shifted`), float16 [V, 2, N, D]; None: not computed.
  """

  frames: np.ndarray
  whole: np.ndarray
  tokens: np.ndarray
  table: dict[str, np.ndarray]
  shifted: np.ndarray | None = None

  @property
  def fit(self) -> np.ndarray:
    """The pairs on which probes are fitted, bool [P]."""
    return self.of_pairs("part") == exam_set.FIT

  def of_pairs(self, name: str) -> np.ndarray:
    """A column of the views, repeated for each pair [P]."""
    return np.repeat(self.table[name], 2)

  @staticmethod
  def first(values: np.ndarray) -> np.ndarray:
    """Values of the first picture of each pair: [V, 3, ...] -> [P, ...]."""
    return values[:, :2].reshape(-1, *values.shape[2:])

  @staticmethod
  def second(values: np.ndarray) -> np.ndarray:
    """Values of the second picture of each pair: [V, 3, ...] -> [P, ...]."""
    return values[:, 1:].reshape(-1, *values.shape[2:])


def load(folder: pathlib.Path) -> Pictures:
  """Reads a set for the controls: at the size of the bundled encoder, with its tokens."""
  section = model_presets.preset("motion", "debug")
  model = models.build(section)
  parameters = {**model.init(rng.key(0, "exam")), **encoder_weights.load("bundled", model=model)}
  pictures = frames(folder, section["image_size"])
  encode = jax.jit(
    lambda images: model.features(parameters, pixels.normalize(images))[:, 1:].astype("float16")
  )

  def tokens(images: np.ndarray) -> np.ndarray:
    flat = batched(encode, 128)(images.reshape(-1, *images.shape[2:]))
    return flat.reshape(*images.shape[:2], *flat.shape[1:])

  with np.load(folder / exam_set.TABLE) as file:
    return Pictures(
      pictures, frames(folder, 0), tokens(pictures), dict(file), tokens(shifted(pictures))
    )


def batched(run: Callable[..., jax.Array], size: int) -> Callable[..., np.ndarray]:
  """Wraps a function of arrays [n, ...] so that it is always called for batches of one size.

  So it is compiled only once.

  Args:
    run: arrays [size, ...] -> array [size, ...].
    size: rows of a batch.
  """

  def run_in_batches(*arrays: np.ndarray) -> np.ndarray:
    count, parts = len(arrays[0]), []
    for begin in range(0, count, size):
      rows = np.minimum(np.arange(begin, begin + size), count - 1)
      parts.append(np.asarray(run(*(values[rows] for values in arrays)))[: count - begin])
    return np.concatenate(parts)

  return run_in_batches


def frames(folder: pathlib.Path, size: int) -> np.ndarray:
  """Reads the pictures of a set.

  Args:
    folder: folder of the tier.
    size: H = W in pixels; 0: as they are stored.

  Returns:
    uint8 [V, 3, H, W, 3].
  """
  pictures = np.stack(
    [frame for _, frame in video.read(str(folder / PICTURES), video.Geometry(size))]
  )
  return pictures.reshape(-1, 3, *pictures.shape[1:])


def shifted(frames: np.ndarray, views: np.ndarray | None = None) -> np.ndarray:
  """Shifts pictures 0 and 1 of each view by the same pixels: [V, 3, H, W, 3] -> [V, 2, H, W, 3].

  The shift is `SHIFT` of the side, at least one pixel, along both axes. Views are shifted toward
  the four corners in turn. Edges are repeated.

  Args:
    frames: [V, 3, H, W, 3].
    views: index of each view in the set, int [V]; None: `frames` has all views.
  """
  distance = max(1, round(SHIFT * frames.shape[2]))
  corner = (np.arange(len(frames)) if views is None else views) % len(CORNERS)
  result = np.empty_like(frames[:, :2])
  for index, (down, right) in enumerate(CORNERS):
    rows = corner == index
    padded = np.pad(
      frames[rows, :2],
      ((0, 0), (0, 0), (distance, distance), (distance, distance), (0, 0)),
      mode="edge",
    )
    result[rows] = padded[:, :, down * distance :, right * distance :][
      :, :, : frames.shape[2], : frames.shape[3]
    ]
  return result
