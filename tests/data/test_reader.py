"""Numbers, images and times of any frames."""

import pickle

import numpy as np
import pytest

from como_jax.data import reader, video
from tests.data import makers


def test_numbers_of_any_frames(uneven_path):
  found, read = makers.segments(uneven_path)
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
      read.read_array(0, "action", first, last), whole[0][max(first, 0) : last]
    )
  np.testing.assert_array_equal(read.read_array(1, "action", 1, 6), whole[1][1:6])
  np.testing.assert_array_equal(read.read_array(2, "action", 17, 20), whole[2][17:])
  assert read.read_array(0, "torque", 0, 3) is None


def test_images_of_any_frames_in_any_order(uneven_path):
  _, read = makers.segments(uneven_path)
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


def test_times_of_segments_and_clips(uneven_path):
  found, read = makers.segments(uneven_path)
  assert [read.times(s).explicit is None for s in range(3)] == [True, True, False]
  assert read.times(1).first == pytest.approx(1.4) and read.times(2) is read.times(2)  # read once
  np.testing.assert_allclose(
    read.clip_times(found.rows(2)[1]), np.arange(6, 12) / 10 + 0.03 * (np.arange(6, 12) % 3 == 1)
  )
  np.testing.assert_allclose(read.clip_times(1), np.arange(6, 12) / 10)
  read = pickle.loads(pickle.dumps(read))
  np.testing.assert_allclose(read.times(2).seconds_at(np.array([1, 2])), [0.13, 0.2])


def test_open_files_are_few_and_the_oldest_is_closed(uneven_path, monkeypatch):
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
  with pytest.raises(video.UnreadableError, match="^p: the manifest lists no shard-00009.shard$"):
    _ = cache[9]
  assert pickle.loads(pickle.dumps(cache))[3] == 5
