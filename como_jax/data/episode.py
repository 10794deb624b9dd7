"""What a source hands to ingest: an episode whose frames are still to be decoded."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import xxhash

from como_jax.data import video

Camera = Callable[[video.Geometry], Iterator[tuple[float, np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class RawEpisode:
  """One continuous recording.

  Attributes:
    episode: id, unique in its data set.
    task: the language instruction, "" when unknown; or one for each frame [T] where it changes.
    cameras: name -> function of a `video.Geometry` giving (seconds, uint8 [H, W, 3]) frame by
      frame. Seconds increase, and are those of the episode's own clock: frame by frame the same for
      all its cameras. It may raise `video.Unreadable` at any frame, and the whole episode is then
      discarded. It can be called more than once.
    arrays: "action" [T, A] and "state" [T, S] float32, as far as there are any.
    notes: remarks (not errors), possibly added while the frames are read.
    group: episodes of one group show the same motion (in other scenes, from other cameras) and stay
      on one side of a split; "" = alone.
    cuts: frames before which a shot is known to end.
    continuous: nothing but those cuts ends a shot: a recording of a robot, say. Otherwise cuts are
      looked for in the pictures.
  """

  episode: str
  task: str | list[str]
  cameras: dict[str, Camera]
  arrays: dict[str, np.ndarray]
  notes: list[str] = dataclasses.field(default_factory=list)
  group: str = ""
  cuts: tuple[int, ...] = ()
  continuous: bool = True


def fingerprint(root: str, files: Sequence[str]) -> str:
  """Hash of names, sizes and modification times: changes when the source does, without reading
  it.
  """
  digest = xxhash.xxh64()
  for name in files:
    stat = os.stat(os.path.join(root, name))
    digest.update(os.fsencode(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n"))
  return digest.hexdigest()
