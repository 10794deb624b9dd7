"""The table and the segments of a folder of shards; damage and other versions."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from como_jax import errors
from como_jax.data import shards, sources
from tests.data import ingests, makers
from tests.data.test_index import table

COMPAT = pathlib.Path(__file__).parent.parent / "compat"


def test_shards_of_version_1_are_refused_in_one_line(tmp_path):
  old = str(COMPAT / "shards_v1")
  with pytest.raises(
    errors.UserError,
    match="manifest.json has version 1, this program reads version 2: ingest the source again$",
  ):
    shards.read_table(old)
  with pytest.raises(errors.UserError, match="ingest the source again"):
    ingests.ensure_shards(old, image_size=16, cache_dir=str(tmp_path))
  shutil.copytree(old, tmp_path / "begun")
  os.remove(tmp_path / "begun" / "manifest.json")
  before = sorted(os.listdir(tmp_path / "begun"))
  with pytest.raises(
    errors.UserError, match="begun by another version of como_jax .format 1, now 2."
  ):
    ingests.run(makers.Synthetic((3, 2)), str(tmp_path / "begun"), workers=0, progress=False)
  assert sorted(set(os.listdir(tmp_path / "begun")) - {".lock"}) == before


def test_damaged_and_other_shards_are_named(tmp_path):
  path = makers.shards(tmp_path / "s", (40, 40, 40), size=(64, 64))
  makers.damage(path, "episode_1", frame=30)
  segments, read = makers.segments(path)
  assert (
    read.images(0, "camera", [30]).shape == (1, 64, 64, 3)
    and len(read.images(1, "camera", range(30))) == 30
  )
  with pytest.raises(
    sources.UnreadableError,
    match=r"shard-00000.shard clip 1 camera 'camera': the checksum of blob 30 differs",
  ):
    read.images(1, "camera", [29, 30])
  assert "shard-00000.shard has changed" in shards.verify(path)[0]
  os.remove(f"{path}/shard-00000.shard")
  with pytest.raises(sources.UnreadableError, match="shard-00000.shard"):
    makers.segments(path)[1].images(0, "camera", [0])
  manifest = json.loads(pathlib.Path(f"{path}/manifest.json").read_text())
  for version, advice in ((99, "update como_jax"), (1, "ingest the source again")):
    pathlib.Path(f"{path}/manifest.json").write_text(json.dumps(manifest | {"version": version}))
    with pytest.raises(
      errors.UserError, match=f"version {version}, this program reads version 2: {advice}"
    ):
      shards.read_manifest(path)


def test_a_flipped_bit_of_the_table_is_seen(tmp_path):
  path = makers.shards(tmp_path / "s", (12, 9, 15, 7))
  data = pathlib.Path(f"{path}/records.parquet").read_bytes()
  whole, refused = shards.read_table(path), 0
  for at in range(8, len(data) - 8, max(1, len(data) // 60)):
    pathlib.Path(f"{path}/records.parquet").write_bytes(
      data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
    )
    try:
      found = shards.read_table(path)
    except errors.UserError as error:
      assert "records.parquet is not the table" in str(error)
      refused += 1
      continue
    for field in dataclasses.fields(whole):
      np.testing.assert_equal(getattr(found, field.name), getattr(whole, field.name))
  assert refused > 10


def test_explicit_times_of_some_rows(uneven_path, monkeypatch):
  table = shards.read_table(uneven_path)
  rows = np.flatnonzero(~table.uniform)
  assert len(rows) == 3 == len(table) - 5
  found = table.explicit_times(rows[[2, 1]])
  assert set(found) == {rows[2], rows[1]}
  np.testing.assert_allclose(
    found[rows[1]], np.arange(6, 12) / 10 + 0.03 * (np.arange(6, 12) % 3 == 1)
  )
  whole = pq.ParquetFile.iter_batches
  monkeypatch.setattr(
    pq.ParquetFile, "iter_batches", lambda self, size, **more: whole(self, 3, **more)
  )
  # whichever batch they lie in
  np.testing.assert_array_equal(table.explicit_times(rows)[rows[2]], found[rows[2]])


def test_rows_are_sorted_and_their_places_in_the_file_kept(uneven_path, tmp_path):
  table = pq.read_table(f"{uneven_path}/records.parquet")
  order = np.random.default_rng(0).permutation(len(table))
  pq.write_table(table.take(pa.array(order)), tmp_path / "records.parquet", row_group_size=3)
  whole, found = (
    shards.read_table(uneven_path),
    shards.read_table(str(tmp_path), cameras=("b", "a")),
  )
  assert found.cameras == ("a", "b") and whole.cameras == ("camera",)
  for name in ("start", "shot", "clip", "shard", "length", "uniform", "split_key", "has_action"):
    if name in ("start", "shot", "length", "uniform"):
      assert sorted(getattr(found, name).tolist()) == sorted(getattr(whole, name).tolist())
  names = [found.episodes[e] for e in found.episode]
  assert [(names[i], int(found.shot[i]), int(found.start[i])) for i in range(len(found))] == sorted(
    ((names[i], int(found.shot[i]), int(found.start[i])) for i in range(len(found))),
    key=lambda key: (found.episodes.index(key[0]), *key[1:]),
  )
  stored = table.take(pa.array(order)).to_pylist()
  for i, place in enumerate(found.order):
    row = stored[place]
    assert (row["episode"], row["start"], row["shot"], row["seconds"] is None) == (
      names[i],
      found.start[i],
      found.shot[i],
      found.uniform[i],
    )
  rows = np.flatnonzero(~found.uniform)
  for row, seconds in found.explicit_times(rows).items():
    np.testing.assert_array_equal(seconds, stored[found.order[row]]["seconds"])


def test_what_is_no_table_or_manifest(tmp_path):
  (tmp_path / "records.parquet").write_bytes(b"x" * 40)
  with pytest.raises(
    errors.UserError,
    match="records.parquet is not the table of a folder of shards .Parquet magic bytes",
  ):
    shards.read_table(str(tmp_path), cameras=())
  manifest = tmp_path / "manifest.json"
  for text, message in (
    ("{", "is not a manifest of como_jax shards .Expecting"),
    ("[]", "is not a manifest"),
    ('{"kind": "x"}', "is not a manifest"),
    ('{"kind": "x", "version": 2}', "is of kind 'x', expected 'como_jax shards'$"),
    (
      '{"kind": "como_jax shards", "version": 3}',
      "has version 3, this program reads version 2: update como_jax$",
    ),
  ):
    manifest.write_text(text)
    with pytest.raises(errors.UserError, match=message):
      shards.read_manifest(str(tmp_path))
  manifest.write_text('{"kind": "como_jax shards", "version": 2}')
  assert shards.read_manifest(str(tmp_path))["version"] == 2
  assert shards.shard_name(12) == "shard-00012.shard"


def test_hashes_of_large_files(tmp_path):
  import xxhash

  content = np.random.default_rng(0).bytes((1 << 20) + 77)
  (tmp_path / "f").write_bytes(content)
  assert shards.file_hash(str(tmp_path / "f")) == xxhash.xxh64_hexdigest(content)


def test_verify_names_every_file(tmp_path):
  path = makers.shards(tmp_path / "s", (3, 3, 3), episodes_per_shard=1)
  assert shards.verify(path) == []
  os.remove(f"{path}/shard-00000.shard")
  with open(f"{path}/shard-00002.shard", "ab") as file:
    file.write(b"x")
  assert shards.verify(path) == [
    f"{path}/shard-00000.shard is missing",
    f"{path}/shard-00002.shard has changed since it was written (xxh64 differs)",
  ]


def test_segments_end_where_anything_changes():
  clips = [
    ("x", 0, 10, 10),
    ("x", 10, 5, 10),
    ("x", 15, 6, 10),
    ("y", 21, 4, 10),
    ("y", 25, 4, 10),
    ("y", 30, 2, 10),
  ]
  records = table(clips, cameras=("a",), shot=lambda i: int(i >= 5))
  found = shards.segments(records)
  assert [
    found.first_row.tolist(),
    found.last_row.tolist(),
    found.start.tolist(),
    found.count.tolist(),
  ] == [[0, 3, 5], [3, 5, 6], [0, 21, 30], [21, 8, 2]]
  assert (
    len(found) == 3
    and found.uniform.tolist() == [True] * 3
    and list(found.rows(1)) == [3, 4]
    and found.length(1) == 8
  )
  assert [found.locate(0, frame) for frame in (0, 9, 10, 14, 15, 20)] == [
    (0, 0),
    (0, 9),
    (1, 0),
    (1, 4),
    (2, 0),
    (2, 5),
  ]
  assert (
    found.locate(1, 4) == (4, 0)
    and found.first_frame(1, 4) == 4
    and found.clip_location(4) == (0, 4)
  )
  for frame in (-1, 8):
    with pytest.raises(IndexError, match=f"^frame {frame} of a segment of 8$"):
      found.locate(1, frame)
  kept = shards.segments(records, np.array([True, False, True, True, True, False]))
  assert [kept.first_row.tolist(), kept.last_row.tolist()] == [[0, 2, 3], [1, 3, 5]]
  none = shards.segments(records, np.zeros(6, bool))
  assert len(none) == 0 and none.uniform.dtype == bool
  times_ = found.uniform_times(1)
  assert (times_.first, times_.interval, times_.count) == (
    pytest.approx(2.1),
    pytest.approx(0.1),
    8,
  )
  assert records.seconds == pytest.approx(3.1) and records.rates.tolist() == pytest.approx([10] * 6)


@pytest.mark.parametrize(
  "change, uniform",
  [
    ({}, True),
    ({"interval": (1, 2e-9)}, False),
    ({"interval": (1, 5e-10)}, True),
    ({"first": (1, 2e-6)}, False),
    ({"first": (1, 5e-7)}, True),
    ({"uniform": (0, 1)}, False),
    ({"uniform": (1, 1)}, False),
  ],
)
def test_a_segment_is_uniform_where_its_clips_go_on_alike(change, uniform):
  records = table(
    [("x", 0, 10, 10), ("x", 10, 5, 10), ("y", 0, 10, 10), ("y", 10, 5, 20)], cameras=("a",)
  )
  for name, (row, by) in change.items():
    column = getattr(records, name)
    column[row] = not column[row] if name == "uniform" else column[row] + by
  found = shards.segments(records)
  assert found.uniform.tolist() == [uniform, False] and (found.uniform_times(0) is None) == (
    not uniform
  )
