"""The exam's pictures as arrays, and as the encoder that ships sees them.

Legend: V views of three pictures, P = 2V pairs, N patches, D width of the encoder.
"""

import pathlib
from typing import NamedTuple

import jax
import numpy as np

from como_jax import models, presets
from como_jax.data import video
from como_jax.models import pixels
from como_jax.tasks import training
from como_jax.train import rng

PICTURES, TABLE = "pictures.mp4", "exam.npz"
FIT = 0  # part of a set
_BATCH = 128


class Pictures(NamedTuple):
  """A set's pictures and what a frozen encoder makes of them.

  Attributes:
    frames: uint8 [V, 3, H, W, 3].
    tokens: float16 [V, 3, N, D], patches only.
    table: the set's arrays (`exam.npz`).
  """

  frames: np.ndarray
  tokens: np.ndarray
  table: dict[str, np.ndarray]

  @property
  def fit(self) -> np.ndarray:
    """bool [P]: the pairs that probes are fitted on."""
    return self.of_pairs("part") == FIT

  def of_pairs(self, name: str) -> np.ndarray:
    """A column of the views, for each pair."""
    return np.repeat(self.table[name], 2)

  def first(self, values: np.ndarray) -> np.ndarray:
    """[V, 3, ...] -> [P, ...]: of each pair's first picture."""
    return values[:, :2].reshape(-1, *values.shape[2:])

  def second(self, values: np.ndarray) -> np.ndarray:
    """[V, 3, ...] -> [P, ...]: of each pair's second picture."""
    return values[:, 1:].reshape(-1, *values.shape[2:])


def load(folder: pathlib.Path) -> Pictures:
  """A set as the controls see it: at the size of the encoder that ships, with its tokens."""
  section = presets.preset("motion", "debug")
  model = models.build(section)
  parameters = {**model.init(rng.key(0, "exam")), **training.encoder_weights("bundled", model=model)}
  shown = frames(folder, section["image_size"])
  run = jax.jit(lambda parameters, images: model.features(parameters, pixels.normalise(images))[:, 1:])
  flat, parts = shown.reshape(-1, *shown.shape[2:]), []
  for begin in range(0, len(flat), _BATCH):
    part = flat[begin : begin + _BATCH]
    padded = np.concatenate([part, np.repeat(part[:1], _BATCH - len(part), axis=0)])
    parts.append(np.asarray(run(parameters, padded), np.float16)[: len(part)])
  tokens = np.concatenate(parts)
  with np.load(folder / TABLE) as file:
    return Pictures(shown, tokens.reshape(*shown.shape[:2], *tokens.shape[1:]), dict(file))


def frames(folder: pathlib.Path, size: int) -> np.ndarray:
  """uint8 [V, 3, H, W, 3], H = W = size pixels; 0: as they are stored."""
  every = np.stack([frame for _, frame in video.read(str(folder / PICTURES), video.Geometry(size))])
  return every.reshape(-1, 3, *every.shape[1:])
