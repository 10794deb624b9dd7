"""What a written LeRobot data set holds."""

import fractions
import json

import av
import numpy as np
import pytest
from pyarrow import parquet

from como_jax import errors
from como_jax.data import lerobot_info, lerobot_video
from tests.data import lerobot_makers

SETTINGS = dict(cameras={}, state_names=(), action_names=("u",), robot_type="toy")


@pytest.mark.parametrize(
  "change, message",
  [
    (
      {"cameras": {"a": (15, 16)}},
      "camera 'a' is 15x16: H.264 needs even sizes of at least 16 pixels",
    ),
    ({"cameras": {"a": (16, 18), "b": (32, 17)}}, "'b' is 32x17"),
    ({"cameras": {"a": (14, 64)}}, "'a' is 14x64"),
    ({"cameras": {"a": (64, 14)}}, "'a' is 64x14"),
    ({"gop": 0}, "gop = 0, crf = 23"),
    ({"crf": -1}, "crf = -1"),
    ({"crf": 52}, "gop = 4, crf = 52: expected gop >= 1 and 0 <= crf <= 51"),
    ({"fps": 0}, "fps = 0: expected a positive number"),
    ({"fps": float("nan")}, "fps = nan"),
  ],
)
def test_what_a_writer_refuses(tmp_path, change, message):
  settings = SETTINGS | change
  with pytest.raises(errors.UserError, match=message):
    lerobot_makers.open_writer(tmp_path / "s", settings.pop("fps", 10), **settings)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "change", [{"gop": 1}, {"crf": 0}, {"crf": 51}, {"cameras": {"a": (16, 16)}}]
)
def test_limits_of_a_writer(tmp_path, change):
  lerobot_makers.open_writer(tmp_path / "s", 10, **SETTINGS | change).abandon()
  assert not list(tmp_path.iterdir())


def write(path, *, fps=10, lengths=(3, 2), **changes):
  with lerobot_makers.open_writer(path, fps, **SETTINGS | changes) as writer:
    for i, length in enumerate(lengths):
      assert (
        writer.add_episode(
          ["x", "y", "x"][:length],
          {},
          action=np.arange(length)[:, None] + 10 * i,
          metadata={"scene": i},
        )
        == i
      )
    assert writer.finalize(notes={"why": "test"}) == path
  return path


