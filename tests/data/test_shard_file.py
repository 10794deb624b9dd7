"""A shard's bytes: what is written is read, one frame at a time, and damage anywhere is seen."""

import dataclasses
import os
import struct

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import frame_codec, shard_file, sources, video
from tests.data import ingests, makers
from tests.data.small_clips import small_clip


def frames(codec="jpeg", quality=95, count=25, size=(16, 24)):
  encoder = frame_codec.FrameEncoder(codec, quality)
  for t in range(count):
    encoder.add(makers.picture(t, *size))
  return encoder.finish()


def write(path, codec="jpeg", quality=95, size=(16, 24)):
  """Three clips of two cameras; the second has no state."""
  writer = shard_file.Writer(str(path))
  for i, count in enumerate((25, 7, 1)):
    arrays = {
      "action": np.arange(count * 3, dtype=np.float32).reshape(count, 3) + i,
      "valid": np.full(count, i, np.uint8),
    }
    if i != 1:
      arrays["state"] = np.full((count, 2), i, np.float64)
    facts = {"motion": np.arange(count, dtype=np.float32) + i}
    writer.add(
      shard_file.Clip(
        100 * i,
        count,
        {name: frames(codec, quality, count, size) for name in ("top", "wrist")},
        arrays,
        facts,
        {"action": np.full((4, 3), float(i))},
      )
    )
  return writer.close()


@pytest.mark.parametrize(
  "codec,quality,size", [("jpeg", 95, (16, 24)), ("h264", 10, (16, 24)), ("h264", 10, (17, 23))]
)
def test_round_trip_reads_the_wanted_frames(tmp_path, codec, quality, size):
  entry = write(tmp_path / "s", codec, quality, size)
  for file in (
    shard_file.ShardFile(str(tmp_path / "s"), entry),
    shard_file.ShardFile(str(tmp_path / "s")),
  ):
    assert len(file) == 3 and set(file.cameras) == {"top", "wrist"} and file.codec("top") == codec
    assert file.size(0, "top") == size and [file.length(i) for i in range(3)] == [25, 7, 1]
    wanted = [24, 0, 13, 13, 2]
    blobs = file.blobs(0, "wrist", frame_codec.blob_indices(codec, wanted))
    out = np.empty((5, *size, 3), np.uint8)
    frame_codec.decode(codec, blobs, wanted, list(out))
    assert [makers.number(image) for image in out] == wanted
    np.testing.assert_array_equal(file.array(0, "action"), np.arange(75).reshape(25, 3))
    np.testing.assert_array_equal(file.array(1, "valid"), np.ones(7))
    assert (
      file.array(1, "state") is None
      and file.array(2, "state").dtype == np.float64
      and file.array(0, "nothing") is None
    )
    np.testing.assert_array_equal(file.frame_fact(1, "motion"), np.arange(7) + 1)
    assert [float(part[0, 0]) for part in file.statistics("action")] == [0, 1, 2]


def test_a_frame_costs_its_own_bytes(tmp_path):
  entry = write(tmp_path / "s")
  file = shard_file.ShardFile(str(tmp_path / "s"), entry)
  before = file.bytes_read
  assert before == entry["index_size"]
  blobs = file.blobs(0, "top", [3, 17, 18])
  assert file.bytes_read - before == sum(map(len, blobs.values()))


