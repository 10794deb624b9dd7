"""What is written for LeRobot: statistics, layouts, limits and refusals, by hand."""

import fractions
import json
import pathlib

import av
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from como_jax import errors
from como_jax.data import (
  labels,
  lerobot_columns,
  lerobot_info,
  lerobot_labels,
  lerobot_video,
  shards,
)
from tests.data import lerobot_makers, test_index

ROWS = np.array([[1.0, 10], [3, 10], [8, 40]])


def plain(values):
  return {key: np.asarray(value).tolist() for key, value in values.items()}


def test_statistics_by_hand():
  assert plain(lerobot_info.frame_statistics(ROWS)) == {
    "min": [1, 10],
    "max": [8, 40],
    "mean": [4, 20],
    "std": pytest.approx([26**0.5 / 3**0.5, 200**0.5]),
    "count": [3],
  }
  assert plain(lerobot_info.frame_statistics(np.array([True, False])))["mean"] == [0.5]
  found = plain(lerobot_columns._statistics(ROWS, ["q10", "q50"]))
  assert (
    found["q50"] == [3, 10]
    and found["q10"] == pytest.approx([1.4, 10])
    and found["count"] == [3]
    and found["std"] == pytest.approx([26**0.5 / 3**0.5, 200**0.5])
  )
  for merge in (lerobot_info.merge, lerobot_columns._merge):
    parts = [
      lerobot_columns._statistics(part, ["q50"] if merge is lerobot_columns._merge else [])
      for part in (ROWS, ROWS[:1] - 5)
    ]
    found, whole = merge(parts), np.concatenate([ROWS, ROWS[:1] - 5])
    for name in ("min", "max", "mean", "std"):
      np.testing.assert_allclose(found[name], getattr(whole, name)(0))
    assert found["count"].tolist() == [4]
  np.testing.assert_allclose(found["q50"], [(3 * 3 - 4) / 4, (3 * 10 + 5) / 4])  # averaged by count
  image = np.zeros((2, 8, 12, 3), np.uint8)
  image[:, ::4, ::4] = [255, 51, 0]
  image[0, 0, 0] = 0  # one of 12
  found = lerobot_info.image_statistics(image)
  np.testing.assert_allclose(found["mean"], np.array([11 / 12, 11 / 60, 0])[:, None, None])
  assert found["max"].tolist() == [[[1.0]], [[0.2]], [[0.0]]] and found["count"].tolist() == [2]


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


def motion(valid, size=2):
  valid = np.array(valid, bool)
  t = np.arange(len(valid), dtype=np.float32)
  return labels.Motion(
    np.where(valid[:, None], np.stack([t, -t], 1), 0)[:, :size].astype(np.float32),
    valid,
    np.where(valid, 0.2 + t, 0).astype(np.float32),
  )


def test_statistics_of_labels_count_valid_rows():
  found = lerobot_columns._episode_statistics({"a": motion([1, 0, 1])}, 5, ["a", "b"], 2, ["q50"])
  assert plain(found["latent_motion.a"]) == {
    "min": [0, -2],
    "max": [2, 0],
    "mean": [1, -1],
    "std": [1, 1],
    "count": [2],
    "q50": [1, -1],
  }
  assert plain(found["latent_motion.a.difference"])["mean"] == pytest.approx([1.2])
  assert plain(found["latent_motion.a.valid"]) == {
    "min": [0],
    "max": [1],
    "mean": [0.4],
    "std": pytest.approx([0.24**0.5]),
    "count": [5],
    "q50": [0],
  }
  assert (
    plain(found["latent_motion.b"])["count"] == [0]
    and plain(found["latent_motion.b"])["max"] == [0, 0]
    and plain(found["latent_motion.b.valid"])["count"] == [5]
  )


def dataset(root, *, groups=None, stats=True):
  """Episode 0 of 5 rows and 1 of 4, in row groups of 3, videos and hidden files beside them."""
  columns = {"episode_index": [0] * 5 + [1] * 4, "action": [float(t) for t in range(9)]}
  for name in ("data/chunk-000", "meta/episodes/chunk-000", "videos/top", "data/.cache"):
    (root / name).mkdir(parents=True)
  parquet.write_table(
    pa.table(columns),
    root / "data/chunk-000/file-000.parquet",
    row_group_size=3,
    compression="gzip",
  )
  episodes = (
    {"episode_index": [0, 1, 2], "length": [5, 4, 0]}
    | (groups or {})
    | ({"stats/action/mean": [[0.0]] * 3} if stats else {})
  )
  parquet.write_table(pa.table(episodes), root / "meta/episodes/chunk-000/file-000.parquet")
  (root / "meta/info.json").write_text(json.dumps({"features": {"action": {}}}))
  (root / "meta/stats.json").write_text(
    json.dumps({"action": {"mean": [4.0], "q01": [0.0], "q5": [0.0], "count": [9]}})
  )
  (root / "videos/top/v.mp4").write_bytes(b"video")
  (root / "data/.cache/x").write_bytes(b"x")
  (root / "notes.txt").write_text("notes")
  return root


