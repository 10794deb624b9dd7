"""Parts of the LeRobot reader by themselves: values, names, columns, places in shared files, what
belongs to a data set.
"""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from como_jax import errors
from como_jax.data import video
from como_jax.data.sources import lerobot_features as layout
from como_jax.data.sources import lerobot_images, lerobot_json, lerobot_meta, lerobot_tables
from como_jax.data.sources import lerobot_paths as locations
from como_jax.data.sources.options import SourceOptions


@pytest.mark.parametrize(
  "value, number",
  [
    (3, 3),
    (3.0, 3),
    (0, 0),
    (-2, -2),
    (3.5, None),
    (True, None),
    ("3", None),
    (None, None),
    (float("nan"), None),
    (float("inf"), None),
  ],
)
def test_whole_numbers(value, number):
  assert lerobot_meta.whole(value) == number and type(lerobot_meta.whole(value)) is type(number)


@pytest.mark.parametrize(
  "value, seconds",
  [
    (0, 0.0),
    (0.25, 0.25),
    (3, 3.0),
    (-0.1, None),
    (float("nan"), None),
    (float("inf"), None),
    ("1", None),
  ],
)
def test_seconds(value, seconds):
  assert lerobot_meta.seconds(value) == seconds and type(lerobot_meta.seconds(value)) is type(
    seconds
  )


def test_groups_of_rows():
  assert [
    lerobot_meta.group(row, "open")
    for row in (
      {},
      {"group": ""},
      {"motion": 3},
      {"motion": 0},
      {"group": "a", "motion": 3},
      {"group": None, "motion": None},
      {"group": float("nan"), "motion": 2},
    )
  ] == ["", "", "open/3", "open/0", "a", "", "open/2"]


@pytest.mark.parametrize(
  "array, rows",
  [
    (pa.array([1, 2]), [[1], [2]]),
    (pa.array([True, False]), [[1], [0]]),
    (pa.array([1.5, None]), [[1.5], [np.nan]]),
    (pa.array([None, None]), [[np.nan], [np.nan]]),
    (pa.array([[1, 2], None, [3, 4]]), [[1, 2], [np.nan, np.nan], [3, 4]]),
    (pa.array([None, None], pa.list_(pa.int64())), [[np.nan], [np.nan]]),
    (pa.array([[[1, 2], [3, 4]]]), [[1, 2, 3, 4]]),
    (pa.array([[1, 2]], pa.large_list(pa.float32())), [[1, 2]]),
    (pa.array([[1, 2], None], pa.list_(pa.float32(), 2)), [[1, 2], [np.nan, np.nan]]),
    (pa.array([[1, None]]), [[1, np.nan]]),
  ],
)
def test_columns_to_numbers(array, rows):
  found = lerobot_tables.to_matrix(array)
  assert found.dtype == np.float64
  np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize(
  "array, message",
  [
    (pa.array(["a"]), "^it holds string, expected numbers$"),
    (pa.array([["a"]]), "^it holds string, expected numbers$"),
    (pa.array([[1], None, [1, 2]]), "^frame 2 has 2 numbers, the frames before it 1$"),
  ],
)
def test_columns_that_are_no_numbers(array, message):
  with pytest.raises(ValueError, match=message):
    lerobot_tables.to_matrix(array)


def test_index_columns():
  found = lerobot_tables.whole_numbers(np.array([[3.0], [-1.0]]))
  assert found.tolist() == [3, -1] and found.dtype == np.int64
  for bad, message in (
    ([0.0, 1.25], "1.25 at frame 1"),
    ([np.nan, 1.0], "nan at frame 0"),
    ([0.0, np.inf], "inf at frame 1"),
  ):
    with pytest.raises(ValueError, match=f"^{message}, expected a whole number$"):
      lerobot_tables.whole_numbers(np.array(bad)[:, None])