def test_same_clips_same_bytes(tmp_path):
  for codec in shard_file.CODECS:
    write(tmp_path / "a", codec, 20)
    write(tmp_path / "b", codec, 20)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_version_is_refused_and_a_cut_file_is_unreadable(tmp_path):
  entry = write(tmp_path / "s")
  data = (tmp_path / "s").read_bytes()
  for version, content in (
    (shard_file.VERSION + 1, data[:8] + struct.pack("<H", shard_file.VERSION + 1) + data[10:]),
  ):
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(
      errors.UserError, match=f"version {version}, this program reads version {shard_file.VERSION}"
    ):
      shard_file.ShardFile(str(tmp_path / "v"), entry)
  for content in (data[:5], data[:-10], data[: len(data) // 2], b"x" + data[1:], b""):
    (tmp_path / "v").write_bytes(content)
    for place in (entry, None) if len(content) < len(data) - 32 or content[:1] == b"x" else (None,):
      with pytest.raises(video.UnreadableError, match=str(tmp_path / "v")):
        shard_file.ShardFile(str(tmp_path / "v"), place)
  with pytest.raises(video.UnreadableError, match="No such file"):
    shard_file.ShardFile(str(tmp_path / "nothing"))


def test_every_flipped_bit_is_seen(tmp_path):
  """One bit in each part of the file: frames, numbers, index, its place."""
  entry = write(tmp_path / "s")
  data = (tmp_path / "s").read_bytes()
  file = shard_file.ShardFile(str(tmp_path / "s"), entry)

  def everything(path, entry):
    opened = shard_file.ShardFile(str(path), entry)
    for clip in range(3):
      for name in opened.arrays:
        opened.array(clip, name)
      for camera in opened.cameras:
        opened.blobs(clip, camera, range(opened.length(clip)))

  everything(tmp_path / "s", entry)
  first_frame, action = int(file.index["offset/top"][0]), int(file.index["array_offset/action"][0])
  for at in (
    first_frame,
    first_frame + 50,
    action,
    action + 77,
    entry["index_offset"] + 20,
    entry["index_offset"] + entry["index_size"] - 3,
  ):
    (tmp_path / "d").write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
    with pytest.raises(video.UnreadableError, match="damaged"):
      everything(tmp_path / "d", entry)
  at = os.path.getsize(tmp_path / "s") - 20
  (tmp_path / "d").write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
  with pytest.raises(video.UnreadableError):
    everything(tmp_path / "d", None)


def test_a_size_that_changes_within_a_clip_is_unreadable():
  encoder = frame_codec.FrameEncoder("jpeg", 95)
  encoder.add(makers.picture(0, 16, 16))
  with pytest.raises(video.UnreadableError, match="size changes"):
    encoder.add(makers.picture(0, 16, 18))


def test_bytes_that_are_no_picture_are_unreadable():
  with pytest.raises(video.UnreadableError, match="damaged jpeg"):
    frame_codec.decode("jpeg", {0: b"not a jpeg"}, [0], [np.empty((16, 24, 3), np.uint8)])


def test_episodes_that_are_measured_in_part_are_refused(tmp_path):
  """Some continuous, some not: what the index would have to hold of the others is not there."""
  source = sources.open_source(makers.video_folder(tmp_path / "videos"))

  class Mixed(type(source)):
    def __getitem__(self, i):
      return dataclasses.replace(super().__getitem__(i), continuous=i == 0)

  source.__class__ = Mixed
  with pytest.raises(errors.UserError, match="was measured in some episodes and not in others"):
    ingests.run(source, str(tmp_path / "out"), workers=0, progress=False)


def test_shards_refuse_what_does_not_fit(tmp_path):
  writer = shard_file.Writer(str(tmp_path / "s"))
  writer.add(small_clip())
  with pytest.raises(ValueError, match=r"^cameras \['b'\] in a shard of \['a'\]$"):
    writer.add(small_clip(frames={"b": small_clip().frames["a"]}))
  writer.add(small_clip(frames={"a": dataclasses.replace(small_clip().frames["a"], codec="h264")}))
  with pytest.raises(ValueError, match=r"^codecs \['h264', 'jpeg'\] in one shard$"):
    writer.close()
  for arrays in ({"v": np.array(["x"])}, {"v": np.arange(2.0)}):
    writer = shard_file.Writer(str(tmp_path / "t"))
    writer.add(small_clip())
    writer.add(small_clip(arrays=arrays))
    with pytest.raises(TypeError, match="^array 'v' has dtypes .*, expected one kind of numbers$"):
      writer.close()


def test_a_small_shard(tmp_path):
  writer = shard_file.Writer(str(tmp_path / "s"))
  writer.add(
    small_clip(
      arrays={"v": np.arange(2), "w": np.float32([[1, 2], [3, 4]])},
      frame_facts={"f": np.array([5, 6])},
      statistics={"w": np.ones((3, 2)), "v": np.ones((3, 1))},
    )
  )
  writer.add(
    small_clip(
      start=2,
      arrays={"v": np.arange(2, 4)},
      frame_facts={"f": np.array([7, 8])},
      statistics={"v": np.zeros((3, 1))},
    )
  )
  entry = writer.close()
  assert entry["index_offset"] % 8 == 0
  found = shard_file.ShardFile(str(tmp_path / "s"), entry)
  assert (
    found.index["start"].tolist() == [0, 2]
    and found.cameras == ("a",)
    and found.arrays == ("v", "w")
    and len(found) == 2
  )
  assert (
    found.blobs(1, "a", [1, 0, 1]) == {0: b"xyz", 1: b"q"}
    and found.blobs(0, "a", []) == {}
    and found.size(1, "a") == (4, 6)
  )
  assert (
    found.array(1, "v").tolist() == [2, 3]
    and found.array(0, "w").tolist() == [[1, 2], [3, 4]]
    and found.array(1, "w") is None
  )
  assert found.frame_fact(1, "f").tolist() == [7, 8] and [
    part.shape for part in found.statistics("w")
  ] == [(3, 2)]
  assert [part.tolist() for part in found.statistics("v")] == [[[1]] * 3, [[0]] * 3]
  for numbers in ([-1], [2], [0, 2]):
    with pytest.raises(IndexError, match="of a clip of 2$"):
      found.blobs(0, "a", numbers)
  assert (
    shard_file.runs([1, 2, 4, 5, 6, 9]) == [[1, 2], [4, 5, 6], [9]] and shard_file.runs([]) == []
  )
