"""Long video files as several episodes each, so that a unit of work is bounded.

A part is a stretch of time of a file. No window crosses from one part to the next. The parts of a
file are one group, and stay on one side of a split. Frames and times are those of the whole file.
"""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from como_jax import storage
from como_jax.data import episode, video
from como_jax.data.sources import video_folder
from como_jax.data.sources.protocol import Source

PLAN = "parts.json"
# A file with fewer bytes for each frame of a unit is not opened, and not divided.
_FRAME_BYTES = 256
_SLACK = 2.0  # seconds that the last frame may come before the end that the header declares


@dataclasses.dataclass(frozen=True)
class Part:
  """A stretch of a file.

  Attributes:
    episode: number of the file in its source.
    number: of the part, from 0.
    count: number of parts of the file.
    start: seconds.
    stop: seconds; None = the end of the file.
    end: seconds that the header declares for the whole file, 0 when it declares none.
    frames: about how many frames it has, 0 when unknown.
  """

  episode: int
  number: int = 0
  count: int = 1
  start: float = 0.0
  stop: float | None = None
  end: float = 0.0
  frames: int = 0


class Parts(Source):
  """The parts of the files of a source.

  Attributes:
    frames: about how many frames each part has, 0 when unknown.
  """

  def __init__(self, source: video_folder.VideoFolder, parts: Sequence[Part]):
    self._source, self._parts = source, tuple(parts)
    self.cameras, self.info, self.skipped = source.cameras, source.info, source.skipped
    self.frames = tuple(part.frames for part in parts)
    self.names = tuple(
      source.names[part.episode]
      + (f" part {part.number + 1} of {part.count}" if part.count > 1 else "")
      for part in parts
    )

  def __len__(self) -> int:
    return len(self._parts)

  def __getitem__(self, i: int) -> episode.RawEpisode:
    part = self._parts[i]
    raw = self._source[part.episode]
    if part.count == 1:
      return raw
    cameras = {name: functools.partial(_read, camera, part) for name, camera in raw.cameras.items()}
    return dataclasses.replace(
      raw, episode=self.names[i], cameras=cameras, group=raw.group or raw.episode
    )

  def fingerprint(self) -> str:
    """That of the whole files."""
    return self._source.fingerprint()


def _read(camera: Any, part: Part, geometry: video.Geometry) -> Iterator[tuple[float, np.ndarray]]:
  """Yields the frames of a part. Raises `UnreadableError` when the file ends before its header."""
  seconds = None
  stop = math.inf if part.stop is None else part.stop
  for seconds, image in camera(geometry, start=part.start, stop=stop):
    yield seconds, image
  if part.stop is None and part.end and (seconds or part.start) < part.end - _SLACK:
    raise video.UnreadableError(
      f"the file ends at {seconds or part.start:.3f} s, its header declares {part.end:.3f} s"
    )


def divide(source: Source, unit_frames: int, path: str) -> Source:
  """Divides the long files of a source; other sources than folders of videos stay as they are.

  Args:
    source: the source.
    unit_frames: largest number of frames of a part, about.
    path: file that keeps the parts. It is read when it is there: to open all large files takes
      time, and processes that share an ingest need the same parts.
  """
  if not isinstance(source, video_folder.VideoFolder):
    return source
  if storage.exists(path):
    return Parts(source, [Part(*values) for values in storage.read_json(path)])
  parts = [part for i in range(len(source)) for part in _of_file(source, i, unit_frames)]
  storage.write_bytes(path, json.dumps([dataclasses.astuple(part) for part in parts]).encode())
  return Parts(source, parts)


def _of_file(source: video_folder.VideoFolder, i: int, unit_frames: int) -> list[Part]:
  path = source.path(i)
  try:
    if os.path.getsize(path) < unit_frames * _FRAME_BYTES:
      return [Part(i)]
    info = video.probe(path)
  except (OSError, video.UnreadableError):  # reading it will say so
    return [Part(i)]
  frames = info.frames or round(info.duration * info.fps)
  count = math.ceil(frames / unit_frames)
  if count < 2 or not info.duration:
    return [Part(i, frames=frames)]
  starts = [info.duration * number / count for number in range(count)]
  return [
    Part(i, number, count, start, stop, info.duration, math.ceil(frames / count))
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], None], strict=True))
  ]


def group(frames: Sequence[int], largest_count: int, largest_frames: int) -> list[int]:
  """First episode of each shard: consecutive episodes within both bounds, at least one.

  Args:
    frames: of each episode, 0 = unknown.
    largest_count: number of episodes of a shard.
    largest_frames: number of frames of a shard; 0 = no bound.
  """
  firsts, total = [], 0
  for i, count in enumerate(frames):
    full = firsts and i - firsts[-1] >= largest_count
    if not firsts or full or (largest_frames and total and total + count > largest_frames):
      firsts.append(i)
      total = 0
    total += count
  return firsts
