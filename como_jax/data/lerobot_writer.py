"""Writes LeRobot v3.0 data sets with pyarrow and PyAV only: H.264 video with exact timestamps.

Layout (docs/source/lerobot-dataset-v3.mdx of huggingface/lerobot), with many episodes per file:
  meta/info.json  meta/stats.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
  data/chunk-000/file-000.parquet                      one row per frame
  videos/observation.images.<camera>/chunk-000/file-000.mp4
Frame t of an episode is at `from_timestamp + t / fps` in its file. Every episode starts with a key
frame.
"""

import fractions
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import av
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from como_jax import errors
from como_jax.observations import IMAGE

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FILES_A_CHUNK = 1000


class Writer:
  """Writes one data set to a temporary folder, which `finalize` renames to `path`.

  Use it as a context manager to remove the unfinished folder after an exception.
  """

  def __init__(
    self,
    path: str | pathlib.Path,
    fps: float,
    *,
    cameras: Mapping[str, tuple[int, int]],
    state_names: Sequence[str],
    action_names: Sequence[str],
    robot_type: str,
    outcome: bool = False,
    crf: int = 23,
    gop: int = 4,
    video_megabytes: float = 200,
  ):
    """Makes the temporary folder.

    Args:
      path: folder to make; must not exist.
      fps: stored frames per second.
      cameras: camera name -> (height, width), both even.
      state_names: names of the S state dimensions; () = no column observation.state.
      action_names: names of the A action dimensions; () = no column action (video without actions).
      robot_type: stored in info.json.
      outcome: whether to write the columns next.done and next.success.
      crf: H.264 quality (0 lossless .. 51); 23 is the codec's default.
      gop: number of frames from key frame to key frame; small values make random access fast.
      video_megabytes: a new video file is started when the file is larger than this.

    Raises:
      UserError: path exists, frames cannot be encoded (odd size), or a number is out of range.
    """
    self.path = pathlib.Path(path)
    if self.path.exists():
      raise errors.UserError(
        f"{self.path} exists already: choose another path or delete it (nothing is overwritten)"
      )
    for name, (height, width) in cameras.items():
      if height % 2 or width % 2 or min(height, width) < 16:
        raise errors.UserError(
          f"camera {name!r} is {height}x{width}: H.264 needs even sizes of at least 16 pixels"
        )
    if not fps > 0:
      raise errors.UserError(f"fps = {fps}: expected a positive number of frames a second")
    if gop < 1 or not 0 <= crf <= 51:
      raise errors.UserError(f"gop = {gop}, crf = {crf}: expected gop >= 1 and 0 <= crf <= 51")
    self._fps = fractions.Fraction(fps).limit_denominator(1001)
    self._cameras = dict(cameras)
    self._state_names, self._action_names = list(state_names), list(action_names)
    self._robot_type, self._outcome = robot_type, outcome
    self._tasks: dict[str, int] = {}
    self._episodes: list[dict[str, Any]] = []
    self._statistics: list[dict[str, dict[str, np.ndarray]]] = []
    self._frames = 0
    self._part = self.path.with_name(f".{self.path.name}.part")
    shutil.rmtree(self._part, ignore_errors=True)
    self._part.mkdir(parents=True)
    self._videos = {
      name: _Video(
        self._part, IMAGE + name, self._fps, size, crf=crf, gop=gop, megabytes=video_megabytes
      )
      for name, size in self._cameras.items()
    }
    self._schema = self._table_schema()
    table = self._part / DATA_PATH.format(chunk_index=0, file_index=0)
    table.parent.mkdir(parents=True)
    self._table = parquet.ParquetWriter(table, self._schema, compression="zstd")

  def __enter__(self) -> "Writer":
    return self

  def __exit__(self, kind, value, traceback) -> None:
    if kind is not None:
      self.abandon()

  def add_episode(
    self,
    task: str | Sequence[str],
    frames: Mapping[str, np.ndarray],
    *,
    state: np.ndarray | None = None,
    action: np.ndarray | None = None,
    success: np.ndarray | None = None,
    metadata: Mapping[str, Any] | None = None,
  ) -> int:
    """Appends one episode.

    Args:
      task: language instruction, or one per frame [T].
      frames: camera -> uint8 [T, H, W, 3].
      state: float [T, S], at the time of the frame; None without state names.
      action: float [T, A], applied from frame t to frame t + 1; None without action names.
      success: bool [T], required with `outcome`.
      metadata: numbers and strings for other columns of the episodes table; the same keys for every
        episode.

    Returns:
      The episode's index.

    Raises:
      UserError: an array has a wrong shape or type. Nothing of the episode has been written.
    """
    index = len(self._episodes)
    length = self._check(
      index, task, frames, state=state, action=action, success=success, metadata=metadata
    )
    tasks = [task] * length if isinstance(task, str) else list(task)
    task_index = [self._tasks.setdefault(text, len(self._tasks)) for text in tasks]
    counter = np.arange(length)
    vectors = {
      "observation.state": (state, self._state_names),
      "action": (action, self._action_names),
    }
    columns = {
      name: np.asarray(value, np.float32) for name, (value, names) in vectors.items() if names
    }
    columns |= {
      "timestamp": (counter / float(self._fps)).astype(np.float32),
      "frame_index": counter,
      "episode_index": np.full(length, index),
      "index": counter + self._frames,
      "task_index": np.array(task_index),
    }
    if self._outcome:
      columns["next.done"] = counter == length - 1
      columns["next.success"] = np.asarray(success, bool)
    self._table.write_table(self._as_table(columns))
    statistics = {name: _statistics(value) for name, value in columns.items()}
    row = {
      "episode_index": index,
      "tasks": list(dict.fromkeys(tasks)),
      "length": length,
      "data/chunk_index": 0,
      "data/file_index": 0,
      "dataset_from_index": self._frames,
      "dataset_to_index": self._frames + length,
      "meta/episodes/chunk_index": 0,
      "meta/episodes/file_index": 0,
    }
    for name, video in self._videos.items():
      row |= {
        f"videos/{IMAGE}{name}/{key}": value for key, value in video.add(frames[name]).items()
      }
      statistics[IMAGE + name] = _image_statistics(frames[name])
    for name, values in statistics.items():
      row |= {f"stats/{name}/{key}": value.tolist() for key, value in values.items()}
    self._episodes.append(row | dict(metadata or {}))
    self._statistics.append(statistics)
    self._frames += length
    return index

  def finalize(self, *, notes: Mapping[str, Any] | None = None) -> pathlib.Path:
    """Closes the files, writes meta/ and renames the folder into place. Returns the path.

    Args:
      notes: how the data set was made, for meta/collection.json (other programs ignore this file).

    Raises:
      UserError: no episode was added.
    """
    if not self._episodes:
      self.abandon()
      raise errors.UserError(f"{self.path}: no episode was added, so no data set is written")
    self._table.close()
    for video in self._videos.values():
      video.close()
    meta = self._part / "meta"
    (meta / "episodes/chunk-000").mkdir(parents=True)
    parquet.write_table(_tasks_table(self._tasks), meta / "tasks.parquet")
    parquet.write_table(
      pa.Table.from_pylist(self._episodes),
      meta / "episodes/chunk-000/file-000.parquet",
      compression="zstd",
    )
    (meta / "info.json").write_text(json.dumps(self._info(), indent=2) + "\n")
    if notes is not None:
      (meta / "collection.json").write_text(json.dumps(notes, indent=2) + "\n")
    merged = {name: _merge([s[name] for s in self._statistics]) for name in self._statistics[0]}
    plain = {
      name: {key: value.tolist() for key, value in values.items()}
      for name, values in merged.items()
    }
    (meta / "stats.json").write_text(json.dumps(plain, indent=1) + "\n")
    self._part.rename(self.path)
    return self.path

  def abandon(self) -> None:
    """Removes everything written so far."""
    self._table.close()
    for video in self._videos.values():
      video.close()
    shutil.rmtree(self._part, ignore_errors=True)

  def _check(self, index, task, frames, *, state, action, success, metadata) -> int:
    """Checks the arguments of `add_episode`; returns the length of the episode."""
    where = f"{self.path}, episode {index}"
    if set(frames) != set(self._cameras):
      raise errors.UserError(
        f"{where}: frames of cameras {sorted(frames)}, expected {sorted(self._cameras)}"
      )
    length = len(next(iter(frames.values()), ()) if action is None else action)
    if length < 1:
      raise errors.UserError(f"{where}: the episode is empty")
    if not isinstance(task, str) and len(task) != length:
      raise errors.UserError(
        f"{where}: {len(task)} instructions for {length} frames, expected one, or one for each "
        "frame"
      )
    for name, size in self._cameras.items():
      if frames[name].shape != (length, *size, 3) or frames[name].dtype != np.uint8:
        raise errors.UserError(
          f"{where}: camera {name!r} has {frames[name].dtype} {list(frames[name].shape)}, "
          f"expected uint8 {[length, *size, 3]}"
        )
    expected = {"state": (state, self._state_names), "action": (action, self._action_names)}
    for name, (value, names) in expected.items():
      if not names and value is None:
        continue
      if value is None or np.shape(value) != (length, len(names)) or not np.isfinite(value).all():
        raise errors.UserError(
          f"{where}: {name} has shape {list(np.shape(value))}, expected finite numbers "
          f"{[length, len(names)]}"
        )
    if self._outcome and (success is None or np.shape(success) != (length,)):
      raise errors.UserError(f"{where}: success is needed for every one of the {length} frames")
    if self._episodes and not set(metadata or {}) <= set(self._episodes[0]):
      raise errors.UserError(
        f"{where}: metadata {sorted(metadata)} has keys that the first episode lacks"
      )
    return length

  def _table_schema(self) -> pa.Schema:
    vectors = {"observation.state": self._state_names, "action": self._action_names}
    fields = [
      *((name, pa.list_(pa.float32(), len(names))) for name, names in vectors.items() if names),
      ("timestamp", pa.float32()),
      *((name, pa.int64()) for name in ("frame_index", "episode_index", "index", "task_index")),
    ]
    if self._outcome:
      fields += [("next.done", pa.bool_()), ("next.success", pa.bool_())]
    return pa.schema(fields)

  def _as_table(self, columns: Mapping[str, np.ndarray]) -> pa.Table:
    arrays = []
    for field in self._schema:
      value = columns[field.name]
      if value.ndim == 2:
        arrays.append(
          pa.FixedSizeListArray.from_arrays(pa.array(value.reshape(-1)), value.shape[1])
        )
      else:
        arrays.append(pa.array(value, field.type))
    return pa.Table.from_arrays(arrays, schema=self._schema)

  def _info(self) -> dict[str, Any]:
    fps = self._fps.numerator if self._fps.denominator == 1 else float(self._fps)
    vectors = {"observation.state": self._state_names, "action": self._action_names}
    features = {
      name: _feature("float32", len(names), names) for name, names in vectors.items() if names
    }
    features["timestamp"] = _feature("float32", 1, None)
    features |= {
      name: _feature("int64", 1, None)
      for name in ("frame_index", "episode_index", "index", "task_index")
    }
    if self._outcome:
      features |= {name: _feature("bool", 1, None) for name in ("next.done", "next.success")}
    for name, (height, width) in self._cameras.items():
      features[IMAGE + name] = {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": {
          "video.height": height,
          "video.width": width,
          "video.channels": 3,
          "video.fps": fps,
          "video.codec": "h264",
          "video.pix_fmt": "yuv420p",
          "video.is_depth_map": False,
          "has_audio": False,
        },
      }
    return {
      "codebase_version": "v3.0",
      "robot_type": self._robot_type,
      "total_episodes": len(self._episodes),
      "total_frames": self._frames,
      "total_tasks": len(self._tasks),
      "chunks_size": FILES_A_CHUNK,
      "data_files_size_in_mb": 100,
      "video_files_size_in_mb": 200,
      "fps": fps,
      "splits": {"train": f"0:{len(self._episodes)}"},
      "data_path": DATA_PATH,
      "video_path": VIDEO_PATH if self._cameras else None,
      "features": features,
    }


