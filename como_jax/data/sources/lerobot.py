"""LeRobot data sets, v2.0, v2.1 and v3.0, with videos or with images inside the parquet files.

Read with pyarrow and PyAV only. Path templates come from meta/info.json, never from here.
Layout: huggingface/lerobot, docs/source/lerobot-dataset-v3.mdx and src/lerobot/datasets/.
"""

import functools
import glob
import json
import os
import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from como_jax import errors
from como_jax.data import episode, video

_ARRAYS = {"action": "action", "observation.state": "state", "timestamp": "timestamp"}


def camera_name(feature: str) -> str:
  """ "observation.images.top" -> "top"; "observation.image" -> "image"."""
  return re.sub(r"^observation\.(images\.)?", "", feature)


class LeRobot:
  """One episode per LeRobot episode, every camera, with action, state and timestamp when the data set has them."""

  def __init__(self, path: str):
    self._root = path
    info = self._info = _read_json(os.path.join(path, "meta", "info.json"))
    version = re.match(r"v?(\d+)\.", str(info.get("codebase_version", "")))
    if not version or version.group(1) not in ("2", "3"):
      raise errors.UserError(
        f"{path}: LeRobot codebase_version {info.get('codebase_version')!r} is not supported, "
        "expected v2.0, v2.1 or v3.0"
      )
    for key in ("fps", "features", "data_path"):
      if key not in info:
        raise errors.UserError(f"{path}/meta/info.json lacks the key {key!r}")
    self._v3 = version.group(1) == "3"
    self._features = {
      camera_name(key): key for key, feature in info["features"].items() if feature.get("dtype") in ("video", "image")
    }
    self.cameras = tuple(self._features)
    if not self.cameras:
      raise errors.UserError(
        f"{path}: the LeRobot data set has no camera (no feature of dtype video or image in meta/info.json)"
      )
    self._tasks = self._read_tasks()
    self._episodes = self._read_episodes()
    if not self._episodes:
      raise errors.UserError(f"{path}: the LeRobot data set lists no episode")
    self.names = tuple(f"episode_{row['episode_index']:06d}" for row in self._episodes)
    self.info = {
      "format": "lerobot",
      "action_names": self._names("action"),
      "state_names": self._names("observation.state"),
      "description": f"LeRobot {info['codebase_version']} data set, robot {info.get('robot_type') or 'unknown'}",
    }

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, i: int) -> episode.RawEpisode:
    row = self._episodes[i]
    number, fps, notes = row["episode_index"], float(self._info["fps"]), []
    path = self._data_path(row)
    columns = _columns(path, number, [*_ARRAYS, "task_index", "frame_index"])
    length = len(columns["episode_index"])
    if not length:
      raise video.Unreadable(f"{os.path.relpath(path, self._root)} has no row of episode {number}")
    if row.get("length") and abs(int(row["length"]) - length) > 0:
      raise video.Unreadable(f"{row['length']} frames declared, {length} rows in {os.path.relpath(path, self._root)}")
    arrays = {ours: columns[theirs] for theirs, ours in _ARRAYS.items() if theirs in columns}
    arrays = {
      name: array.reshape(length, -1).astype(np.float32)
      if name != "timestamp"
      else array.reshape(-1).astype(np.float64)
      for name, array in arrays.items()
    }
    times = arrays.setdefault("timestamp", np.arange(length) / fps)
    cameras = {}
    for name, feature in self._features.items():
      if self._info["features"][feature]["dtype"] == "video":
        file, begin = self._video_path(row, feature)
        cameras[name] = functools.partial(video.read_at, file, begin + times, fps=fps, notes=notes)
      else:
        cameras[name] = functools.partial(self._images, path, number, feature)
    task = self._task(row, columns)
    # Our collector's "motion" column: the same motion filmed in several scenes must not be trained on and probed with.
    group = f"{task}/{row['motion']}" if row.get("motion") is not None else ""
    return episode.RawEpisode(self.names[i], fps, task, cameras, arrays, notes, group)

  def fingerprint(self) -> str:
    files = [
      os.path.relpath(file, self._root)
      for part in ("meta", "data", "videos", "images")
      for file in glob.glob(os.path.join(glob.escape(self._root), part, "**"), recursive=True)
      if os.path.isfile(file)
    ]
    return episode.fingerprint(self._root, sorted(files))

  def _names(self, feature: str) -> list[str] | None:
    names = self._info["features"].get(feature, {}).get("names")
    if isinstance(names, dict):  # {"motors": [...]}
      names = [name for group in names.values() for name in (group if isinstance(group, list) else [group])]
    return [str(name) for name in names] if isinstance(names, list) else None

  def _read_tasks(self) -> dict[int, str]:
    table, lines = (os.path.join(self._root, "meta", name) for name in ("tasks.parquet", "tasks.jsonl"))
    if os.path.isfile(table):
      columns = _read_table(table).to_pydict()
      texts = (
        columns.get("task")
        or columns.get("__index_level_0__")
        or next((values for name, values in columns.items() if name != "task_index"), [])
      )
      return {int(index): str(text) for index, text in zip(columns["task_index"], texts, strict=True)}
    if os.path.isfile(lines):
      return {int(row["task_index"]): str(row["task"]) for row in _read_jsonl(lines)}
    return {}

  def _read_episodes(self) -> list[dict]:
    meta = os.path.join(self._root, "meta")
    if not self._v3:
      rows = _read_jsonl(os.path.join(meta, "episodes.jsonl"))
    else:
      files = sorted(glob.glob(os.path.join(glob.escape(meta), "episodes", "**", "*.parquet"), recursive=True))
      if not files:
        raise errors.UserError(f"{meta}/episodes holds no parquet file: the LeRobot data set is incomplete")
      rows = []
      for file in files:
        table = _read_table(file)
        keep = [name for name in table.column_names if not name.startswith("stats/")]
        rows.extend(table.select(keep).to_pylist())
    return sorted(rows, key=lambda row: row["episode_index"])

  def _task(self, row: dict, columns: dict[str, np.ndarray]) -> str:
    if "task_index" in columns and int(columns["task_index"][0]) in self._tasks:
      return self._tasks[int(columns["task_index"][0])]
    tasks = row.get("tasks") or [""]
    return str(tasks[0] if isinstance(tasks, (list, tuple)) else tasks)

  def _format(self, template: str, row: dict, *, prefix: str, feature: str = "") -> str:
    number = row["episode_index"]
    values = {
      "episode_index": number,
      "episode_chunk": number // int(self._info.get("chunks_size", 1000)),
      "video_key": feature,
      "chunk_index": row.get(f"{prefix}/chunk_index"),
      "file_index": row.get(f"{prefix}/file_index"),
    }
    try:
      return os.path.join(self._root, template.format(**values))
    except (KeyError, TypeError, ValueError, IndexError) as error:
      raise video.Unreadable(
        f"the path template {template!r} cannot be filled for episode {number} ({error})"
      ) from error

  def _data_path(self, row: dict) -> str:
    return self._format(self._info["data_path"], row, prefix="data")

  def _video_path(self, row: dict, feature: str) -> tuple[str, float]:
    """File and the second at which the episode begins in it."""
    if not self._info.get("video_path"):
      raise video.Unreadable(f"meta/info.json has no video_path for the camera {feature!r}")
    prefix = f"videos/{feature}"
    path = self._format(self._info["video_path"], row, prefix=prefix, feature=feature)
    return path, float(row.get(f"{prefix}/from_timestamp") or 0.0)

  def _images(self, path: str, number: int, feature: str, geometry: video.Geometry) -> Iterator[np.ndarray]:
    """Frames of an image feature, streamed from the parquet file."""
    for batch in _batches(path, number, ["episode_index", feature], batch_size=32):
      for cell in batch.column(feature).to_pylist():
        data, file = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
        try:
          if data is None:
            with open(os.path.join(self._root, file), "rb") as stream:
              data = stream.read()
          image = video.decode_image(data, geometry)
        except (OSError, ValueError, TypeError, SyntaxError) as error:
          raise video.Unreadable(
            f"damaged image of camera {feature!r} in {os.path.relpath(path, self._root)} ({error})"
          ) from error
        yield image


