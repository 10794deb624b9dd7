"""Single frames of shards: the same bytes as from whole records, and damage is seen."""

import os

import pytest

from como_jax.data import video
from como_jax.data.sources import shards, single_frames
from tests.data import makers


@pytest.mark.parametrize("options, alone", [("group_size:1,uncompressed", True), ("group_size:1", False), ("group_size:3,uncompressed", False)])
def test_frames_are_read_alone_after_the_first_time(tmp_path, options, alone):
  path = makers.shards(tmp_path / "s", (128,) * 7, size=(64, 64), cameras=("a", "b"))
  whole = shards.Reader(path)
  if options != "group_size:1,uncompressed":  # as another writer would have written them
    file = f"{path}/shard-00000.array_record"
    records = shards.array_record_module.ArrayRecordReader(file).read(0, 7)
    writer = shards.array_record_module.ArrayRecordWriter(file, options)
    for record in records:
      writer.write(record)
    writer.close()
  assert os.path.getsize(f"{path}/shard-00000.array_record") > 3 * 2**16 or not alone  # frames lie across borders of blocks
  reader = single_frames.Reader(path)
  for record in (3, 0, 6, 5):
    expected = whole.clip(0, record)
    for turn in range(2):
      found = reader.clip(0, record)
      assert isinstance(found.frames["a"].blobs, single_frames._Blobs) == (alone and turn == 1)
      for camera in ("a", "b"):
        assert [bytes(found.frames[camera].blobs[i]) for i in range(128)] == [bytes(blob) for blob in expected.frames[camera].blobs]


def test_a_shard_that_ends_early_is_damage(tmp_path):
  path = makers.shards(tmp_path / "s", (128,) * 3, size=(64, 64))
  reader = single_frames.Reader(path)
  reader.clip(0, 2)
  frames = reader.clip(0, 2).frames["camera"]
  os.truncate(f"{path}/shard-00000.array_record", int(frames.blobs.edges[60]))
  with pytest.raises(video.Unreadable, match="damaged jpeg frame"):
    frames.decode([100])
