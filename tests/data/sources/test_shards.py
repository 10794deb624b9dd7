"""Shards as a source."""

import json
import os

import numpy as np

from como_jax.data import index, sources, video
from tests.data import makers
from tests.data.made_videos import shown


def test_shards_are_a_source_too(tmp_path):
  path = makers.shards(tmp_path / "s", (20, 5), clip_frames=8)
  assert sources.detect(path) == "shards"
  source = sources.open_source(path)
  assert source.names == ("episode_0", "episode_1")
  raw = source[0]
  np.testing.assert_array_equal(raw.arrays["action"], makers.vectors(20, 0)[0])
  assert shown(raw, "camera") == list(range(20))


def test_shards_as_a_source(uneven_path):
  source = sources.open_source(uneven_path)
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
  stat = os.stat(f"{uneven_path}/records.parquet")
  os.utime(f"{uneven_path}/records.parquet", (1, 1))
  assert source.fingerprint() != before
  os.utime(f"{uneven_path}/records.parquet", ns=(stat.st_atime_ns, stat.st_mtime_ns))
  assert source.fingerprint() == before
  assert json.loads(json.dumps(source.info)) == source.info and index.SPLITS == (
    "train",
    "validation",
    "all",
  )
