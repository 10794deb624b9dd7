"""LeRobot folders of versions 2.1 and 3.0, written with PyAV and pyarrow alone."""

import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.data import makers


def _columns(length, number, first, fps, task):
  action, state = makers.vectors(length, number)

  def fixed(x):
    return pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1), pa.float32()), x.shape[1])

  return {
    "observation.state": fixed(state),
    "action": fixed(action),
    "timestamp": pa.array(np.arange(length) / fps, pa.float32()),
    "frame_index": pa.array(range(length), pa.int64()),
    "episode_index": pa.array([number] * length, pa.int64()),
    "index": pa.array(range(first, first + length), pa.int64()),
    "task_index": pa.array([task] * length, pa.int64()),
  }


def _png(t):
  buffer = io.BytesIO()
  Image.fromarray(makers.picture(t)).save(buffer, "PNG")
  return buffer.getvalue()


def _info(root, version, fps, lengths, image, data_path, video_path):
  features = {
    "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "y"]}},
    "action": {"dtype": "float32", "shape": [3], "names": ["a", "b", "c"]},
    "observation.images.top": {
      "dtype": "video",
      "shape": [makers.HEIGHT, makers.WIDTH, 3],
      "names": ["height", "width", "channels"],
    },
    "observation.images.wrist": {
      "dtype": "image" if image else "video",
      "shape": [makers.HEIGHT, makers.WIDTH, 3],
      "names": None,
    },
  }
  info = {
    "codebase_version": version,
    "robot_type": "toy",
    "fps": fps,
    "features": features,
    "splits": {"train": f"0:{len(lengths)}"},
    "total_episodes": len(lengths),
    "total_frames": sum(lengths),
    "total_tasks": 2,
    "chunks_size": 2,
    "data_path": data_path,
    "video_path": video_path,
    "unknown_key": 1,
  }
  os.makedirs(os.path.join(root, "meta"), exist_ok=True)
  with open(os.path.join(root, "meta", "info.json"), "w") as file:
    json.dump(info, file)


def _write_table(path, columns):
  os.makedirs(os.path.dirname(path), exist_ok=True)
  pq.write_table(pa.table(columns), path)


def lerobot_v21(root, lengths=(8, 11, 6), *, fps=10, image=False):
  """One file per episode, chunks of two episodes."""
  root = str(root)
  _info(
    root,
    "v2.1",
    fps,
    lengths,
    image,
    "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
  )
  with (
    open(f"{root}/meta/tasks.jsonl", "w") as tasks,
    open(f"{root}/meta/episodes.jsonl", "w") as lines,
  ):
    for i in range(2):
      tasks.write(json.dumps({"task_index": i, "task": f"task {i}"}) + "\n")
    for i, length in enumerate(lengths):
      lines.write(
        json.dumps({"episode_index": i, "tasks": [f"task {i % 2}"], "length": length}) + "\n"
      )
  for i, length in enumerate(lengths):
    columns = _columns(length, i, sum(lengths[:i]), fps, i % 2)
    for camera in ("top", "wrist"):
      if camera == "wrist" and image:
        columns["observation.images.wrist"] = pa.array(
          [{"bytes": _png(t), "path": None} for t in range(length)]
        )
      else:
        makers.write_video(
          f"{root}/videos/chunk-{i // 2:03d}/observation.images.{camera}/episode_{i:06d}.mp4",
          length,
          fps=fps,
        )
    _write_table(f"{root}/data/chunk-{i // 2:03d}/episode_{i:06d}.parquet", columns)
  return root


def lerobot_v30(root, lengths=(8, 11, 6), *, fps=10, image=False, codec="libx264"):
  """All episodes in one data file and one video file a camera."""
  root = str(root)
  _info(
    root,
    "v3.0",
    fps,
    lengths,
    image,
    "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
  )
  _write_table(
    f"{root}/meta/tasks.parquet", {"task_index": [0, 1], "__index_level_0__": ["task 0", "task 1"]}
  )
  parts = [
    pa.table(_columns(length, i, sum(lengths[:i]), fps, i % 2)) for i, length in enumerate(lengths)
  ]
  table = pa.concat_tables(parts)
  shown = [t for length in lengths for t in range(length)]
  rows = {
    "episode_index": list(range(len(lengths))),
    "tasks": [[f"task {i % 2}"] for i in range(len(lengths))],
    "length": list(lengths),
    "data/chunk_index": [0] * len(lengths),
    "data/file_index": [0] * len(lengths),
    "stats/action/mean": [[0.0]] * len(lengths),
  }
  for camera in ("top", "wrist"):
    key = f"observation.images.{camera}"
    if camera == "wrist" and image:
      table = table.append_column(key, pa.array([{"bytes": _png(t), "path": None} for t in shown]))
    else:
      makers.write_video(
        f"{root}/videos/{key}/chunk-000/file-000.mp4",
        [makers.picture(t) for t in shown],
        fps=fps,
        codec=codec,
      )
      starts = np.cumsum([0, *lengths[:-1]]) / fps
      rows |= {
        f"videos/{key}/chunk_index": [0] * len(lengths),
        f"videos/{key}/file_index": [0] * len(lengths),
        f"videos/{key}/from_timestamp": list(starts),
        f"videos/{key}/to_timestamp": list(starts + np.array(lengths) / fps),
      }
  _write_table(f"{root}/meta/episodes/chunk-000/file-000.parquet", rows)
  os.makedirs(f"{root}/data/chunk-000")
  pq.write_table(table, f"{root}/data/chunk-000/file-000.parquet", row_group_size=7)
  return root
