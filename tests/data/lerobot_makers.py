"""Small LeRobot folders whose pictures carry their number, with a knob for each way in which such
folders are damaged.

Frame t of episode e shows the number 1000 e + t: 2 rows of 8 blocks, black or white, are its 16
bits, most significant first. Its action is [e, t, t / 2], its state [t, e].
"""

import dataclasses
import io
import json
import os
import pickle
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from como_jax.data import lerobot_info, lerobot_video, lerobot_writer, video
from como_jax.data.sources import lerobot
from como_jax.data.sources.options import SourceOptions
from tests.data import makers

KEEP = video.Geometry()

HEIGHT, WIDTH = 32, 64
TOP, WRIST = "observation.images.top", "observation.images.wrist"
TASKS = ("open the drawer", "close the drawer")


def open_writer(path, fps, *, robot_type="toy", **settings) -> lerobot_writer.Writer:
  """A `Writer` from the fields of `Features` and `VideoOptions`."""
  features = {
    key: settings.pop(key)
    for key in ("cameras", "state_names", "action_names", "outcome")
    if key in settings
  }
  return lerobot_writer.Writer(
    path,
    fps,
    lerobot_info.Features(**features),
    robot_type=robot_type,
    video=lerobot_video.VideoOptions(**settings),
  )


def coded(number: int) -> np.ndarray:
  """The picture of a number below 65536, uint8 [H, W, 3]."""
  bits = np.array([number >> (15 - i) & 1 for i in range(16)], np.uint8).reshape(2, 8)
  gray = 20 + 210 * np.kron(bits, np.ones((HEIGHT // 2, WIDTH // 8), np.uint8))
  return np.repeat(gray[..., None], 3, axis=-1)


def number(image: np.ndarray) -> int:
  """The number shown by a picture of any size."""
  rows = (np.arange(2) + 0.5) * image.shape[0] / 2
  columns = (np.arange(8) + 0.5) * image.shape[1] / 8
  bits = image[rows.astype(int)][:, columns.astype(int)].mean(-1).reshape(-1) > 127
  return int("".join("1" if bit else "0" for bit in bits), 2)


def png(number: int, *, deep: bool = False) -> bytes:
  """The picture as PNG; deep = 16 bits of gray, 100 for black and 4100 for white."""
  image = coded(number)
  if deep:
    image = (100 + 4000 * (image[..., 0] > 127)).astype(np.uint16)
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, "PNG")
  return buffer.getvalue()


def vector(rows: Sequence[Sequence[float]] | np.ndarray) -> pa.Array:
  """A column of vectors as LeRobot stores them."""
  rows = np.asarray(rows, np.float32)
  return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


@dataclasses.dataclass
class Folder:
  """What is written, as it should be; a test changes a part before `write`.

  Attributes:
    version: "v2.0", "v2.1" or "v3.0".
    lengths: frames of each episode.
    fps: of the table and meta/info.json.
    videos, images: features of cameras that are videos, and images in the tables.
    action, state: names of these features.
    video_fps: of the videos, None = fps.
    pictures: episode number -> numbers shown by its videos, None = a picture a row.
    rows: (episode number, its columns) -> its columns.
    info: meta/info.json -> meta/info.json.
    episodes: rows of the episodes table -> rows.
    files: v3: camera -> lists of the episodes that share a file, {} = all in one.
    codec: of the videos.
  """

  version: str = "v2.1"
  lengths: tuple[int, ...] = (6, 8)
  fps: float = 10
  videos: tuple[str, ...] = (TOP,)
  images: tuple[str, ...] = ()
  action: str = "action"
  state: str = "observation.state"
  video_fps: float | None = None
  pictures: Callable[[int], Sequence[int]] | None = None
  rows: Callable[[int, dict], dict] = lambda e, columns: columns
  info: Callable[[dict], dict] = lambda info: info
  episodes: Callable[[list[dict]], list[dict]] = lambda rows: rows
  files: dict[str, list[list[int]]] = dataclasses.field(default_factory=dict)
  codec: str = "libx264"

  @property
  def v3(self) -> bool:
    return self.version.startswith("v3")

  def write(self, root) -> str:
    """Writes the folder and returns its path."""
    root = str(root)
    os.makedirs(os.path.join(root, "meta"))
    with open(os.path.join(root, "meta", "info.json"), "w", encoding="utf-8") as file:
      json.dump(self.info(self._info()), file)
    columns = [self.rows(e, self._columns(e)) for e in range(len(self.lengths))]
    rows = [
      {"episode_index": e, "tasks": [TASKS[e % 2]], "length": n} for e, n in enumerate(self.lengths)
    ]
    if self.v3:
      for e, row in enumerate(rows):
        row |= {"data/chunk_index": 0, "data/file_index": 0, "stats/action/mean": [0.0] * (e + 1)}
      self._write_shared_videos(root, rows)
      tables = pa.concat_tables([pa.table(one) for one in columns], promote_options="permissive")
      write_table(f"{root}/data/chunk-000/file-000.parquet", tables, row_group_size=5)
      write_table(
        f"{root}/meta/episodes/chunk-000/file-000.parquet",
        pa.Table.from_pylist(self.episodes(rows)),
      )
      tasks = pa.table({"task_index": range(len(TASKS)), "__index_level_0__": TASKS})
      write_table(f"{root}/meta/tasks.parquet", tasks)
      return root
    for e, one in enumerate(columns):
      write_table(f"{root}/data/chunk-000/episode_{e:06d}.parquet", pa.table(one))
      for key in self.videos:
        self._write_video(f"{root}/videos/chunk-000/{key}/episode_{e:06d}.mp4", self._shown(e))
    write_lines(f"{root}/meta/episodes.jsonl", self.episodes(rows))
    write_lines(
      f"{root}/meta/tasks.jsonl", [{"task_index": i, "task": text} for i, text in enumerate(TASKS)]
    )
    return root

  def _shown(self, e: int) -> list[int]:
    return (
      list(self.pictures(e)) if self.pictures else [1000 * e + t for t in range(self.lengths[e])]
    )

  def _write_video(self, path: str, numbers: Sequence[int]) -> None:
    makers.write_video(
      path, [coded(n) for n in numbers], fps=self.video_fps or self.fps, codec=self.codec
    )

  def _write_shared_videos(self, root: str, rows: list[dict]) -> None:
    fps = self.video_fps or self.fps
    for key in self.videos:
      for i, members in enumerate(self.files.get(key) or [list(range(len(self.lengths)))]):
        numbers = [number for e in members for number in self._shown(e)]
        self._write_video(f"{root}/videos/{key}/chunk-000/file-{i:03d}.mp4", numbers)
        begin = 0
        for e in members:
          end = begin + len(self._shown(e))
          rows[e] |= {
            f"videos/{key}/chunk_index": 0,
            f"videos/{key}/file_index": i,
            f"videos/{key}/from_timestamp": begin / fps,
            f"videos/{key}/to_timestamp": end / fps,
          }
          begin = end

  def _columns(self, e: int) -> dict:
    length, first = self.lengths[e], sum(self.lengths[:e])
    t = np.arange(length)
    columns = {
      self.action: vector(np.stack([np.full(length, e), t, t / 2], 1)),
      self.state: vector(np.stack([t, np.full(length, e)], 1)),
      "timestamp": pa.array(t / self.fps, pa.float32()),
      "frame_index": pa.array(t),
      "episode_index": pa.array(np.full(length, e)),
      "index": pa.array(first + t),
      "task_index": pa.array(np.full(length, e % 2)),
    }
    return columns | {
      key: pa.array([{"bytes": png(n), "path": None} for n in self._shown(e)])
      for key in self.images
    }

  def _info(self) -> dict:
    features = {
      self.action: {"dtype": "float32", "shape": [3], "names": ["a", "b", "c"]},
      self.state: {"dtype": "float32", "shape": [2], "names": {"motors": ["x", "y"]}},
      "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    }
    features |= {
      name: {"dtype": "int64", "shape": [1], "names": None}
      for name in ("frame_index", "episode_index", "index", "task_index")
    }
    for dtype, keys in (("video", self.videos), ("image", self.images)):
      features |= {
        key: {"dtype": dtype, "shape": [HEIGHT, WIDTH, 3], "names": ["height", "width", "channels"]}
        for key in keys
      }
    data, video = (
      (
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
      )
      if self.v3
      else (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
      )
    )
    return {
      "codebase_version": self.version,
      "robot_type": "toy",
      "fps": self.fps,
      "features": features,
      "chunks_size": 1000,
      "data_path": data,
      "video_path": video if self.videos else None,
      "unknown_key": 1,
    }


def write_table(path: str, table: pa.Table, **options) -> None:
  os.makedirs(os.path.dirname(path), exist_ok=True)
  pq.write_table(table, path, **options)


def write_lines(path: str, rows: Sequence[dict]) -> None:
  with open(path, "w", encoding="utf-8") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)


def opened(path, **options):
  """The source as a worker process gets it."""
  return pickle.loads(pickle.dumps(lerobot.LeRobot(path, SourceOptions(**options))))


def shown(raw, camera):
  """(seconds, picture numbers) of a camera."""
  pairs = list(raw.cameras[camera](KEEP))
  return [seconds for seconds, _ in pairs], [number(image) for _, image in pairs]


def check(raw, e, frames, *, fps=10.0, first=0.0, interval=None):
  """Every camera shows these frames of episode e, with their action, state and times."""
  for camera in raw.cameras:
    times, numbers = shown(raw, camera)
    assert numbers == [1000 * e + t for t in frames], camera
    np.testing.assert_allclose(
      times, first + np.arange(len(times)) * (interval or 1 / fps), atol=2e-6
    )
  np.testing.assert_array_equal(raw.arrays["action"], [[e, t, t / 2] for t in frames])
  np.testing.assert_array_equal(raw.arrays["state"], [[t, e] for t in frames])
  assert raw.arrays["action"].dtype == np.float32


def refused(source, i, pattern):
  """Reading episode i, or one of its cameras, raises with a reason that matches and names the
  episode.
  """
  with pytest.raises(video.UnreadableError, match=pattern) as caught:
    for read in source[i].cameras.values():
      list(read(KEEP))
  assert f"episode {i}" in str(caught.value)


def rows(change, only=None):
  """A knob of `Folder`: columns of all episodes, or of one, changed by a function."""
  return lambda e, columns: columns | change(e, columns) if only in (None, e) else columns


def without(*names):
  return lambda e, columns: {name: values for name, values in columns.items() if name not in names}


def each(change):
  """A knob of `Folder`: every row of the episodes table changed by a function."""
  return lambda table: [row | change(row) for row in table]


def features(**changed):
  return lambda info: info | {"features": info["features"] | changed}
