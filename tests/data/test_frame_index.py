"""A sample reads its own frames and rows, from its first visit on; damage anywhere is seen."""

import os
import pathlib
import pickle

import numpy as np
import pytest

from como_jax import data, errors, storage
from como_jax.data import (
  evaluation,
  frame_codec,
  frame_index,
  motion_mixture,
  number_file,
  pipeline,
  reader,
  sequences,
  shard_file,
  shards,
  stored,
  video,
)
from como_jax.data.batching import Batching
from como_jax.data.read_options import ReadOptions
from tests.data import makers

READ = ReadOptions(threads=0, prefetch=0)
LENGTHS = (50, 30, 40)


@pytest.fixture(name="path", scope="module", params=["jpeg", "h264"])
def _path(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp("indexed") / "s"
  return makers.shards(folder, LENGTHS, codec=request.param, clip_frames=25, episodes_per_shard=2)


@pytest.fixture(name="copy")
def _copy(tmp_path):
  """A folder of its own, which a test may damage."""
  return makers.shards(tmp_path / "s", LENGTHS, clip_frames=25, episodes_per_shard=2)


def used_bytes(monkeypatch):
  """[bytes of the encoded frames that are decoded]."""
  used, decode = [0], frame_codec.decode

  def counted(codec, blobs, *given, **more):
    used[0] += sum(map(len, blobs.values()))
    return decode(codec, blobs, *given, **more)

  monkeypatch.setattr(frame_codec, "decode", counted)
  return used


def training(path):
  sets = motion_mixture.MotionMixture([data.DataSet(path, offset_seconds=0.3)]).windows(
    "train", frames=2
  )
  batches = pipeline.batches(sets, pipeline.Layout(16, frames=2), Batching(4), READ)
  return lambda: [next(batches) for _ in range(8)]


def validation(path):
  sets = motion_mixture.MotionMixture([data.DataSet(path, offset_seconds=0.3)]).windows(
    "validation", frames=3
  )
  layout = pipeline.Layout(16, frames=3)
  found = evaluation.evaluation_windows(sets, layout, Batching(4), READ, max_windows=8)
  return lambda: list(found.batches())


def labeling(path):
  plan = sequences.plan(shards.read_table(path), offset_seconds=0.3)
  clips = sequences.iterate_clips(
    path, plan, plan.sequences(0), image_size=16, threads=0, prefetch=0
  )
  return lambda: list(clips)


@pytest.mark.parametrize("task", [training, validation, labeling])
def test_a_first_visit_reads_the_frames_it_uses_and_nothing_else(path, task, monkeypatch):
  """Of H.264 whole groups are used. Of the rest, rows of numbers and of the index are small."""
  used, run = used_bytes(monkeypatch), task(path)
  with stored.counter() as asked:
    run()
  rows = 0 if task is labeling else 8 * 4 * 2 * 30 * 8  # numbers of a window, at most
  index = asked.requests * 2 * 12 * 25
  assert used[0] > 0 and used[0] <= asked.bytes <= used[0] + rows + index
  whole = sum(os.path.getsize(file) for file in pathlib.Path(path).glob("*.shard"))
  assert task is labeling or asked.bytes < 32 * whole / 4


def test_opening_reads_nothing_and_one_frame_costs_its_bytes(copy):
  found, read = makers.segments(copy)
  row = int(found.first_row[0])
  shard, clip = found.clip_location(row)
  own = shard_file.ShardFile(f"{copy}/{shards.shard_name(shard)}").blobs(clip, "camera", [3])[3]
  with stored.counter() as asked:
    opened = read.shards[shard]
    assert (asked.requests, asked.bytes) == (0, 0)
    assert opened.blobs(clip, "camera", [3]) == {3: own}
  # the ends and checksums of two frames: where the frame begins and where it ends
  assert (asked.requests, asked.bytes, len(asked.pages)) == (1, len(own) + 24, 1)


def test_indexed_shards_read_as_shards_do(path):
  manifest = shards.read_manifest(path)
  indexed = reader.open_shards(path, manifest)
  indexed = pickle.loads(pickle.dumps(indexed))
  assert indexed.index is not None
  for entry in manifest["shards"]:
    one = indexed[entry["shard"]]
    other = shard_file.ShardFile(f"{path}/{entry['file']}", entry)
    assert isinstance(one, frame_index.IndexedShard) and len(one) == len(other)
    for clip in range(len(other)):
      assert one.length(clip) == other.length(clip) and one.codec("camera") == other.codec("camera")
      assert one.size(clip, "camera") == other.size(clip, "camera")
      count = -(-other.length(clip) // shard_file.CODECS[other.codec("camera")])
      for numbers in (range(count), [count - 1], [0, count - 1], []):
        assert one.blobs(clip, "camera", numbers) == other.blobs(clip, "camera", numbers)
      assert one.array(clip, "nothing") is None and other.arrays
      for name in other.arrays:
        for first, last in ((0, other.length(clip)), (3, 4), (7, 17), (8, 16), (5, 5)):
          if last > other.length(clip):
            continue
          np.testing.assert_array_equal(
            one.array_rows(clip, name, first, last), other.array_rows(clip, name, first, last)
          )
    with pytest.raises(IndexError, match=f"^clip {len(other)} of a shard of {len(other)}$"):
      one.length(len(other))
    for numbers in ([-1], [count], [0, count]):
      with pytest.raises(IndexError, match=f"of a clip of {count}$"):
        one.blobs(clip, "camera", numbers)


def test_batches_with_and_without_an_index_are_the_same(copy):
  first = training(copy)()
  os.remove(f"{copy}/{frame_index.FILE}")
  assert makers.segments(copy)[1].shards.index is None
  for one, other in zip(first, training(copy)(), strict=True):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


def flip(file, at):
  content = bytearray(pathlib.Path(file).read_bytes())
  content[at] ^= 16
  pathlib.Path(file).write_bytes(content)


def test_a_flipped_bit_is_seen_where_its_part_is_read(copy):
  index = frame_index.FrameIndex(f"{copy}/{frame_index.FILE}")
  file = f"{copy}/{shards.shard_name(0)}"
  flip(file, int(index.arrays["offset/camera"][0]) + 5)
  flip(number_file.path_of(file), int(index.arrays["at/action"][1]) + 9)
  flip(index.path, index._starts["blob/camera"] + 12 * 4 + 5)  # checksum of frame 4 of clip 0
  flip(index.path, index._starts["blob/camera"] + 12 * 30 + 3)  # the end of a frame of clip 1
  read = reader.open_shards(copy, shards.read_manifest(copy))[0]
  for clip, number in ((0, 0), (0, 4)):
    with pytest.raises(
      video.UnreadableError,
      match=rf"shard clip {clip} camera 'camera': the checksum of blob {number} differs",
    ):
      read.blobs(clip, "camera", [number])
  with pytest.raises(video.UnreadableError, match="is cut short or its index is damaged: "):
    read.blobs(1, "camera", [5])
  with pytest.raises(
    video.UnreadableError, match="shard-00000.numbers clip 1: the checksum of 'action' differs"
  ):
    read.array_rows(1, "action", 0, 1)
  assert read.blobs(0, "camera", [1]) and len(read.array_rows(1, "action", 8, 9)) == 1
  os.remove(number_file.path_of(file))
  with pytest.raises(video.UnreadableError, match=r"shard-00000\.numbers: .*No such file"):
    reader.open_shards(copy, shards.read_manifest(copy))[0].array(0, "action")


def test_what_a_check_of_the_folder_says(copy):
  assert shards.verify(copy) == []
  index = frame_index.FrameIndex(f"{copy}/{frame_index.FILE}")
  numbers = number_file.path_of(f"{copy}/{shards.shard_name(0)}")
  flip(numbers, int(index.arrays["at/state"][1]) + 9)
  (line,) = shards.verify(copy)
  assert line == f"{numbers} clip 1: the checksum of 'state' differs (damaged)"
  os.remove(f"{copy}/{shards.shard_name(0)}")
  assert shards.verify(copy) == [f"{copy}/{shards.shard_name(0)} is missing"]
  flip(index.path, index._starts["length"])
  assert "checksum differs" in shards.verify(copy)[1]


def test_an_index_that_does_not_fit_is_refused(copy):
  path = f"{copy}/{frame_index.FILE}"
  content = pathlib.Path(path).read_bytes()
  again = "delete it, or run ingest again, which makes it from the shards$"
  flip(path, frame_index.FrameIndex(path)._starts["offset/camera"] + 1)
  with pytest.raises(
    errors.UserError, match=rf"is missing or damaged \(checksum differs\): {again}"
  ):
    makers.segments(copy)
  pathlib.Path(path).write_bytes(content[:20])
  with pytest.raises(errors.UserError, match=f"is missing or damaged .*: {again}"):
    makers.segments(copy)
  newer = content.replace(b'\\"version\\": \\"1\\"', b'\\"version\\": \\"2\\"')
  assert newer != content
  pathlib.Path(path).write_bytes(newer)
  with pytest.raises(
    errors.UserError, match="has version 2, this program reads version 1: update como_jax, or"
  ):
    makers.segments(copy)
  entries = shards.read_manifest(copy)["shards"]
  pathlib.Path(path).write_bytes(content)
  with pytest.raises(errors.UserError, match="is of other shards than those of this folder"):
    frame_index.open_index(copy, [{**entry, "index_xxh64": "0"} for entry in entries])
  assert frame_index.open_index(copy, entries) is not None


def test_a_folder_in_a_store_is_read_by_ranges(path, tmp_path, monkeypatch):
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path / "cache"))
  remote = f"memory://{tmp_path.name}/s"
  for file in pathlib.Path(path).iterdir():
    store, key = storage.open_store(f"{remote}/{file.name}")
    store.upload(file, key)
  run, used = training(remote), used_bytes(monkeypatch)
  with storage.byte_counter() as counter:
    batches = run()
  assert used[0] <= sum(counter.bytes_read.values()) <= 1.01 * used[0]
  for one, other in zip(batches, training(path)(), strict=True):
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])
  cached = [file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()]
  assert cached and not any(".shard" in name for name in cached)  # the index and the table alone