@pytest.fixture(name="table")
def _table(tmp_path):
  """Episodes 0, 0, 1 | 1, 1, 2 | 4 in three row groups."""
  path = str(tmp_path / "data" / "chunk-000" / "file.parquet")
  os.makedirs(os.path.dirname(path))
  columns = {
    "nested": pa.array([[t, t] for t in range(7)]),
    "episode_index": [0, 0, 1, 1, 1, 2, 4],
    "action": [float(t) for t in range(7)],
    "stats/x": [0] * 7,
  }
  pq.write_table(pa.table(columns), path, row_group_size=3)
  return path


def test_rows_of_one_episode(table, monkeypatch):
  def read(number, names=("action",), *, own=False, size=2):
    return [
      batch.to_pydict()
      for batch in lerobot_tables.batches(table, number, names, batch_size=size, own=own)
    ]

  assert [row for one in read(1) for row in one["action"]] == [2, 3, 4] and all(
    set(one) == {"action", "episode_index"} for one in read(1)
  )
  assert read(3) == [] and read(4, ("none", "action")) == [{"action": [6.0], "episode_index": [4]}]
  assert [one["action"] for one in read(9, own=True, size=4)] == [[0, 1, 2, 3], [4, 5, 6]]
  groups = []
  whole = pq.ParquetFile.iter_batches
  monkeypatch.setattr(
    pq.ParquetFile,
    "iter_batches",
    lambda self, **more: groups.append(more["row_groups"]) or whole(self, **more),
  )
  for number in (0, 1, 2, 3, 4, 5):
    read(number)
  assert groups == [[0], [0, 1], [1], [], [2], []]
  assert lerobot_tables.short(table) == "data/chunk-000/file.parquet" and list(
    lerobot_tables.column_types(table)
  ) == ["nested", "episode_index", "action", "stats/x"]
  assert lerobot_tables.read_table(table, leave_out="stats/").column_names == [
    "nested",
    "episode_index",
    "action",
  ]
  assert lerobot_tables.read_table(table).num_columns == 4


def test_an_episode_of_a_table(table):
  def read(number, length=None, *, own=False):
    return lerobot_tables.read_episode(table, number, ["nested", "action"], own=own, length=length)

  found = read(1, 3)
  assert (
    found["episode_index"].tolist() == [1, 1, 1]
    and found["action"].tolist() == [[2], [3], [4]]
    and found["nested"].shape == (3, 2)
  )
  for call, message in (
    (lambda: read(3), "^data/chunk-000/file.parquet has no row of episode 3$"),
    (
      lambda: read(1, 4),
      "has 3 rows of episode 1, the episodes table declares 4 .column 'length'.$",
    ),
    (lambda: read(1, 2), "has more than 2 rows of episode 1, the episodes table declares 2"),
    (lambda: read(1, 6, own=True), "has 7 rows of episode 1, the episodes table declares 6"),
    (
      lambda: read(1, own=True),
      "holds rows of episode 0 .column 'episode_index'., expected 1 alone$",
    ),
    (
      lambda: list(lerobot_tables.batches("gone.parquet", 1, [], batch_size=1, own=True)),
      "^gone.parquet is missing$",
    ),
    (
      lambda: lerobot_tables.read_episode("gone.parquet", 1, [], own=True, length=3),
      "^gone.parquet is missing$",
    ),
    (lambda: lerobot_tables.first_cell("gone.parquet", "x"), "^gone.parquet is missing$"),
  ):
    with pytest.raises(video.Unreadable, match=message):
      call()


def test_first_cells(table, tmp_path):
  assert lerobot_tables.first_cell(table, "none") is None
  cell = lerobot_tables.first_cell(table, "nested")
  assert len(cell) == 1 and cell.to_pylist() == [[0, 0]]
  pq.write_table(pa.table({"x": pa.array([], pa.int64())}), tmp_path / "none.parquet")
  assert lerobot_tables.first_cell(str(tmp_path / "none.parquet"), "x") is None