FOUND = {0: {"a": motion([1, 1, 0, 1])}, 1: {}}


def test_columns_are_added_row_by_row(tmp_path):
  base, part = dataset(tmp_path / "base"), tmp_path / "part"
  asked = []
  counts = lerobot_columns.copy(
    base,
    part,
    lambda number: asked.append(number) or FOUND[number],
    cameras=["a"],
    size=2,
    groups={0: "g", 1: ""},
  )
  assert counts == {"episodes": 2, "rows": 9, "valid": 3}
  file = parquet.ParquetFile(part / "data/chunk-000/file-000.parquet")
  assert file.num_row_groups == 3 and file.metadata.row_group(0).column(0).compression == "GZIP"
  table = file.read()
  key = "latent_motion.a"
  assert table.column_names == ["episode_index", "action", key, f"{key}.valid", f"{key}.difference"]
  assert table[key].to_pylist() == [[0, 0], [1, -1], [0, 0], [3, -3]] + [
    [0, 0]
  ] * 5 and table.schema.field(key).type == pa.list_(pa.float32(), 2)
  assert table[f"{key}.valid"].to_pylist() == [True, True, False, True] + [False] * 5
  assert table[f"{key}.difference"].to_pylist() == pytest.approx(
    [0.2, 1.2, 0, 3.2] + [0] * 5, rel=1e-6
  )
  episodes = parquet.read_table(part / "meta/episodes/chunk-000/file-000.parquet")
  assert (
    parquet.ParquetFile(part / "meta/episodes/chunk-000/file-000.parquet")
    .metadata.row_group(0)
    .column(0)
    .compression
    == "ZSTD"
  )
  assert (part / "meta/info.json").read_text().startswith('{\n  "features"')
  assert episodes["group"].to_pylist() == ["g", "", ""] and episodes[
    f"stats/{key}/count"
  ].to_pylist() == [[3], [0], None]
  assert (
    episodes[f"stats/{key}/mean"].to_pylist()[0] == pytest.approx([4 / 3, -4 / 3])
    and f"stats/{key}/q01" in episodes.column_names
  )
  assert (
    episodes.schema.field(f"stats/{key}/count").type == pa.list_(pa.int64())
    and f"stats/{key}/q5" not in episodes.column_names
  )
  features = json.loads((part / "meta/info.json").read_text())["features"]
  assert features == {
    "action": {},
    key: {"dtype": "float32", "shape": [2], "names": None},
    f"{key}.valid": {"dtype": "bool", "shape": [1], "names": None},
    f"{key}.difference": {"dtype": "float32", "shape": [1], "names": None},
  }
  stats = json.loads((part / "meta/stats.json").read_text())
  assert (
    stats["action"]["mean"] == [4.0]
    and stats[key]["count"] == [3]
    and stats[f"{key}.valid"]["mean"] == pytest.approx([3 / 9])
  )
  assert (part / "notes.txt").read_text() == "notes" and not (part / "data/.cache").exists()
  assert (part / "videos/top/v.mp4").samefile(base / "videos/top/v.mp4") and not (
    part / "notes.txt"
  ).samefile(base / "notes.txt")


@pytest.mark.parametrize(
  "groups, given, added",
  [
    ({}, {0: "", 1: ""}, False),
    ({"motion": [1, 2, 3]}, {0: "g"}, False),
    ({"group": ["x", "", ""]}, {0: "g"}, False),
    ({}, {1: "g"}, True),
  ],
)
def test_groups_are_added_where_there_are_none(tmp_path, groups, given, added):
  base, part = dataset(tmp_path / "base", groups=groups, stats=False), tmp_path / "part"
  lerobot_columns.copy(base, part, FOUND.get, cameras=["a"], size=2, groups=given)
  table = parquet.read_table(part / "meta/episodes/chunk-000/file-000.parquet")
  assert ("group" in table.column_names) == (added or "group" in groups) and not [
    name for name in table.column_names if name.startswith("stats/")
  ]
  if added:
    assert table["group"].to_pylist() == ["", "g", ""]


def test_labels_beyond_the_rows_are_refused(tmp_path):
  with pytest.raises(
    errors.UserError,
    match=(
      "base: episode 1 has 4 rows, its labels reach to frame 4: extract the labels of this data "
      "set anew"
    ),
  ):
    lerobot_columns.copy(
      dataset(tmp_path / "base"),
      tmp_path / "part",
      {0: {}, 1: {"a": motion([1] * 5), "b": motion([1])}}.get,
      cameras=["a", "b"],
      size=2,
      groups={},
    )