def _read_json(path: str) -> dict:
  try:
    with open(path, encoding="utf-8") as file:
      return json.load(file)
  except (OSError, ValueError) as error:
    raise errors.UserError(f"{path} is not readable JSON ({error})") from error


def _read_jsonl(path: str) -> list[dict]:
  try:
    with open(path, encoding="utf-8") as file:
      return [json.loads(line) for line in file if line.strip()]
  except (OSError, ValueError) as error:
    raise errors.UserError(f"{path} is not readable as JSON lines ({error})") from error


def _parquet_reason(path: str, error: Exception) -> str:
  """Why a parquet file cannot be read; the file by its place in the data set."""
  name = "/".join(path.split(os.sep)[-3:])
  if not os.path.isfile(path):
    return f"{name} is missing"
  try:
    with open(path, "rb") as file:
      file.seek(-4, os.SEEK_END)
      finished = file.read() == b"PAR1"
  except OSError:
    finished = False
  if not finished:
    return (
      f"{name} has no parquet footer: the recording was not finished (LeRobot's finalize() was not called) "
      "or the file is cut"
    )
  return f"{name} is not readable parquet ({str(error).splitlines()[0]})"


def _read_table(path: str) -> pa.Table:
  try:
    return pq.ParquetFile(path).read()
  except (OSError, pa.ArrowException) as error:
    raise errors.UserError(f"{path}: {_parquet_reason(path, error)}") from error