def test_lines(tmp_path):
  path = tmp_path / "lines.jsonl"
  for text, rows, remark in (
    ('{"a": 1}\n\n{"a": 2}\n', [{"a": 1}, {"a": 2}], ""),
    ('{"a": 1}\n\n{"a"\n', [{"a": 1}], "line 3, the last one, is cut and left out"),
    ("", [], ""),
  ):
    path.write_text(text)
    assert lerobot_json.read_json_lines(str(path)) == (rows, remark)


def test_images_of_cells(tmp_path):
  (tmp_path / "a..b.png").write_bytes(b"own")

  def read(cell):
    return lerobot_images.read(str(tmp_path), cell)

  assert read({"bytes": b"x", "path": "none"}) == read(b"x") == b"x"
  assert (
    read({"bytes": None, "path": "a..b.png"})
    == read("a..b.png")
    == read({"bytes": "a..b.png"})
    == b"own"
  )
  for cell, message in (
    ({"path": None}, "^the cell is empty$"),
    ("/etc/hostname", "leads out of the data set$"),
    ("no.png", "^no.png is missing$"),
  ):
    with pytest.raises(ValueError, match=message):
      read(cell)
  with pytest.raises(TypeError, match="^a bytes-like object is required, not 'float'$"):
    read(3.5)


INFO = {
  "major": 3,
  "chunks_size": 2,
  "fps": 10.0,
  "data_path": "data/{chunk_index:03d}/{file_index}.parquet",
  "video_path": "videos/{video_key}/{chunk_index}-{file_index:02d}.mp4",
}


def paths(**changes):
  return locations.Paths("root", INFO | changes)


def row(number, begin, end=None, *, length=6, file=0):
  return {
    "episode_index": number,
    "length": length,
    "videos/top/chunk_index": 1,
    "videos/top/file_index": file,
    "videos/top/from_timestamp": begin,
    "videos/top/to_timestamp": end,
    "data/chunk_index": 0,
    "data/file_index": number,
  }


def test_places_by_template():
  found = paths()
  assert (
    found.data(row(5, 0.0)) == "root/data/000/5.parquet"
    and found.video(row(5, 0.0, file=3), "top") == "root/videos/top/1-03.mp4"
  )
  old = paths(
    major=2, data_path="data/{episode_chunk}/{episode_index:03d}.parquet", video_path=None
  )
  assert (
    old.data({"episode_index": 5}) == "root/data/2/005.parquet"
    and old.data({"episode_index": 1}) == "root/data/0/001.parquet"
  )
  with pytest.raises(
    video.Unreadable, match="^meta/info.json has no video_path for the camera 'top'$"
  ):
    old.video({"episode_index": 5}, "top")
  with pytest.raises(
    video.Unreadable,
    match="^column 'data/file_index' of meta/episodes is 1.5, expected a whole number$",
  ):
    found.data(row(1, 0.0) | {"data/file_index": 1.5})
  with pytest.raises(
    video.Unreadable, match="^the path template '{episode_index:q}' cannot be filled"
  ):
    paths(data_path="{episode_index:q}").data(row(1, 0.0))
  with pytest.raises(video.Unreadable, match="leads out of the data set"):
    paths(video_path="{video_key}/x").video(row(1, 0.0), "..")


