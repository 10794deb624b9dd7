"""Paths of data, and raw data turned into shards once."""

import dataclasses
import os
import pathlib
import re
from typing import Any

from como_jax import errors, storage
from como_jax.data import ingest, ingest_settings
from como_jax.data import sources as source_formats
from como_jax.data.sources import markers, video_folder
from como_jax.settings import paths

BUNDLED = pathlib.Path(__file__).parent.parent / "assets" / "metaworld_mini"


def resolve(path: str, *, name: str = "data path") -> str:
  """The folder a data path means: "bundled" is the data set that ships with the package.

  Shards may be in a store; their address is returned.

  Args:
    path: as given.
    name: of the key that holds it, for messages.

  Raises:
    errors.UserError: it does not exist, naming the nearest folder beside it; or an address is not
      of shards.
    errors.TransientError: a store does not answer.
  """
  paths.checked(name, path, key="data.path")
  if storage.is_remote(path):
    try:
      source_formats.detect(path)
    except errors.UserError as error:
      raise errors.UserError(f"{name}: {error}") from error
    return path.rstrip("/")
  if path == "bundled":
    return str(BUNDLED)
  if not path or not os.path.exists(path):
    folder = os.path.dirname(path.rstrip("/")) or "."
    there = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    near = [
      os.path.join(folder, one) if os.path.dirname(path) else one
      for one in there
      if not one.startswith(".")
    ]
    near = ["bundled", *filter(_holds_data, near)]
    hub = re.fullmatch(r"[\w.-]+/[\w.-]+", path) and not os.path.isdir(folder)
    advice = (
      "data sets of a hub are not downloaded: give a local folder"
      if hub
      else errors.nearest(path, near)
    )
    raise errors.UserError(f"{name} {path!r} does not exist: {advice}")
  return path


def _holds_data(folder: str) -> bool:
  """Whether a folder looks like data at its first level: a format's marker, or videos."""
  if not os.path.isdir(folder) or not os.access(folder, os.R_OK | os.X_OK):
    return False
  return bool(markers.found(folder)) or any(
    one.lower().endswith(video_folder.EXTENSIONS) for one in os.listdir(folder)
  )


def cache_dir() -> str:
  """Where converted sources are kept: $COMO_JAX_CACHE/shards, else ~/.cache/como_jax/shards."""
  root = os.environ.get("COMO_JAX_CACHE") or os.path.join(pathlib.Path.home(), ".cache", "como_jax")
  return os.path.join(root, "shards")


def to_shards(path: str, section) -> str:
  """A folder of shards for a data path; raw data are converted.

  Args:
    path: shards, or data of any format.
    section: `data` of a config, says how raw data are read: `image_size` (px; 0 = as the source),
      `resize`, and as far as it has them `source`, `measure` and `filters`; and where they are kept
      converted: `cache` ("" = `cache_dir`).

  Raises:
    errors.UserError: the data cannot be read.
  """
  further = (
    {"measure": section["measure"], "filters": dict(section["filters"])}
    if "filters" in section
    else {}
  )
  options = source_options(section["source"]) if "source" in section else None
  storage = ingest_settings.StorageOptions(section["image_size"], section["resize"], **further)
  cache = section["cache"] or cache_dir()
  return ingest.ensure_shards(path, storage, cache_dir=cache, options=options)


def source_options(section) -> source_formats.SourceOptions:
  """The options of a config's `source` section. Raises `errors.UserError`."""
  settings: dict[str, Any] = {
    key: tuple(value) if isinstance(value, (list, tuple)) else value
    for key, value in section.items()
  }
  fields = [field.name for field in dataclasses.fields(source_formats.SourceOptions)]
  return source_formats.SourceOptions(
    **{key: value for key, value in settings.items() if key in fields}
  )