class _Video:
  """The video files of one camera."""

  def __init__(self, root, key, fps, size, *, crf, gop, megabytes):
    self._root, self._key, self._fps, self._size = root, key, fps, size
    self._options = {"crf": str(crf), "preset": "slow", "forced-idr": "1"}
    self._gop, self._limit = gop, megabytes * 2**20
    self._number, self._container, self._count, self._file = -1, None, 0, None

  def add(self, frames: np.ndarray) -> dict[str, int | float]:
    """Encodes uint8 [T, H, W, 3]; returns their location as columns of the episodes table."""
    # The encoder buffers a few frames: after a first episode of two frames there is no file yet.
    if self._container is None or (self._file.exists() and self._file.stat().st_size > self._limit):
      self._open()
    start = self._count
    for i, frame in enumerate(frames):
      picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
      picture.pts, picture.time_base = self._count, 1 / self._fps
      if i == 0:
        picture.pict_type = av.video.frame.PictureType.I
      self._container.mux(self._stream.encode(picture))
      self._count += 1
    chunk, number = divmod(self._number, FILES_A_CHUNK)
    return {
      "chunk_index": chunk,
      "file_index": number,
      "from_timestamp": float(start / self._fps),
      "to_timestamp": float(self._count / self._fps),
    }

  def close(self) -> None:
    """Closes the current file."""
    if self._container is not None:
      self._container.mux(self._stream.encode(None))
      self._container.close()
      self._container = None

  def _open(self) -> None:
    self.close()
    self._number, self._count = self._number + 1, 0
    chunk, number = divmod(self._number, FILES_A_CHUNK)
    self._file = self._root / VIDEO_PATH.format(
      video_key=self._key, chunk_index=chunk, file_index=number
    )
    self._file.parent.mkdir(parents=True, exist_ok=True)
    self._container = av.open(str(self._file), "w")
    self._stream = self._container.add_stream("libx264", rate=self._fps, options=self._options)
    self._stream.height, self._stream.width = self._size
    self._stream.pix_fmt = "yuv420p"
    self._stream.codec_context.time_base = 1 / self._fps
    self._stream.codec_context.gop_size = self._gop
    self._stream.codec_context.max_b_frames = 0
    self._stream.codec_context.thread_count = 1