def test_stretches_of_shared_files():
  damaged = {7: "known"}
  rows = [
    row(2, 1.4, None, length=4),
    row(0, 0.0, 0.6),
    row(1, 0.6, 1.2, length=8),
    row(3, 0.0, 0.6, file=1),
    row(7, 0.0),
  ]
  found = paths().stretches(rows, ["top"], damaged)
  assert damaged == {7: "known"}
  assert found == {
    ("top", 0): (0.0, 0.6, True, 18, pytest.approx(1.8), None),
    ("top", 1): (0.6, 1.2, True, 18, pytest.approx(1.8), None),
    ("top", 2): (1.4, None, False, 18, pytest.approx(1.8), None),
    ("top", 3): (0.0, 0.6, False, 6, 0.6, 0),
  }
  found = paths().stretches(
    [row(0, 0.0, 0.6), row(1, 0.6, 1.4, length=8), row(2, 1.4, 2.0)], ["top"], damaged
  )
  # rows before each in a file whose borders fit the rows
  assert [found["top", i][5] for i in range(3)] == [0, 6, 14]
  # An end that is not known is where the next begins, or behind the rows; one beyond the next's
  # beginning stops there.
  found = paths().stretches(
    [row(0, 0.0), row(1, 0.7, length=None), row(2, 1.0, 1.3)], ["top"], damaged
  )
  assert found == {
    ("top", 0): (0.0, 0.7, True, 0, 1.3, None),
    ("top", 1): (0.7, 1.0, True, 0, 1.3, None),
    ("top", 2): (1.0, 1.3, False, 0, 1.3, None),
  }
  found = paths().stretches([row(0, 0.0, 0.64), row(1, 0.6, 1.0)], ["top"], damaged)
  # less than half a frame
  assert found["top", 0][:3] == (0.0, 0.6, True) and damaged == {7: "known"}
  assert paths(major=2).stretches(rows, ["top"], damaged) == {}


def test_claims_to_the_same_part_of_a_file():
  damaged = {}
  paths().stretches(
    [row(0, 0.0, 2.0), row(1, 0.5, 0.9), row(2, 1.94, 2.5), row(3, 2.46, 3.0)], ["top"], damaged
  )
  text = (
    "videos/top/1-00.mp4: seconds 0.000 to 2.000 of episode 0 overlap {} of episode {} (columns "
    "'videos/top/from_timestamp' and 'to_timestamp' of meta/episodes)"
  )
  assert damaged == {
    0: text.format("0.500 to 0.900", 1),
    1: text.format("0.500 to 0.900", 1),
    2: text.format("1.940 to 2.500", 2),
  }
  damaged = {}
  paths().stretches([row(0, 0.0, 0.6), row(1, 0.6, 0.6), row(2, 0.7, 0.65)], ["top"], damaged)
  assert damaged == {
    1: (
      "videos/top/1-00.mp4: the episode begins at 0.600 and ends at 0.600 s (columns "
      "'videos/top/from_timestamp' and 'to_timestamp' of meta/episodes)"
    ),
    2: (
      "videos/top/1-00.mp4: the episode begins at 0.700 and ends at 0.650 s (columns "
      "'videos/top/from_timestamp' and 'to_timestamp' of meta/episodes)"
    ),
  }


def test_columns_that_every_episode_needs():
  rows = [row(0, 0.0), row(1, -1.0), row(2, None) | {"twice": "said"}]
  assert paths().check(rows, ["top"]) == {
    1: "column 'videos/top/from_timestamp' of meta/episodes is -1.0, expected seconds",
    2: "said",
  }
  assert (
    paths(major=2).check(rows[2:], ["top"]) == {2: "said"} and paths().check(rows[:1], []) == {}
  )
  lacking = [{k: v for k, v in one.items() if k != "videos/top/file_index"} for one in rows]
  with pytest.raises(
    errors.UserError,
    match=(
      "^root/meta/episodes has no column 'videos/top/file_index', only data/file_index; source "
      "option"
    ),
  ):
    paths().check(lacking, ["top"])
  assert paths(video_path="videos/{video_key}/{chunk_index}.mp4").check(lacking[:1], ["top"]) == {}
  with pytest.raises(errors.UserError, match="has no column 'videos/side/chunk_index'"):
    paths().check(rows, ["top", "side"])


