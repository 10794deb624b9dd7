"""Where episodes come from: one file per on-disk format, one line per format in the table."""

import os
from typing import Any, Protocol

from como_jax import errors
from como_jax.data import episode, video
from como_jax.data import shards as shard_tables
from como_jax.data.sources import lerobot, shards, video_folder
from como_jax.data.sources.options import SourceOptions

Unreadable = video.Unreadable


class Source(Protocol):
  """Random access to the episodes of a data set; small and picklable (it travels to worker
  processes).

  `names[i]` labels an episode in messages; `cameras` are the names every episode is expected to
  have; `info` holds "format", "description" and, when known, "path", "action_names" and
  "state_names"; `skipped` lists {"name", "reason"} of files that were seen and are not used.
  """

  names: tuple[str, ...]
  cameras: tuple[str, ...]
  info: dict[str, Any]
  skipped: list[dict[str, str]]

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
    errors.UserError: naming what was expected; a folder that holds several data sets, or is a part
      of one, names them.
  """
  if not os.path.isdir(path):
    what = "is a file" if os.path.exists(path) else "does not exist"
    raise errors.UserError(
      f"data path {path} {what}: expected a folder (LeRobot data set, video files or como_jax "
      "shards)"
    )
  if os.path.isfile(os.path.join(path, shard_tables.MANIFEST)):
    return "shards"
  if os.path.isfile(os.path.join(path, "meta", "info.json")):
    return "lerobot"
  whole = video_folder.enclosing(path)
  if whole:
    raise errors.UserError(
      f"data path {path} is a part of the LeRobot data set {whole}: give that folder"
    )
  nested = video_folder.find_nested(path)
  if nested:
    listed = ", ".join(os.path.join(path, name) for name, _ in nested[:4]) + (
      ", ..." if len(nested) > 4 else ""
    )
    raise errors.UserError(
      f"data path {path} holds {len(nested)} data sets of its own ({listed}): give one of them, "
      "or each as an entry of config.data.mixture; --config.source.format=video_folder takes the "
      "loose videos beside them"
    )
  if video_folder.find(path, limit=1):
    return "video_folder"
  raise errors.UserError(
    f"data path {path} holds none of: meta/info.json (LeRobot), {shard_tables.MANIFEST} (como_jax "
    f"shards), video files ({' '.join(video_folder.EXTENSIONS)})"
  )


def open_source(path: str, *, format: str = "auto", options: SourceOptions | None = None) -> Source:
  """Opens a folder with the reader of its format ("auto": `detect`)."""
  format = detect(path) if format == "auto" else format
  if format not in SOURCES:
    raise errors.UserError(
      f"unknown data format {format!r}: {errors.nearest(format, [*SOURCES, 'auto'])}"
    )
  source = SOURCES[format](path, options or SourceOptions())
  source.info["path"] = os.path.abspath(path)
  return source
