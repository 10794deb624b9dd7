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

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from como_jax import errors
from como_jax.data import lerobot_info
from como_jax.data.lerobot_info import Features
from como_jax.data.lerobot_video import VideoFiles, VideoOptions
from como_jax.observations import IMAGE


class Writer:
  """Writes one data set to a temporary folder, which `finalize` renames to `path`.

  Use it as a context manager to remove the unfinished folder after an exception.
  """

  def __init__(
    self,
    path: str | pathlib.Path,
    fps: float | fractions.Fraction,
    features: Features,
    *,
    robot_type: str,
    video: VideoOptions | None = None,
  ):
    """Makes the temporary folder.

    Args:
      path: folder to make; must not exist.
      fps: stored frames per second.
      features: the cameras and columns.
      robot_type: stored in info.json.
      video: how the frames are encoded, None = with the defaults.

    Raises:
      UserError: path exists, frames cannot be encoded (odd size), or a number is out of range.
    """
    self.path = pathlib.Path(path)
    if self.path.exists():
      raise errors.UserError(
        f"{self.path} exists already: choose another path or delete it (nothing is overwritten)"
      )
    features.check()
    if not fps > 0:
      raise errors.UserError(f"fps = {fps}: expected a positive number of frames a second")
    video = video or VideoOptions()
    video.check()
    self._fps = fractions.Fraction(fps).limit_denominator(1001)
    self._features, self._robot_type = features, robot_type
    self._tasks: dict[str, int] = {}
    self._episodes: list[dict[str, Any]] = []
    self._statistics: list[dict[str, dict[str, np.ndarray]]] = []
    self._frames = 0
    self._part = self.path.with_name(f".{self.path.name}.part")
    shutil.rmtree(self._part, ignore_errors=True)
    self._part.mkdir(parents=True)
    self._videos = {
      name: VideoFiles(self._part, IMAGE + name, self._fps, size, video)
      for name, size in features.cameras.items()
    }
    self._schema = features.schema()
    table = self._part / lerobot_info.DATA_PATH.format(chunk_index=0, file_index=0)
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
    vectors = {"observation.state": state, "action": action}
    columns = {name: np.asarray(vectors[name], np.float32) for name in self._features.vectors}
    columns |= {
      "timestamp": (counter / float(self._fps)).astype(np.float32),
      "frame_index": counter,
      "episode_index": np.full(length, index),
      "index": counter + self._frames,
      "task_index": np.array(task_index),
    }
    if self._features.outcome:
      columns["next.done"] = counter == length - 1
      columns["next.success"] = np.asarray(success, bool)
    self._table.write_table(self._as_table(columns))
    statistics = {name: lerobot_info.frame_statistics(value) for name, value in columns.items()}
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
      statistics[IMAGE + name] = lerobot_info.image_statistics(frames[name])
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
    parquet.write_table(lerobot_info.tasks_table(self._tasks), meta / "tasks.parquet")
    parquet.write_table(
      pa.Table.from_pylist(self._episodes),
      meta / "episodes/chunk-000/file-000.parquet",
      compression="zstd",
    )
    (meta / "info.json").write_text(json.dumps(self._info(), indent=2) + "\n")
    if notes is not None:
      (meta / "collection.json").write_text(json.dumps(notes, indent=2) + "\n")
    merged = {
      name: lerobot_info.merge([s[name] for s in self._statistics]) for name in self._statistics[0]
    }
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

  def _check(
    self,
    index: int,
    task: str | Sequence[str],
    frames: Mapping[str, np.ndarray],
    *,
    state: np.ndarray | None,
    action: np.ndarray | None,
    success: np.ndarray | None,
    metadata: Mapping[str, Any] | None,
  ) -> int:
    """Checks the arguments of `add_episode`; returns the length of the episode."""
    where = f"{self.path}, episode {index}"
    cameras = self._features.cameras
    if set(frames) != set(cameras):
      raise errors.UserError(
        f"{where}: frames of cameras {sorted(frames)}, expected {sorted(cameras)}"
      )
    length = len(next(iter(frames.values()), ()) if action is None else action)
    if length < 1:
      raise errors.UserError(f"{where}: the episode is empty")
    if not isinstance(task, str) and len(task) != length:
      raise errors.UserError(
        f"{where}: {len(task)} instructions for {length} frames, expected one, or one for each "
        "frame"
      )
    for name, size in cameras.items():
      if frames[name].shape != (length, *size, 3) or frames[name].dtype != np.uint8:
        raise errors.UserError(
          f"{where}: camera {name!r} has {frames[name].dtype} {list(frames[name].shape)}, "
          f"expected uint8 {[length, *size, 3]}"
        )
    expected = {
      "state": (state, self._features.state_names),
      "action": (action, self._features.action_names),
    }
    for name, (value, names) in expected.items():
      if not names and value is None:
        continue
      shape = () if value is None else np.shape(value)
      if value is None or shape != (length, len(names)) or not np.isfinite(value).all():
        raise errors.UserError(
          f"{where}: {name} has shape {list(shape)}, expected finite numbers {[length, len(names)]}"
        )
    if self._features.outcome and (success is None or np.shape(success) != (length,)):
      raise errors.UserError(f"{where}: success is needed for every one of the {length} frames")
    if metadata and self._episodes and not set(metadata) <= set(self._episodes[0]):
      raise errors.UserError(
        f"{where}: metadata {sorted(metadata)} has keys that the first episode lacks"
      )
    return length

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
    counts = {
      "total_episodes": len(self._episodes),
      "total_frames": self._frames,
      "total_tasks": len(self._tasks),
    }
    return lerobot_info.info(self._features, self._fps, robot_type=self._robot_type, counts=counts)
