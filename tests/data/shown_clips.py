"""What the clips of a folder of shards show, and the bytes of a folder."""

import dataclasses
import pathlib

import numpy as np

from como_jax.data import reader, shards


def contents(path, *, ignore=()):
  """The bytes of every file that matters."""
  return {
    file.name: file.read_bytes()
    for file in sorted(pathlib.Path(path).iterdir())
    if file.name != ".lock" and file.name not in ignore
  }


@dataclasses.dataclass(frozen=True)
class Stored:
  """A clip as the table and its shard have it."""

  episode: str
  start: int
  task: str
  seconds: np.ndarray
  images: dict[str, np.ndarray]
  arrays: dict[str, np.ndarray]

  def __len__(self):
    return len(self.seconds)


def clips(path):
  table = shards.read_table(path)
  found = shards.segments(table)
  stored, read = [], reader.SegmentReader(path, found)
  for s in range(len(found)):
    for row in found.rows(s):
      begin = found.first_frame(s, row)
      frames = range(begin, begin + int(table.length[row]))
      stored.append(
        Stored(
          table.episodes[table.episode[row]],
          int(table.start[row]),
          table.tasks[table.task[row]],
          read.times(s).seconds_at(np.array(frames)),
          {camera: read.images(s, camera, frames) for camera in table.cameras},
          {
            name: read.read_array(s, name, frames[0], frames[-1] + 1)
            for name in ("action", "state")
          },
        )
      )
  return stored
