"""Normalisation of actions, states and latents: compute in one pass, save, apply, invert."""

import dataclasses
import json

import numpy as np

from como_jax import errors
from como_jax.data import index
from como_jax.data.sources import shards

MODES = ("standard", "quantile")
_FIELDS = ("mean", "std", "min", "max", "q01", "q99")
_SMALL = 1e-6  # a dimension that never changes is divided by 1


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Of one array over all rows, each [D] float64; `count` rows. q01 and q99 are the 1 % and 99 % quantiles."""

  count: int
  mean: np.ndarray
  std: np.ndarray
  min: np.ndarray
  max: np.ndarray
  q01: np.ndarray
  q99: np.ndarray

  def _affine(self, mode: str) -> tuple[np.ndarray, np.ndarray]:
    if mode == "standard":
      shift, scale = self.mean, self.std
    elif mode == "quantile":
      shift, scale = (self.q99 + self.q01) / 2, (self.q99 - self.q01) / 2
    else:
      raise errors.UserError(f"unknown normalisation {mode!r}: {errors.nearest(mode, MODES)}")
    return shift, np.where(scale < _SMALL, 1.0, scale)

  def normalise(self, x: np.ndarray, mode: str = "standard") -> np.ndarray:
    """[..., D] to mean 0 and standard deviation 1 ("standard") or [q01, q99] to [-1, 1] ("quantile"), in x's dtype."""
    shift, scale = self._affine(mode)
    return ((x - shift) / scale).astype(np.asarray(x).dtype)

  def inverse(self, x: np.ndarray, mode: str = "standard") -> np.ndarray:
    """Undoes `normalise`."""
    shift, scale = self._affine(mode)
    return (x * scale + shift).astype(np.asarray(x).dtype)

  def to_json(self) -> dict:
    return {"count": self.count, **{name: getattr(self, name).tolist() for name in _FIELDS}}

  @classmethod
  def from_json(cls, values: dict) -> "Statistics":
    return cls(int(values["count"]), **{name: np.asarray(values[name], np.float64) for name in _FIELDS})


class Accumulator:
  """Collects rows [n, D] in any number of pieces. Mean and deviation are merged exactly (Chan et al. 1979); the
  quantiles are exact up to `keep` rows and then come from an evenly thinned sample, so that memory stays bounded and
  the result is deterministic."""

  def __init__(self, keep: int = 200_000):
    self._keep, self._step, self._sample, self._held = keep, 1, [], 0
    self._count, self._mean, self._squares, self._min, self._max = 0, 0.0, 0.0, np.inf, -np.inf

  def add(self, rows: np.ndarray) -> None:
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2:
      raise ValueError(f"expected rows [n, D], got shape {rows.shape}")
    if not len(rows):
      return
    if not np.isfinite(rows).all():
      raise errors.UserError("statistics: the array holds values that are not finite")
    first = -self._count % self._step
    self._sample.append(rows[first :: self._step])
    self._held += len(self._sample[-1])
    count, mean = len(rows), rows.mean(0)
    delta, total = mean - self._mean, self._count + count
    self._squares = self._squares + ((rows - mean) ** 2).sum(0) + delta**2 * (self._count * count / total)
    self._mean, self._count = self._mean + delta * (count / total), total
    self._min, self._max = np.minimum(self._min, rows.min(0)), np.maximum(self._max, rows.max(0))
    while self._held > self._keep:
      self._sample = [np.concatenate(self._sample)[::2]]
      self._held, self._step = len(self._sample[0]), self._step * 2

  def finish(self) -> Statistics | None:
    """None when nothing was added."""
    if not self._count:
      return None
    q01, q99 = np.quantile(np.concatenate(self._sample), [0.01, 0.99], axis=0)
    return Statistics(self._count, self._mean, np.sqrt(self._squares / self._count), self._min, self._max, q01, q99)


def compute(
  path: str, *, keys: tuple[str, ...] = ("action", "state"), split: str = "train", validation_fraction: float = 0.1
) -> dict[str, Statistics]:
  """Statistics of a folder of shards by array name; arrays that no clip has are left out. No frame is decoded."""
  table, reader = shards.read_table(path), shards.Reader(path)
  rows = np.flatnonzero(index.select(table, split, validation_fraction))
  accumulators = {key: Accumulator() for key in keys}
  ends: dict[str, int] = {}
  for row in rows[np.lexsort((table.start[rows], table.shard[rows]))]:
    clip = reader.clip(table.shard[row], table.record[row])
    skip = max(0, ends.get(clip.episode, 0) - clip.start)  # frames repeated by clip_overlap count once
    ends[clip.episode] = clip.start + len(clip)
    for key, accumulator in accumulators.items():
      if key in clip.arrays:
        accumulator.add(clip.arrays[key][skip:])
  finished = {key: accumulator.finish() for key, accumulator in accumulators.items()}
  return {key: value for key, value in finished.items() if value is not None}


def save(path: str, statistics: dict[str, Statistics]) -> None:
  """Writes JSON."""
  with open(path, "w", encoding="utf-8") as file:
    json.dump({key: value.to_json() for key, value in statistics.items()}, file, indent=1)


def load(path: str) -> dict[str, Statistics]:
  """Reads what `save` wrote. Raises `errors.UserError`."""
  try:
    with open(path, encoding="utf-8") as file:
      return {key: Statistics.from_json(value) for key, value in json.load(file).items()}
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise errors.UserError(f"{path} does not hold normalisation statistics ({error})") from error