def test_no_label_at_all_and_no_statistics_before(tmp_path):
  base = dataset(tmp_path / "base")
  (base / "meta/stats.json").unlink()
  counts = lerobot_columns.copy(
    base, tmp_path / "part", lambda number: {}, cameras=["a"], size=2, groups={}
  )
  assert counts["valid"] == 0
  stats = json.loads((tmp_path / "part/meta/stats.json").read_text())
  assert stats["latent_motion.a"] == {
    "min": [0, 0],
    "max": [0, 0],
    "mean": [0, 0],
    "std": [0, 0],
    "count": [0],
  }


def test_features_that_hugging_face_keeps():
  assert lerobot_columns._metadata(None, ["a"], 2) is None and lerobot_columns._metadata(
    {b"x": b"y"}, ["a"], 2
  ) == {b"x": b"y"}
  held = {
    "info": {
      "features": {"f": {"dtype": "float32"}, "v": {"feature": {}, "length": 3, "_type": "List"}}
    }
  }
  found = lerobot_columns._metadata(
    {b"x": b"y", b"huggingface": json.dumps(held).encode()}, ["a"], 2
  )
  features = json.loads(found[b"huggingface"])["info"]["features"]
  assert (
    found[b"x"] == b"y"
    and features["latent_motion.a"]["_type"] == "List"
    and features["latent_motion.a"]["length"] == 2
  )
  plain_ = lerobot_columns._metadata(
    {b"huggingface": json.dumps({"info": {"features": {"f": {"dtype": "x"}}}}).encode()}, ["a"], 2
  )
  assert (
    json.loads(plain_[b"huggingface"])["info"]["features"]["latent_motion.a"]["_type"] == "Sequence"
  )


def segments(*rates, frames=100, **columns):
  records = test_index.table([(f"e{i}", 0, frames, 1) for i in range(len(rates))])
  records.interval[:] = [1 / rate if rate else 0 for rate in rates]
  for name, value in columns.items():
    getattr(records, name)[:] = value
  return shards.segments(records)


@pytest.mark.parametrize(
  "rates, rate",
  [
    ((30,), 30),
    ((30000 / 1001, 30000 / 1001), "30000/1001"),
    ((12.5,), "25/2"),
    ((0, 25), 25),
    ((0,), 1),
    ((0.25,), "1/4"),
    # 1 us, or 1 ms at the end of the segment
    ((30, 1 / (1 / 30 + 0.9e-6)), 30),
    ((30, 1 / (1 / 30 + 9e-6)), 30),
  ],
)
def test_the_one_rate_of_segments(rates, rate):
  assert lerobot_labels.one_rate(segments(*rates)) == fractions.Fraction(rate)


def test_several_rates():
  with pytest.raises(
    errors.UserError,
    match="the clips have 29.997, 30 frames a second, a LeRobot data set has one rate",
  ):
    lerobot_labels.one_rate(segments(30, 29.997, frames=2000))
  with pytest.raises(
    errors.UserError, match="^config.lerobot: the time between the frames of episode 'e1' varies"
  ):
    lerobot_labels.one_rate(segments(30, 30, uniform=[True, False]))


def test_groups_by_number():
  records = test_index.table(
    [
      ("episode_000003", 0, 4, 10),
      ("episode_000003", 4, 4, 10),
      ("episode_12", 0, 4, 10),
      ("other", 0, 4, 10),
    ]
  )
  records.group[:] = [0, 0, 1, 1]
  records = lerobot_labels.shards.dataclasses.replace(records, groups=("", "g"))
  assert lerobot_labels._groups(records) == {3: "", 12: "g"}


@pytest.mark.parametrize(
  "version, is_v3", [("v3.0", True), ("3.1", True), ("v2.1", False), ("v30", False), (None, False)]
)
def test_versions(tmp_path, version, is_v3):
  (tmp_path / "meta").mkdir()
  (tmp_path / "meta/info.json").write_text(json.dumps({"codebase_version": version}))
  assert lerobot_labels.is_v3(str(tmp_path)) is is_v3 and isinstance(
    lerobot_columns.read_info(pathlib.Path(tmp_path)), dict
  )


def test_kinds_of_robots(tmp_path, monkeypatch):
  monkeypatch.setattr(
    lerobot_labels.shards, "read_manifest", lambda path: {"source": {"robot_type": path}}
  )
  monkeypatch.setattr(lerobot_labels.sources, "detect", lambda path: path)
  monkeypatch.setattr(
    lerobot_labels.lerobot_columns, "read_info", lambda path: {"robot_type": "panda"}
  )
  assert [
    lerobot_labels._robot_type(*given)
    for given in (("lerobot", "x"), ("shards", "x"), ("video_folder", ""))
  ] == ["panda", "x", "unknown"]
