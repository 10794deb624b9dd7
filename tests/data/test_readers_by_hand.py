"""Reading shards: numbers across clips, tables, plans of a walk, held-out lists, with every number
known.
"""

import dataclasses
import json
import os
import pickle
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from como_jax import data, errors
from como_jax.data import (
  evaluation,
  index,
  policy_pipeline,
  reader,
  sequences,
  shards,
  sources,
  video,
)
from como_jax.data.times import FrameTimes
from tests.data import flat, makers, test_index


@pytest.fixture(scope="module", name="path")
def _path(tmp_path_factory):
  """Two segments an episode of 20 frames, clips of 6; the second episode's times are uneven."""
  uneven = np.arange(20) / 10 + 0.03 * (np.arange(20) % 3 == 1)
  return makers.shards(
    tmp_path_factory.mktemp("data") / "s",
    (20, 20),
    cuts=[(14,), ()],
    clip_frames=6,
    episodes_per_shard=1,
    times=lambda i, n: uneven if i else np.arange(n) / 10,
    group=["g", ""],
  )


def test_numbers_of_any_frames(path):
  found, read = makers.segments(path)
  assert found.count.tolist() == [14, 6, 20]
  whole = [makers.vectors(20, 0)[0][:14], makers.vectors(20, 0)[0][14:], makers.vectors(20, 1)[0]]
  for first, last in (
    (0, 14),
    (5, 7),
    (6, 12),
    (6, 13),
    (0, 1),
    (13, 14),
    (-3, 2),
    (12, 99),
    (5, 6),
    (11, 12),
  ):
    np.testing.assert_array_equal(
      read.numbers(0, "action", first, last), whole[0][max(first, 0) : last]
    )
  np.testing.assert_array_equal(read.numbers(1, "action", 1, 6), whole[1][1:6])
  np.testing.assert_array_equal(read.numbers(2, "action", 17, 20), whole[2][17:])
  assert read.numbers(0, "torque", 0, 3) is None


def test_images_of_any_frames_in_any_order(path):
  _, read = makers.segments(path)
  assert [makers.number(image) for image in read.images(0, "camera", [13, 0, 6, 5, 6])] == [
    13,
    0,
    6,
    5,
    6,
  ]
  assert [makers.number(image) for image in read.images(1, "camera", [0, 5])] == [14, 19]
  assert read.images(0, "camera", []).shape == (0, 16, 16, 3)
  assert read.frame_size(0, "camera", [7], to=(8, 8)) == ((16, 16), 2) and read.frame_size(
    0, "camera", [], to=(0, 0)
  ) == ((16, 16), 1)
  assert read.images(0, "camera", [3], to=(4, 4)).shape == (1, 4, 4, 3)


def test_times_of_segments_and_clips(path):
  found, read = makers.segments(path)
  assert [read.times(s).explicit is None for s in range(3)] == [True, True, False]
  assert read.times(1).first == pytest.approx(1.4) and read.times(2) is read.times(2)  # read once
  np.testing.assert_allclose(
    read.clip_times(found.rows(2)[1]), np.arange(6, 12) / 10 + 0.03 * (np.arange(6, 12) % 3 == 1)
  )
  np.testing.assert_allclose(read.clip_times(1), np.arange(6, 12) / 10)
  read = pickle.loads(pickle.dumps(read))
  np.testing.assert_allclose(read.times(2).at(np.array([1, 2])), [0.13, 0.2])


def test_open_files_are_few_and_the_oldest_is_closed(path, monkeypatch):
  opened = []
  monkeypatch.setattr(reader, "_OPEN_FILES", 2)
  monkeypatch.setattr(
    reader.shard_file, "ShardFile", lambda file, entry: opened.append((file, entry)) or len(opened)
  )
  cache = reader.ShardCache("p", [{"shard": i, "file": f"f{i}"} for i in range(4)])
  assert [cache[i] for i in (0, 1, 0, np.int64(1))] == [1, 2, 1, 2] and opened[0] == (
    "p/f0",
    {"shard": 0, "file": "f0"},
  )
  assert [cache[i] for i in (0, 2, 0, 1, 0)] == [1, 3, 1, 4, 1]  # 1 was used longest ago
  with pytest.raises(video.Unreadable, match="^p: the manifest lists no shard-00009.shard$"):
    _ = cache[9]
  assert pickle.loads(pickle.dumps(cache))[3] == 5


def test_explicit_times_of_some_rows(path, monkeypatch):
  table = shards.read_table(path)
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


def test_rows_are_sorted_and_their_places_in_the_file_kept(path, tmp_path):
  table = pq.read_table(f"{path}/records.parquet")
  order = np.random.default_rng(0).permutation(len(table))
  pq.write_table(table.take(pa.array(order)), tmp_path / "records.parquet", row_group_size=3)
  whole, found = shards.read_table(path), shards.read_table(str(tmp_path), cameras=("b", "a"))
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


