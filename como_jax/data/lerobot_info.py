"""What a LeRobot data set says about itself: features, instructions and statistics."""

import dataclasses
import fractions
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from como_jax import errors
from como_jax.data import lerobot_video
from como_jax.observations import IMAGE

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_INDICES = ("frame_index", "episode_index", "index", "task_index")


@dataclasses.dataclass(frozen=True)
class Features:
  """The cameras and columns of a data set.

  Attributes:
    cameras: camera name -> (height, width), both even.
    state_names: names of the S state dimensions; () = no column observation.state.
    action_names: names of the A action dimensions; () = no column action (video without actions).
    outcome: whether there are columns next.done and next.success.
  """

  cameras: Mapping[str, tuple[int, int]]
  state_names: Sequence[str] = ()
  action_names: Sequence[str] = ()
  outcome: bool = False

  def check(self) -> None:
    """Raises `errors.UserError` when frames of a camera's size cannot be encoded."""
    for name, (height, width) in self.cameras.items():
      if height % 2 or width % 2 or min(height, width) < 16:
        raise errors.UserError(
          f"camera {name!r} is {height}x{width}: H.264 needs even sizes of at least 16 pixels"
        )

  @property
  def vectors(self) -> dict[str, list[str]]:
    """Column -> names of its dimensions, of the columns with a vector for each frame."""
    names = {"observation.state": self.state_names, "action": self.action_names}
    return {column: list(dimensions) for column, dimensions in names.items() if dimensions}

  def schema(self) -> pa.Schema:
    """The columns of the table with one row per frame."""
    fields: list[tuple[str, pa.DataType]] = [
      *((name, pa.list_(pa.float32(), len(names))) for name, names in self.vectors.items()),
      ("timestamp", pa.float32()),
      *((name, pa.int64()) for name in _INDICES),
    ]
    if self.outcome:
      fields += [("next.done", pa.bool_()), ("next.success", pa.bool_())]
    return pa.schema(fields)

  def describe(self, fps: int | float) -> dict[str, Any]:
    """The section "features" of meta/info.json.

    Args:
      fps: frames per second.
    """
    features = {
      name: _feature("float32", len(names), names) for name, names in self.vectors.items()
    }
    features["timestamp"] = _feature("float32", 1, None)
    features |= {name: _feature("int64", 1, None) for name in _INDICES}
    if self.outcome:
      features |= {name: _feature("bool", 1, None) for name in ("next.done", "next.success")}
    for name, (height, width) in self.cameras.items():
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
    return features


def info(
  features: Features, fps: fractions.Fraction, *, robot_type: str, counts: Mapping[str, int]
) -> dict[str, Any]:
  """The content of meta/info.json.

  Args:
    features: of the data set.
    fps: frames per second.
    robot_type: name of the robot.
    counts: total_episodes, total_frames and total_tasks.
  """
  rate = fps.numerator if fps.denominator == 1 else float(fps)
  return {
    "codebase_version": "v3.0",
    "robot_type": robot_type,
    **counts,
    "chunks_size": lerobot_video.FILES_A_CHUNK,
    "data_files_size_in_mb": 100,
    "video_files_size_in_mb": 200,
    "fps": rate,
    "splits": {"train": f"0:{counts['total_episodes']}"},
    "data_path": DATA_PATH,
    "video_path": lerobot_video.VIDEO_PATH if features.cameras else None,
    "features": features.describe(rate),
  }


def _feature(dtype: str, size: int, names: Sequence[str] | None) -> dict[str, Any]:
  return {"dtype": dtype, "shape": [size], "names": names}


def tasks_table(tasks: Mapping[str, int]) -> pa.Table:
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


def frame_statistics(value: np.ndarray) -> dict[str, np.ndarray]:
  """min, max, mean, std [D] and count [1] of [T] or [T, D]."""
  value = np.asarray(value, np.float64).reshape(len(value), -1)
  return {
    "min": value.min(0),
    "max": value.max(0),
    "mean": value.mean(0),
    "std": value.std(0),
    "count": np.array([len(value)]),
  }


def image_statistics(frames: np.ndarray) -> dict[str, np.ndarray]:
  """Statistics of the colors of every 4th row and column, in [0, 1], [3, 1, 1] as in LeRobot."""
  values = frames[:, ::4, ::4].reshape(-1, 3)
  statistics = {
    key: value[:, None, None] / 255
    for key, value in frame_statistics(values).items()
    if key != "count"
  }
  return statistics | {"count": np.array([len(frames)])}


def merge(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
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