def _feature(dtype: str, size: int, names: Sequence[str] | None) -> dict[str, Any]:
  return {"dtype": dtype, "shape": [size], "names": names}


def _tasks_table(tasks: Mapping[str, int]) -> pa.Table:
  """Table of instructions. LeRobot reads it with pandas, with the instruction as the index."""
  table = pa.table(
    {"task_index": pa.array(tasks.values(), pa.int64()), "task": pa.array(tasks, pa.string())}
  )
  columns = [
    {
      "name": "task_index",
      "field_name": "task_index",
      "pandas_type": "int64",
      "numpy_type": "int64",
      "metadata": None,
    },
    {
      "name": "task",
      "field_name": "task",
      "pandas_type": "unicode",
      "numpy_type": "object",
      "metadata": None,
    },
  ]
  pandas = {
    "index_columns": ["task"],
    "column_indexes": [],
    "columns": columns,
    "pandas_version": "2.0.0",
  }
  return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _statistics(value: np.ndarray) -> dict[str, np.ndarray]:
  """min, max, mean, std [D] and count [1] of [T] or [T, D]."""
  value = np.asarray(value, np.float64).reshape(len(value), -1)
  return {
    "min": value.min(0),
    "max": value.max(0),
    "mean": value.mean(0),
    "std": value.std(0),
    "count": np.array([len(value)]),
  }


def _image_statistics(frames: np.ndarray) -> dict[str, np.ndarray]:
  """`_statistics` per color of every 4th row and column, in [0, 1], [3, 1, 1] as in LeRobot."""
  values = frames[:, ::4, ::4].reshape(-1, 3)
  statistics = {
    key: value[:, None, None] / 255 for key, value in _statistics(values).items() if key != "count"
  }
  return statistics | {"count": np.array([len(frames)])}


def _merge(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Merges the statistics of episodes."""
  counts = np.array([part["count"][0] for part in parts], np.float64)
  weights = counts / counts.sum()
  means, deviations = np.stack([p["mean"] for p in parts]), np.stack([p["std"] for p in parts])
  mean = np.tensordot(weights, means, 1)
  variance = np.tensordot(weights, deviations**2 + (means - mean) ** 2, 1)
  return {
    "min": np.stack([p["min"] for p in parts]).min(0),
    "max": np.stack([p["max"] for p in parts]).max(0),
    "mean": mean,
    "std": np.sqrt(variance),
    "count": np.array([int(counts.sum())]),
  }
