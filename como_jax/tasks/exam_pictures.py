"""The exam's pictures as arrays, and as the encoder that ships sees them.

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
from como_jax.tasks import training
from como_jax.train import rng

PICTURES = "pictures.mp4"
# of a picture's side: how far both pictures of a pair are moved to see whether z stays
SHIFT = 1 / 16
CORNERS = ((0, 0), (0, 2), (2, 0), (2, 2))


class Pictures(NamedTuple):
  """A set's pictures and what a frozen encoder makes of them.

  Attributes:
    frames: uint8 [V, 3, H, W, 3], at the size of the encoder.
    whole: the same as they are stored.
    tokens: float16 [V, 3, N, D], patches only.
    table: the set's arrays (`exam.npz`).
    shifted: float16 [V, 2, N, D], as `tokens`, of what `shifted` makes of the frames; None: not
      asked for.
  """

  frames: np.ndarray
  whole: np.ndarray
  tokens: np.ndarray
  table: dict[str, np.ndarray]
  shifted: np.ndarray | None = None

  @property
  def fit(self) -> np.ndarray:
    """Bool [P]: the pairs that probes are fitted on."""
    return self.of_pairs("part") == exam_set.FIT

  def of_pairs(self, name: str) -> np.ndarray:
    """A column of the views, for each pair."""
    return np.repeat(self.table[name], 2)

  @staticmethod
  def first(values: np.ndarray) -> np.ndarray:
    """[V, 3, ...] -> [P, ...]: of each pair's first picture."""
    return values[:, :2].reshape(-1, *values.shape[2:])

  @staticmethod
  def second(values: np.ndarray) -> np.ndarray:
    """[V, 3, ...] -> [P, ...]: of each pair's second picture."""
    return values[:, 1:].reshape(-1, *values.shape[2:])


def load(folder: pathlib.Path) -> Pictures:
  """A set as the controls see it: at the size of the encoder that ships, with its tokens."""
  section = model_presets.preset("motion", "debug")
  model = models.build(section)
  parameters = {
    **model.init(rng.key(0, "exam")),
    **training.encoder_weights("bundled", model=model),
  }
  shown = frames(folder, section["image_size"])
  encode = jax.jit(
    lambda images: model.features(parameters, pixels.normalize(images))[:, 1:].astype("float16")
  )

  def tokens(images: np.ndarray) -> np.ndarray:
    found = batched(encode, 128)(images.reshape(-1, *images.shape[2:]))
    return found.reshape(*images.shape[:2], *found.shape[1:])

  with np.load(folder / exam_set.TABLE) as file:
    return Pictures(shown, frames(folder, 0), tokens(shown), dict(file), tokens(shifted(shown)))


def batched(run: Callable[..., jax.Array], size: int) -> Callable[..., np.ndarray]:
  """`run` of arrays [n, ...] for any n, always called (and so compiled) for `size` rows."""

  def every(*arrays: np.ndarray) -> np.ndarray:
    count, parts = len(arrays[0]), []
    for begin in range(0, count, size):
      rows = np.minimum(np.arange(begin, begin + size), count - 1)
      parts.append(np.asarray(run(*(values[rows] for values in arrays)))[: count - begin])
    return np.concatenate(parts)

  return every


def frames(folder: pathlib.Path, size: int) -> np.ndarray:
  """uint8 [V, 3, H, W, 3], H = W = size pixels; 0: as they are stored."""
  every = np.stack([frame for _, frame in video.read(str(folder / PICTURES), video.Geometry(size))])
  return every.reshape(-1, 3, *every.shape[1:])


def shifted(frames: np.ndarray, views: np.ndarray | None = None) -> np.ndarray:
  """Pictures 0 and 1 of frames [V, 3, H, W, 3], both moved by the same pixels: [V, 2, H, W, 3].

  They move by `SHIFT` of the side, a pixel at least, along both axes, toward the four corners in
  turn; edges are repeated.

  Args:
    frames: of the views.
    views: place of each in the set, int [V]; None: these are all.
  """
  by = max(1, round(SHIFT * frames.shape[2]))
  corner = (np.arange(len(frames)) if views is None else views) % len(CORNERS)
  result = np.empty_like(frames[:, :2])
  for number, (down, right) in enumerate(CORNERS):
    rows = corner == number
    padded = np.pad(frames[rows, :2], ((0, 0), (0, 0), (by, by), (by, by), (0, 0)), mode="edge")
    result[rows] = padded[:, :, down * by :, right * by :][
      :, :, : frames.shape[2], : frames.shape[3]
    ]
  return result
