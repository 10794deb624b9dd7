"""What a source returns to ingest: an episode whose frames are not decoded yet."""

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
    task: the language instruction, "" when unknown. A list with one entry per frame [T] when the
      instruction changes within the episode.
    cameras: name -> function that takes a `video.Geometry` and yields (seconds, uint8 [H, W, 3])
      for each frame. The seconds increase. They are times on the episode's own clock, and frame t
      has the same time in all cameras. The function may raise `video.UnreadableError` at any frame;
      the whole episode is then discarded. It can be called more than once.
    arrays: "action" [T, A] and "state" [T, S] float32. Missing arrays have no key.
    notes: remarks (not errors). More may be added while the frames are read.
    group: episodes of one group show the same motion (in other scenes, from other cameras) and stay
      on one side of a split. "" = the episode is a group by itself.
    cuts: frames that are known to start a new shot.
    continuous: True when only `cuts` end a shot, as in a robot recording. False (films, videos of
      the internet) when further cuts are detected in the pictures. The same for all episodes of a
      source.
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
  """Hash of the names, sizes and modification times of files, without reading their content.

  It changes when the source changes. A file that is not there counts as missing: the episode that
  reads it is quarantined, not the whole source.
  """
  digest = xxhash.xxh64()
  for name in files:
    try:
      stat = os.stat(os.path.join(root, name))
    except FileNotFoundError:
      digest.update(os.fsencode(f"{name}\0missing\n"))
      continue
    digest.update(os.fsencode(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n"))
  return digest.hexdigest()