def test_tables_and_facts_of_a_written_set(tmp_path):
  path = write(tmp_path / "s")
  table = parquet.read_table(path / "data/chunk-000/file-000.parquet")
  assert table.column_names == [
    "action",
    "timestamp",
    "frame_index",
    "episode_index",
    "index",
    "task_index",
  ]
  assert [
    table[name].to_pylist() for name in ("frame_index", "episode_index", "index", "task_index")
  ] == [[0, 1, 2, 0, 1], [0, 0, 0, 1, 1], [0, 1, 2, 3, 4], [0, 1, 0, 0, 1]]
  assert table["action"].to_pylist() == [[0], [1], [2], [10], [11]] and table[
    "timestamp"
  ].to_pylist() == pytest.approx([0, 0.1, 0.2, 0, 0.1])
  first, second = parquet.read_table(path / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
  for row, expected in (
    (first, (0, ["x", "y"], 3, 0, 3, 0)),
    (second, (1, ["x", "y"], 2, 3, 5, 1)),
  ):
    assert (
      tuple(
        row[key]
        for key in (
          "episode_index",
          "tasks",
          "length",
          "dataset_from_index",
          "dataset_to_index",
          "scene",
        )
      )
      == expected
    )
    assert [
      row[f"{name}/{kind}_index"]
      for name in ("data", "meta/episodes")
      for kind in ("chunk", "file")
    ] == [0] * 4
  assert second["stats/action/mean"] == [10.5] and first["stats/action/count"] == [3]
  info = json.loads((path / "meta/info.json").read_text())

  def scalar(dtype):
    return {"dtype": dtype, "shape": [1], "names": None}

  assert info == {
    "codebase_version": "v3.0",
    "robot_type": "toy",
    "total_episodes": 2,
    "total_frames": 5,
    "total_tasks": 2,
    "chunks_size": 1000,
    "data_files_size_in_mb": 100,
    "video_files_size_in_mb": 200,
    "fps": 10,
    "splits": {"train": "0:2"},
    "data_path": lerobot_info.DATA_PATH,
    "video_path": None,
    "features": {
      "action": {"dtype": "float32", "shape": [1], "names": ["u"]},
      "timestamp": scalar("float32"),
      **{name: scalar("int64") for name in ("frame_index", "episode_index", "index", "task_index")},
    },
  }
  assert json.loads((path / "meta/stats.json").read_text())["action"]["mean"] == [4.8]
  assert json.loads((path / "meta/collection.json").read_text()) == {"why": "test"}
  for name in ("data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"):
    assert parquet.ParquetFile(path / name).metadata.row_group(0).column(0).compression == "ZSTD"
  # people read it
  assert (path / "meta/info.json").read_text().startswith('{\n  "codebase_version": "v3.0",\n')
  pandas = json.loads(parquet.read_table(path / "meta/tasks.parquet").schema.metadata[b"pandas"])
  assert [column["name"] for column in pandas["columns"]] == ["task_index", "task"]


def test_episodes_shorter_than_the_encoder_looks_ahead(tmp_path):
  """The first packets come when the video is closed."""
  with lerobot_makers.open_writer(
    tmp_path / "s", 10, **SETTINGS | {"cameras": {"a": (16, 16)}}
  ) as writer:
    for i in range(3):
      writer.add_episode(
        "x", {"a": np.full((1 + i, 16, 16, 3), 60 * i, np.uint8)}, action=np.zeros((1 + i, 1))
      )
    writer.finalize()
  path = tmp_path / "s/videos/observation.images.a/chunk-000/file-000.mp4"
  with av.open(str(path)) as container:
    frames = list(container.decode(video=0))
  assert [round(frame.to_ndarray(format="rgb24").mean() / 60) for frame in frames] == [
    0,
    1,
    1,
    2,
    2,
    2,
  ]
  assert [round(frame.time * 10) for frame in frames] == list(range(6))


def test_more_features_and_rates_of_a_written_set(tmp_path):
  writer = lerobot_makers.open_writer(
    tmp_path / "s",
    30000 / 1001,
    **SETTINGS | {"cameras": {"a": (16, 32)}, "outcome": True, "state_names": ("p", "q")},
  )
  info = writer._info()
  assert (
    info["fps"] == 30000 / 1001
    and writer._fps == fractions.Fraction(30000, 1001)
    and info["video_path"] == lerobot_video.VIDEO_PATH
  )
  assert info["features"]["observation.images.a"] == {
    "dtype": "video",
    "shape": [16, 32, 3],
    "names": ["height", "width", "channels"],
    "info": {
      "video.height": 16,
      "video.width": 32,
      "video.channels": 3,
      "video.fps": 30000 / 1001,
      "video.codec": "h264",
      "video.pix_fmt": "yuv420p",
      "video.is_depth_map": False,
      "has_audio": False,
    },
  }
  assert (
    info["features"]["next.done"]
    == info["features"]["next.success"]
    == {"dtype": "bool", "shape": [1], "names": None}
  )
  assert info["features"]["observation.state"] == {
    "dtype": "float32",
    "shape": [2],
    "names": ["p", "q"],
  }
  good = dict(
    frames={"a": np.zeros((2, 16, 32, 3), np.uint8)},
    state=np.zeros((2, 2)),
    action=np.zeros((2, 1)),
    success=[False, True],
  )
  for change, message in (
    ({"task": ["x"]}, "1 instructions for 2 frames, expected one, or one for each frame"),
    ({"success": [True]}, "success is needed"),
    ({"state": None}, "state has shape"),
    ({"action": np.zeros((2, 2))}, "action has shape .2, 2., expected finite numbers .2, 1."),
    (
      {"frames": {"a": np.zeros((2, 16, 30, 3), np.uint8)}},
      "camera 'a' has uint8 .2, 16, 30, 3., expected uint8 .2, 16, 32, 3.",
    ),
  ):
    with pytest.raises(errors.UserError, match=message):
      writer.add_episode(**{"task": "x"} | good | change)
  writer.add_episode("x", **good, metadata={"scene": 1})
  with pytest.raises(
    errors.UserError, match="metadata .'other'. has keys that the first episode lacks"
  ):
    writer.add_episode("x", **good, metadata={"other": 1})
  writer.add_episode("x", **good)  # some may be missing
  writer.abandon()
  with pytest.raises(errors.UserError, match="no episode was added, so no data set is written"):
    lerobot_makers.open_writer(tmp_path / "none", 10, **SETTINGS).finalize()
  assert not list(tmp_path.iterdir())
