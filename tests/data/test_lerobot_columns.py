"""Columns of latent motion in a copied LeRobot data set."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from como_jax import errors
from como_jax.data import labels, lerobot_columns
from tests.data.made_rows import plain


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