def test_pairs_by_hand():
  found = sequences.Pairs.of(FrameTimes(0.0, 0.1, 6), 0.2)
  assert (
    found.second[:4].tolist() == [2, 3, 4, 5] and found.valid.tolist() == [True] * 4 + [False] * 2
  )
  np.testing.assert_allclose(found.difference, [0.2] * 4 + [0, 0], rtol=1e-6)
  assert found.difference.dtype == np.float32 and (found.left_out, found.at_end) == (0, 2)
  found = sequences.Pairs.of(FrameTimes(0.0, 0.1, 6), 0.15)
  assert (found.left_out, found.at_end, found.valid.any()) == (4, 2, False)
  gap = np.array([0.0, 0.1, 0.2, 0.9, 1.0, 1.1])
  found = sequences.Pairs.of(FrameTimes(0.0, 0.0, 6, gap), 0.2)
  assert found.valid.tolist() == [True, False, False, True, False, False] and (
    found.left_out,
    found.at_end,
  ) == (2, 2)


def test_plans_by_hand():
  clips = [("x", 0, 10, 10), ("x", 10, 4, 10), ("y", 0, 8, 20), ("z", 0, 9, 10)]
  records = test_index.table(clips)
  records.shard[2:], records.clip[:] = 1, [0, 1, 1, 0]
  plan = sequences.plan(records, offset_seconds=0.2, cameras=("b",))
  assert (
    plan.reach == 4
    and plan.cameras == ("b",)
    and plan.offset_seconds == 0.2
    and plan.explicit == {}
  )
  assert [
    dataclasses.astuple(one) if dataclasses.is_dataclass(one) else one for one in plan.sequences(1)
  ] == [(2, "b", 9), (1, "b", 8)]
  assert [
    (one.segment, one.camera, one.length)
    for one in sequences.plan(records, offset_seconds=0.2).sequences(0)
  ] == [(0, "a", 14), (0, "b", 14)]
  single = test_index.table([("x", 0, 1, 10)])
  single.interval[0] = 0
  with pytest.raises(
    errors.UserError,
    match=(
      "^data set: no pair of frames is 0.2 s apart: the longest segment has 1 frames. Set config"
    ),
  ):
    sequences.plan(single, offset_seconds=0.2)
  records.shard[1] = 1
  with pytest.raises(
    errors.UserError,
    match=(
      "^data set: episode 'x' lies in several shards, expected all of it in one: ingest it again$"
    ),
  ):
    sequences.plan(records, offset_seconds=0.2)


@pytest.mark.parametrize(
  "size, count, expected",
  [
    (10, None, range(10)),
    (10, 10, range(10)),
    (10, 12, range(10)),
    (10, 5, [1, 3, 5, 7, 9]),
    (10, 3, [1, 5, 8]),
    (7, 1, [3]),
  ],
)
def test_evenly_spread(size, count, expected):
  assert evaluation._spread(size, count).tolist() == list(expected)


@pytest.mark.parametrize(
  "counts, most, expected",
  [
    ([5, 9, 2], None, [5, 9, 2]),
    ([5, 9, 2], 99, [5, 9, 2]),
    ([5, 9, 2], 16, [5, 9, 2]),
    ([5, 9, 2], 9, [3, 4, 2]),
    ([5, 9, 2], 12, [5, 5, 2]),
    ([5, 9, 2], 15, [5, 8, 2]),
    ([4, 4], 5, [2, 3]),
    ([0, 7], 4, [0, 4]),
    ([5, 9, 2], 1, [0, 1, 0]),
  ],
)
def test_shares_of_a_cap(counts, most, expected):
  assert policy_pipeline._shares(counts, most) == expected


def test_ids_of_held_out_windows(path, tmp_path):
  other = makers.shards(
    tmp_path / "o", (8, 8), task=lambda i: "task 1", cameras=("wrist", "camera"), group=["g", "g"]
  )
  sets = [
    data.DataSet(path, offset_seconds=0.1, name="first"),
    data.DataSet(other, offset_seconds=0.1, cameras=("wrist",)),
  ]
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    found = flat.windows(
      sets, batch_size=50, image_size=16, frames=2, split="all", threads=0, validation_fraction=0.0
    )
  with found.batches() as batches:
    (rows,) = batches
  valid = rows["valid"]
  assert (
    found.datasets == ["first", "o"]
    and found.tasks == ["task 0", "task 1"]
    and found.cameras == ["camera", "wrist"]
  )
  assert found.episodes == ["episode_0", "episode_1"] * 2  # names are a data set's own
  assert (found.action_size, found.state_size, found.steps) == (
    3,
    2,
    1,
  ) and found.size == valid.sum() < 50
  second = valid & (rows["dataset"] == 1)
  assert (
    second.sum() == 14
    and set(rows["episode"][second]) == {2, 3}
    and set(rows["camera"][second]) == {1}
  )
  assert set(rows["task"][second]) == {1} and len(set(rows["group"][second])) == 1
  first = valid & (rows["dataset"] == 0)
  assert (
    set(rows["episode"][first]) == {0, 1}
    and set(rows["task"][first]) == {0, 1}
    and set(rows["camera"][first]) == {0}
  )
  assert len(set(rows["group"][valid])) == 3 and not set(rows["group"][first]) & set(
    rows["group"][second]
  )
  # of the episode; a cut
  assert (
    14 in rows["time"][first & (rows["episode"] == 0)]
    and 13 not in rows["time"][first & (rows["episode"] == 0)]
  )
  assert (
    set(rows["stride"][valid]) == {1}
    and not rows["damaged"].any()
    and not rows["seconds"][~valid].any()
  )
  pictures = found.pictures(3)
  assert (
    pictures["dataset"] == ["first", "first", "o"]
    and pictures["camera"][-1] == "wrist"
    and pictures["task"][-1] == "task 1"
  )
  assert pictures["stride"].tolist() == [1, 1, 1] and pictures["episode"][-1] in (
    "episode_0",
    "episode_1",
  )
  assert evaluation._sizes(path) == {"action": 3, "state": 2}


