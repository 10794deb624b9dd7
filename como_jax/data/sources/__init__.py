"""Sources of episodes: one module per format on disk, and one line per format in `SOURCES`.

`markers.MARKERS` says by which files a folder's format is known.
"""

import os
from collections.abc import Callable

from como_jax import errors, storage
from como_jax.data import video
from como_jax.data.sources import lerobot, markers, shards, tfds, video_folder
from como_jax.data.sources.options import SourceOptions
from como_jax.data.sources.protocol import Source

__all__ = ["SOURCES", "Source", "SourceOptions", "UnreadableError", "detect", "open_source"]

UnreadableError = video.UnreadableError

SOURCES: dict[str, Callable[[str, SourceOptions], Source]] = {
  "lerobot": lerobot.LeRobot,
  "video_folder": video_folder.VideoFolder,
  "shards": shards.Shards,
  "tfds": tfds.Tfds,
}


def detect(path: str) -> str:
  """Detects the format of a folder: a key of `SOURCES`.

  Raises:
    errors.UserError: the folder has no known format, holds several data sets, or is a part of one.
      The message names what was expected, or these data sets. Or raw data are in a store.
    errors.TransientError: a store does not answer.
  """
  if storage.is_remote(path):
    return _detect_in_store(path)
  if not os.path.isdir(path):
    problem = "is a file" if os.path.exists(path) else "does not exist"
    raise errors.UserError(
      f"data path {path} {problem}: expected a folder "
      f"({', '.join(marker.title for marker in markers.MARKERS.values())} or video files)"
    )
  marked = markers.found(path)
  if marked:
    return marked[0]
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
    f"data path {path} holds none of: {', '.join(map(str, markers.MARKERS.values()))}, "
    f"video files ({' '.join(video_folder.EXTENSIONS)})"
  )


def _detect_in_store(path: str) -> str:
  """The one format that is read from a store, "shards". Raises as `detect`."""
  if storage.exists(storage.join(path, *markers.MARKERS["shards"].files)):
    return "shards"
  names = storage.listdir(path)
  if not names:
    raise errors.UserError(f"data path {path} does not exist")
  raise errors.UserError(
    f"data path {path} holds no finished folder of como_jax shards (but {', '.join(names[:3])}"
    f"{', ...' if len(names) > 3 else ''}), and raw data are not read from a store: download them "
    "and ingest them first (configs/ingest.py)"
  )


def open_source(path: str, *, format: str = "auto", options: SourceOptions | None = None) -> Source:
  """Opens a folder of data.

  Args:
    path: the folder.
    format: a key of `SOURCES`, or "auto" to `detect` it.
    options: how to read the source.

  Raises:
    errors.UserError: the format is unknown, or the folder is not of this format.
  """
  format = detect(path) if format == "auto" else format
  if format not in SOURCES:
    raise errors.UserError(
      f"unknown data format {format!r}: {errors.nearest(format, [*SOURCES, 'auto'])}"
    )
  source = SOURCES[format](path, options or SourceOptions())
  source.info["path"] = os.path.abspath(path)
  return source
