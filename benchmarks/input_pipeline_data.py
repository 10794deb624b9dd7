"""The frames of input_pipeline.py: a synthetic data set, samples, and torch's loader of the same.

`draw` lists the samples of the training order, so that all rows decode the same frames.
"""

import dataclasses
import itertools
import json
import os
import pathlib

import numpy as np

from como_jax.data import episode, stream, transforms, video
from como_jax.data.batching import Batching
from como_jax.data.pipeline import OpenedWindows, draw_jitter
from como_jax.data.read_options import ReadOptions


@dataclasses.dataclass(frozen=True)
class Synthetic:
  """A source of drifting textures with some noise; a frame has as many bytes as a camera's."""

  count: int
  size: int
  length: int = 128
  cameras: tuple[str, ...] = ("front", "wrist")
  skipped: tuple = ()

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the episodes."""
    return tuple(f"episode-{i:04d}" for i in range(self.count))

  @property
  def info(self) -> dict:
    """Description of the source."""
    return {"format": "synthetic", "description": f"{self.count} synthetic episodes"}

  def __len__(self) -> int:
    return self.count

  def fingerprint(self) -> str:
    """Identifies the source."""
    return json.dumps(dataclasses.asdict(self))

  def __getitem__(self, i: int) -> episode.RawEpisode:
    streams = {
      name: (lambda geometry, seed=(i, number): self._frames(seed))
      for number, name in enumerate(self.cameras)
    }
    return episode.RawEpisode(
      self.names[i], f"task {i % 4}", streams, {"action": np.zeros((self.length, 7), np.float32)}
    )

  def _frames(self, seed: tuple[int, int]):
    data, side = np.random.default_rng(seed), self.size + 64
    layers = ((4, 0.5), (16, 0.3), (64, 0.2))
    texture = sum(
      video.resize(data.integers(0, 256, (n, n, 3), np.uint8), side, side) * weight
      for n, weight in layers
    )
    texture, noise = texture.astype(np.int16), data.normal(0, 4, (side, side, 3)).astype(np.int16)
    for t in range(self.length):
      y, x = int(32 + 30 * np.sin(t / 9 + seed[0])), int(32 + 30 * np.cos(t / 13))
      up, left = 7 * t % 64, 11 * t % 64
      moved = (
        texture[y : y + self.size, x : x + self.size]
        + noise[up : up + self.size, left : left + self.size]
      )
      yield t / 30, np.clip(moved, 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Sample:
  """A sample: frame indices of a segment, in the order in which the pipeline decodes them."""

  segment: int
  camera: str
  frame_indices: tuple[int, ...]

  def blobs(self, opened: OpenedWindows) -> list[bytes]:
    """Reads the JPEGs from the shards."""
    blobs = []
    for index in self.frame_indices:
      row, frame = opened.reader.segments.locate(self.segment, index)
      shard, clip = opened.reader.segments.clip_location(row)
      blobs.append(opened.reader.shards[shard].blobs(clip, self.camera, [frame])[frame])
    return blobs


@dataclasses.dataclass
class _Describe:
  """Replaces the loading of the pipeline; returns a description of the sample."""

  opened: OpenedWindows
  jitter: bool

  def __call__(self, place: tuple[int, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
    window = self.opened.locate(place[1])
    jittered = draw_jitter(window, rng) if self.jitter else []
    camera = self.opened.cameras.index(window.camera)
    return {"place": np.array([window.segment, camera, *window.frames, *jittered])}


def draw(config, opened: OpenedWindows, *, jitter: bool, count: int) -> list[Sample]:
  """Lists the first samples of the training order."""
  with stream.infinite_batches(
    [np.array([len(opened.windows)])],
    [1.0],
    _Describe(opened, jitter),
    Batching(count, config.seed),
    ReadOptions(threads=0, prefetch=0),
  ) as batches:
    return [
      Sample(int(segment), opened.cameras[camera], tuple(map(int, frame_indices)))
      for segment, camera, *frame_indices in next(batches)["place"]
    ]


def write_files(samples: list[Sample], opened: OpenedWindows, folder: str) -> list[list[str]]:
  """Writes each frame of the samples as a JPEG file; returns the paths of each sample."""
  sample_paths = []
  for sample in samples:
    paths = [
      os.path.join(folder, str(sample.segment), sample.camera, f"{index}.jpg")
      for index in sample.frame_indices
    ]
    for path, blob in zip(paths, sample.blobs(opened), strict=True):
      if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        pathlib.Path(path).write_bytes(blob)
    sample_paths.append(paths)
  return sample_paths


@dataclasses.dataclass
class Pairs:
  """A usual torch Dataset: frames and jittered frames of a sample, with the same augmentation."""

  samples: list[list[str]]
  frames: int
  augment: tuple

  def __len__(self) -> int:
    return len(self.samples)

  def __getitem__(self, i: int) -> dict:
    import torch

    images = np.stack(
      [video.decode_jpeg(pathlib.Path(path).read_bytes()) for path in self.samples[i]]
    )
    sample = {"frames": images[: self.frames]} | (
      {"jittered": images[self.frames :]} if len(images) > self.frames else {}
    )
    sample = transforms.apply(self.augment, sample, np.random.default_rng(i))
    return {name: torch.from_numpy(value) for name, value in sample.items()}

  def loader(self, batch_size: int, workers: int):
    """Returns endless batches in the order of the samples, which are already shuffled."""
    import torch

    torch.set_num_threads(1)
    ahead = {"prefetch_factor": 4, "multiprocessing_context": "spawn"} if workers else {}
    return iter(
      torch.utils.data.DataLoader(
        self, batch_size, sampler=Endless(len(self)), num_workers=workers, **ahead
      )
    )


@dataclasses.dataclass
class Endless:
  """An endless sampler: 0 .. n-1, repeated."""

  count: int

  def __iter__(self):
    return itertools.cycle(range(self.count))