def _batches(path: str, number: int, names: list[str], *, batch_size: int) -> Iterator[pa.RecordBatch]:
  """The rows of one episode, in order, skipping row groups whose statistics exclude it."""
  try:
    file = pq.ParquetFile(path)
    names = [name for name in names if name in file.schema_arrow.names]
    column = file.schema_arrow.names.index("episode_index") if "episode_index" in names else None
    if column is not None:  # nested columns shift the physical position
      column = next(
        i for i in range(file.metadata.num_columns) if file.metadata.schema.column(i).path == "episode_index"
      )
    groups = []
    for group in range(file.metadata.num_row_groups):
      stats = file.metadata.row_group(group).column(column).statistics if column is not None else None
      if stats is None or not stats.has_min_max or stats.min <= number <= stats.max:
        groups.append(group)
    for batch in file.iter_batches(batch_size=batch_size, row_groups=groups, columns=names):
      if column is not None:
        batch = batch.filter(pc.equal(batch.column("episode_index"), number))
      if len(batch):
        yield batch
  except (OSError, pa.ArrowException) as error:
    raise video.Unreadable(_parquet_reason(path, error)) from error


def _columns(path: str, number: int, names: list[str]) -> dict[str, np.ndarray]:
  """Numeric columns of one episode as arrays [T, ...]."""
  batches = list(_batches(path, number, [*names, "episode_index"], batch_size=4096))
  if not batches:
    return {"episode_index": np.zeros(0, np.int64)}
  table = pa.Table.from_batches(batches)
  columns = {}
  for name in table.column_names:
    values = table.column(name).to_pylist()
    try:
      columns[name] = np.asarray(values, np.int64 if name.endswith("_index") else np.float64)
    except (TypeError, ValueError) as error:
      raise video.Unreadable(
        f"column {name!r} of {os.path.basename(path)} is not a rectangular array of numbers ({error})"
      ) from error
  columns.setdefault("episode_index", np.full(len(table), number))
  return columns