def test_files_that_no_episode_uses():
  files = [
    "data/000/0.parquet",
    "data/000/1.parquet",
    "data/x/a",
    "videos/top/1-00.mp4",
    "meta/info.json",
    *(f"videos/old/{i}.mp4" for i in range(5)),
    "videos/less/a.mp4",
    "videos/less/b.mp4",
    "videos/less/c.mp4",
  ]
  found = paths().unused(
    files, [row(0, 0.0), row(1, 0.0)], {"top": {"dtype": "video"}, "flat": {"dtype": "image"}}
  )
  assert found == [
    {"name": "data/x/a", "reason": "no episode of meta/episodes uses it"},
    {
      "name": "videos/old",
      "reason": "5 files that no episode of meta/episodes uses: 0.mp4, 1.mp4, 2.mp4, ...",
    },
    {
      "name": "videos/less",
      "reason": "3 files that no episode of meta/episodes uses: a.mp4, b.mp4, c.mp4",
    },
  ]


def test_which_files_belong_to_a_data_set(tmp_path):
  for name in (
    "meta/info.json",
    "data/a/0.parquet",
    "data/.x",
    "data/.h/y",
    "videos/v.mp4",
    "images/i.png",
    "other/t/0.parquet",
    "notes.txt",
  ):
    os.makedirs(os.path.dirname(tmp_path / name), exist_ok=True)
    (tmp_path / name).write_text("")
  os.symlink("a", tmp_path / "data" / "again")
  os.symlink(tmp_path, tmp_path / "videos" / "loop")
  os.symlink(tmp_path / "nowhere", tmp_path / "data" / "lost")

  def files(**more):
    return locations.list_files(str(tmp_path), {"features": {}} | more)

  assert files() == ["data/a/0.parquet", "meta/info.json", "videos/v.mp4"]
  assert files(data_path="other/t/{episode_index}", video_path=None) == [
    "data/a/0.parquet",
    "meta/info.json",
    "other/t/0.parquet",
    "videos/v.mp4",
  ]
  assert "images/i.png" in files(features={"x": {"dtype": "image"}})


@pytest.mark.parametrize(
  "feature, name",
  [
    ("observation.images.top", "top"),
    ("images.top", "top"),
    ("observation.image", "image"),
    ("image", "image"),
    ("observation.images.", "observation.images."),
    ("my.images.top", "my.images.top"),
  ],
)
def test_names_of_cameras(feature, name):
  assert layout.camera_name(feature) == name


def test_features_of_vectors():
  number = {"dtype": "float32", "shape": [2, 3], "names": {"b": 1, "a": 0}}
  features = {
    "x.actions": number,
    "robot/state": {"dtype": "int64", "shape": 4},
    "state": {"dtype": "string"},
    "flag": {"dtype": "bool", "shape": [0]},
    "top": {"dtype": "video"},
    "next.reward": {"dtype": "float32"},
    "index": {"dtype": "int64"},
    "odd": {"dtype": "float64", "shape": [1, True]},
  }
  assert layout.numeric(features) == [
    "x.actions",
    "robot/state",
    "flag",
    "next.reward",
    "index",
    "odd",
  ]
  assert layout.vector("action", features, "", "w") == layout.Vector("x.actions", 6, ["a", "b"])
  assert layout.vector("state", features, "", "w") == layout.Vector("robot/state", 4, None)
  assert layout.vector("action", features, "flag", "w") == layout.Vector("flag", None, None)
  assert layout.vector("action", features, "odd", "w").size is None
  # two that may be it
  assert layout.vector("action", features | {"y.action": number}, "", "w") is None
  assert layout.vector("action", features | {"actions": number}, "", "w").key == "actions"
  with pytest.raises(
    errors.UserError,
    match="^w: source option state_key: 'indx' is no feature of the data set: valid: .*flag",
  ):
    layout.vector("state", features, "indx", "w")
  assert layout.unused(features, ["x.actions"]) == ["robot/state", "state", "flag", "odd"]
  assert (
    layout._flat("all") == ["all"]
    and layout._flat(None) == []
    and layout._flat([1, ["a"]]) == ["1", "a"]
  )