def test_sizes_of_arrays(monkeypatch):
  manifest = {"action": {"size": [3, 7]}, "state": {"size": None}}
  monkeypatch.setattr(evaluation.shards, "read_manifest", lambda path: manifest)
  assert evaluation._sizes("p") == {"action": 7, "state": 0}


def test_single_frames_to_evaluate(path):
  found = flat.windows(
    [data.DataSet(path)],
    batch_size=6,
    image_size=16,
    frames=1,
    split="all",
    threads=0,
    max_windows=6,
  )
  with found.batches() as batches:
    (rows,) = batches
  assert (
    rows["stride"].tolist() == [1] * 6
    and rows["seconds"].shape == (6, 0)
    and rows["state"].shape == (6, 1, 2)
  )
  assert rows["frames"].shape == (6, 1, 16, 16, 3) and found.size == 6


def test_what_a_data_set_holds(path):
  with warnings.catch_warnings():
    warnings.simplefilter("error")  # what is left out is among the answers
    said = flat.description(data.DataSet(path + "/", offset_seconds=0.1), validation_fraction=0.0)
  assert {
    key: said[key]
    for key in (
      "name",
      "source",
      "image_size",
      "codec",
      "cameras",
      "tasks",
      "episodes",
      "clips",
      "frames",
      "quarantined",
      "offset_seconds",
      "stride_frames",
    )
  } == {
    "name": "s",
    "source": "made by a test",
    "image_size": 0,
    "codec": "jpeg",
    "cameras": ["camera"],
    "tasks": 2,
    "episodes": 2,
    "clips": 8,
    "frames": 40,
    "quarantined": 0,
    "offset_seconds": 0.1,
    "stride_frames": [1],
  }
  assert (
    said["action"]["size"] == 3
    and said["state"]["names"] == ["x", "y"]
    and said["seconds"] == pytest.approx(4.0, abs=0.1)
  )
  assert (
    said["windows"]["validation"] == 0
    and said["windows"]["train"] == 13 + 5 + 6
    and said["windows_left_out"] == 13
  )
  assert (
    said["fingerprint"] == shards.read_manifest(path)["source"]["fingerprint"]
    and said["segments_without_window"] == 0
  )
  split = flat.description(
    data.DataSet(path, offset_seconds=1.3, name="n"), validation_fraction=0.5, frames=2
  )
  assert (
    split["name"] == "n"
    and split["windows"]["train"] + split["windows"]["validation"] == 1 + 7
    and split["segments_without_window"] == 1
  )


def test_shards_as_a_source(path):
  source = sources.open_source(path)
  assert (
    source.info["description"] == "como_jax shards of made by a test"
    and len(source) == 2
    and source.info["format"] == "shards"
  )
  assert (
    source.info["action_names"] == ["a", "b", "c"]
    and source.info["state_names"] == ["x", "y"]
    and source.skipped == []
  )
  one, two = source[0], source[1]
  assert (one.cuts, one.group, one.task, one.episode) == ((14,), "g", "task 0", "episode_0") and (
    two.cuts,
    two.group,
  ) == ((), "")
  np.testing.assert_array_equal(two.arrays["state"], makers.vectors(20, 1)[1])
  seconds, images = zip(*two.cameras["camera"](video.Geometry(8)), strict=True)
  np.testing.assert_allclose(seconds, np.arange(20) / 10 + 0.03 * (np.arange(20) % 3 == 1))
  assert [makers.number(image) for image in images] == list(range(20)) and images[0].shape == (
    8,
    8,
    3,
  )
  before = source.fingerprint()
  stat = os.stat(f"{path}/records.parquet")
  os.utime(f"{path}/records.parquet", (1, 1))
  assert source.fingerprint() != before
  os.utime(f"{path}/records.parquet", ns=(stat.st_atime_ns, stat.st_mtime_ns))
  assert source.fingerprint() == before
  assert json.loads(json.dumps(source.info)) == source.info and index.SPLITS == (
    "train",
    "validation",
    "all",
  )
