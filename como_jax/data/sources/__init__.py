"""Where episodes come from: one file per on-disk format, one line per format in the table."""

import os
from typing import Any, Protocol

from como_jax import errors
from como_jax.data import episode, video
from como_jax.data.sources import lerobot, shards, video_folder

Unreadable = video.Unreadable


class Source(Protocol):
  """Random access to the episodes of a data set; small and picklable (it travels to worker processes).

  `names[i]` labels an episode in messages; `cameras` are the names every episode is expected to have; `info` holds
  "format", "description" and, when known, "action_names" and "state_names".
  """

  names: tuple[str, ...]
  cameras: tuple[str, ...]
  info: dict[str, Any]

  def __len__(self) -> int: ...

  def __getitem__(self, i: int) -> episode.RawEpisode:
    """Raises `Unreadable(reason)` for a bad file."""

  def fingerprint(self) -> str:
    """Changes when the files do."""


SOURCES = {
  "lerobot": lerobot.LeRobot,
  "video_folder": video_folder.VideoFolder,
  "shards": shards.Shards,
}


def detect(path: str) -> str:
  """Name of the format in a folder.

  Raises:
    errors.UserError: naming what was expected.
  """
  if not os.path.isdir(path):
    what = "is a file" if os.path.exists(path) else "does not exist"
    raise errors.UserError(
      f"data path {path} {what}: expected a folder (LeRobot data set, video files or como_jax shards)"
    )
  if os.path.isfile(os.path.join(path, shards.MANIFEST)):
    return "shards"
  if os.path.isfile(os.path.join(path, "meta", "info.json")):
    return "lerobot"
  if video_folder.find(path, limit=1):
    return "video_folder"
  raise errors.UserError(
    f"data path {path} holds none of: meta/info.json (LeRobot), {shards.MANIFEST} (como_jax shards), "
    f"video files ({' '.join(video_folder.EXTENSIONS)})"
  )


def open_source(path: str, *, format: str = "auto") -> Source:
  """Opens a folder with the reader of its format ("auto": `detect`)."""
  format = detect(path) if format == "auto" else format
  if format not in SOURCES:
    raise errors.UserError(f"unknown data format {format!r}: {errors.nearest(format, [*SOURCES, 'auto'])}")
  return SOURCES[format](path)