def test_cameras_in_the_order_asked_for():
  features = {
    "observation.images.a": {"dtype": "video"},
    "b": {"dtype": "image", "is_depth_map": True},
    "c": {"dtype": "video", "info": {"video.pix_fmt": "gray8"}},
  }
  found = layout.cameras(features, SourceOptions(), "w")
  assert found == [
    layout.Camera("a", "observation.images.a", True, False),
    layout.Camera("b", "b", False, True),
    layout.Camera("c", "c", True, False),
  ]
  assert [
    one.name
    for one in layout.cameras(
      features, SourceOptions(camera_keys=("c", "observation.images.a", "c")), "w"
    )
  ] == ["c", "a"]


@pytest.mark.parametrize(
  "template, valid",
  [
    ("data/{episode_index:06d}.parquet", True),
    ("data/{episode_index:999d}", True),
    ("data/{episode_index:1000d}", False),
    ("{episode_index!r}", False),
    ("{episode_index:{chunk_index}}", False),
    ("a..b/{episode_index}", True),
    ("../{episode_index}", False),
    (3, False),
    ("{", False),
    ("{video_key}", False),
  ],
)
def test_templates(template, valid):
  def check():
    return layout._check_template(
      "info.json", "data_path", template, layout._TEMPLATE_KEYS["data_path"]
    )

  if valid:
    check()
  else:
    with pytest.raises(errors.UserError, match="^info.json: data_path = .* cannot be used"):
      check()


def test_how_deep_data_sets_are_looked_for(tmp_path):
  for name in ("a/b/c", "a/b/d/e", "meta", "x/meta/inner"):
    os.makedirs(tmp_path / name / "meta")
    (tmp_path / name / "meta" / "info.json").write_text("{}")
  assert layout.find_nested(str(tmp_path)) == ["a/b/c", "meta", "x/meta/inner"]
  assert layout.find_nested(str(tmp_path), depth=4) == ["a/b/c", "a/b/d/e", "meta", "x/meta/inner"]
  (tmp_path / "x" / "meta" / "info.json").write_text("{}")
  assert layout.find_nested(str(tmp_path)) == ["a/b/c", "meta", "x"]
  (tmp_path / "meta" / "info.json").write_text("{}")  # its own folder "meta" is a part of it
  assert layout.find_nested(str(tmp_path)) == ["a/b/c", "x"]


def test_info_that_says_little(tmp_path):
  os.makedirs(tmp_path / "meta")

  def write(**info):
    return (tmp_path / "meta" / "info.json").write_text(
      json.dumps({"codebase_version": "v3.0", "fps": 1e-3, "features": {}, "data_path": "x"} | info)
    )

  write()
  found = layout.read_info(str(tmp_path))
  assert (found["fps"], found["chunks_size"], found["major"]) == (1e-3, 1000, 3)
  write(chunks_size=1, codebase_version="v2")
  assert (
    layout.read_info(str(tmp_path))["chunks_size"],
    layout.read_info(str(tmp_path))["major"],
  ) == (1, 2)
  for change in (
    {"fps": float("inf")},
    {"fps": -1},
    {"chunks_size": 1.5},
    {"codebase_version": "v30"},
    {"features": {"a": 1}},
  ):
    write(**change)
    with pytest.raises(errors.UserError):
      layout.read_info(str(tmp_path))


@pytest.mark.parametrize(
  "option, valid",
  [((), True), ((1, 2), True), ((2, 2), False), ((2, 1), False), ((1,), False), ((1, 2, 3), False)],
)
def test_ranges_of_depth(option, valid):
  if valid:
    assert SourceOptions(depth_range=option).depth_range == option
  else:
    with pytest.raises(errors.UserError, match="^source option depth_range="):
      SourceOptions(depth_range=option)
