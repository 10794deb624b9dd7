"""The index is made from the shards: at ingest, again by a rerun, and not where shards differ."""

import os
import pathlib

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import frame_index, index_writer, number_file, shard_file, shards
from tests.data import makers
from tests.data.small_clips import small_clip


def test_a_rerun_adds_what_is_missing_and_changes_nothing_else(tmp_path):
  source = makers.Synthetic((12, 9, 15, 7))
  path = pathlib.Path(makers.shards(tmp_path / "s", source=source, episodes_per_shard=2))
  before = {file.name: file.read_bytes() for file in path.iterdir()}
  assert frame_index.FILE in before and "shard-00001.numbers" in before
  os.remove(path / frame_index.FILE)
  os.remove(path / "shard-00001.numbers")
  makers.shards(path, source=source, episodes_per_shard=2)
  assert {file.name: file.read_bytes() for file in path.iterdir()} == before
  (path / frame_index.FILE).write_bytes(before[frame_index.FILE][:-40])
  makers.shards(path, source=source, episodes_per_shard=2)
  assert (path / frame_index.FILE).read_bytes() == before[frame_index.FILE]


def entry(path, number, *clips):
  file = path / shards.shard_name(number)
  writer = shard_file.Writer(str(file))
  for clip in clips:
    writer.add(clip)
  return {"shard": number, "file": file.name, **writer.close()}


def test_shards_that_differ_in_kind_have_no_index(tmp_path):
  entries = [
    entry(tmp_path, i, small_clip(arrays={"v": np.arange(2).astype(dtype)}))
    for i, dtype in enumerate((np.int64, np.float32))
  ]
  assert not index_writer.write(str(tmp_path), entries)
  assert frame_index.open_index(str(tmp_path), entries) is None
  assert index_writer.write(str(tmp_path), entries[:1])


def test_arrays_that_some_shards_lack(tmp_path):
  rows = np.arange(4.0).reshape(2, 2)
  entries = [
    entry(tmp_path, 4, small_clip(arrays={})),
    entry(tmp_path, 7, small_clip(arrays={}), small_clip(arrays={"v": rows})),
  ]
  assert index_writer.write(str(tmp_path), entries)
  index = frame_index.open_index(str(tmp_path), entries)
  assert index.clips(7) == range(1, 3) and index.sketches("w") is None
  assert index.sketches("v").shape[0] == 1 and index.sketches("v")[0, 0].tolist() == [2, 2]
  opened = frame_index.IndexedShard(index, 7, str(tmp_path / shards.shard_name(7)))
  assert opened.array(0, "v") is None and opened.array(1, "v").tolist() == rows.tolist()
  assert os.path.isfile(number_file.path_of(opened.path))


def test_labels_keep_their_numbers_in_the_shard(tmp_path):
  rows = np.arange(40.0).reshape(20, 2)
  entries = [entry(tmp_path, 0, small_clip(length=20, frames={}, arrays={"z": rows}))]
  assert index_writer.write(str(tmp_path), entries, own_numbers=False)
  assert sorted(os.listdir(tmp_path)) == [frame_index.FILE, shards.shard_name(0)]
  index = frame_index.open_index(str(tmp_path), entries)
  opened = frame_index.IndexedShard(index, 0, str(tmp_path / shards.shard_name(0)))
  assert opened.array_rows(0, "z", 9, 11).tolist() == rows[9:11].tolist()


def test_a_clip_beyond_its_numbers_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(index_writer, "_LARGEST", 3)
  entries = [entry(tmp_path, 0, small_clip())]
  with pytest.raises(errors.UserError, match="a clip has more than 3 bytes: use shorter clips$"):
    index_writer.write(str(tmp_path), entries)
