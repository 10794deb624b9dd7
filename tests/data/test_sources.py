"""Readers of every on-disk format."""

import json
import os
import pickle

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import sources, video
from tests.data import makers

KEEP = video.Geometry()
LENGTHS = (8, 11, 6)


def shown(raw, camera, geometry=KEEP):
  return [makers.number(image) for image in raw.cameras[camera](geometry)]


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("make", [makers.lerobot_v21, makers.lerobot_v30])
def test_lerobot(tmp_path, make, image):
  path = make(tmp_path / "set", LENGTHS, image=image)
  assert sources.detect(path) == "lerobot"
  source = pickle.loads(pickle.dumps(sources.open_source(path)))
  assert len(source) == 3 and source.cameras == ("top", "wrist")
  assert source.names == ("episode_000000", "episode_000001", "episode_000002")
  assert source.info["action_names"] == ["a", "b", "c"] and source.info["state_names"] == ["x", "y"]
  for i in (2, 0, 1):
    raw = source[i]
    action, state = makers.vectors(LENGTHS[i], i)
    assert (raw.fps, raw.task) == (10.0, f"task {i % 2}")
    np.testing.assert_array_equal(raw.arrays["action"], action)
    np.testing.assert_array_equal(raw.arrays["state"], state)
    np.testing.assert_allclose(raw.arrays["timestamp"], np.arange(LENGTHS[i]) / 10, atol=1e-6)
    for camera in source.cameras:
      assert shown(raw, camera) == list(range(LENGTHS[i])), (i, camera)
      assert next(iter(raw.cameras[camera](video.Geometry(32)))).shape == (32, 32, 3)
    assert not raw.notes


def test_lerobot_v20_is_v21(tmp_path):
  path = makers.lerobot_v21(tmp_path / "set", (5,))
  info = json.load(open(f"{path}/meta/info.json"))
  json.dump(info | {"codebase_version": "v2.0"}, open(f"{path}/meta/info.json", "w"))
  assert shown(sources.open_source(path)[0], "top") == list(range(5))


def test_lerobot_av1(tmp_path):
  path = makers.lerobot_v30(tmp_path / "set", (5, 7), codec="libsvtav1")
  assert shown(sources.open_source(path)[1], "wrist") == list(range(7))


def test_lerobot_problems_are_named(tmp_path):
  path = makers.lerobot_v30(tmp_path / "set", LENGTHS)
  data = f"{path}/data/chunk-000/file-000.parquet"
  whole = open(data, "rb").read()
  open(data, "wb").write(whole[:-200])
  with pytest.raises(sources.Unreadable, match="no parquet footer.*finalize"):
    sources.open_source(path)[0]
  os.remove(data)
  with pytest.raises(sources.Unreadable, match="file-000.parquet is missing"):
    sources.open_source(path)[1]
  episodes = f"{path}/meta/episodes/chunk-000/file-000.parquet"
  open(episodes, "wb").write(b"PAR1 unfinished")
  with pytest.raises(errors.UserError, match="no parquet footer"):
    sources.open_source(path)
  info = json.load(open(f"{path}/meta/info.json"))
  json.dump(info | {"codebase_version": "v1.6"}, open(f"{path}/meta/info.json", "w"))
  with pytest.raises(errors.UserError, match="'v1.6' is not supported, expected v2.0, v2.1 or v3.0"):
    sources.open_source(path)


def test_lerobot_video_too_short(tmp_path):
  path = makers.lerobot_v21(tmp_path / "set", LENGTHS)
  makers.write_video(f"{path}/videos/chunk-000/observation.images.top/episode_000001.mp4", 6)
  raw = sources.open_source(path)[1]
  with pytest.raises(sources.Unreadable, match="too short"):
    shown(raw, "top")


def test_video_folder(tmp_path):
  path = makers.video_folder(tmp_path / "videos")
  (tmp_path / "videos" / "notes.txt").write_text("not a video")
  assert sources.detect(path) == "video_folder"
  source = pickle.loads(pickle.dumps(sources.open_source(path)))
  assert source.names == ("a/clip_0.mp4", "a/clip_3.mp4", "b/clip_1.mp4", "c/clip_2.mp4")
  assert [source[i].task for i in range(4)] == ["task 0", "task 1", "task 1", "task 0"]
  assert shown(source[1], "camera") == list(range(7)) and source[1].fps == 10
  before = source.fingerprint()
  os.utime(f"{path}/a/clip_0.mp4", (1, 1))
  assert source.fingerprint() != before


def test_bad_annotations_are_ignored_with_a_warning(tmp_path):
  path = makers.video_folder(tmp_path / "videos", (5,), annotate=False)
  (tmp_path / "videos" / "a" / "lang_annotations.json").write_text("[1")
  with pytest.warns(UserWarning, match="lang_annotations.json is ignored"):
    assert sources.open_source(path)[0].task == ""


@pytest.mark.parametrize("overlap", [0, 3])
def test_shards_are_a_source_too(tmp_path, overlap):
  path = makers.shards(tmp_path / "s", (20, 5), clip_frames=8, clip_overlap=overlap)
  assert sources.detect(path) == "shards"
  source = sources.open_source(path)
  assert source.names == ("episode_0", "episode_1")
  raw = source[0]
  np.testing.assert_array_equal(raw.arrays["action"], makers.vectors(20, 0)[0])
  assert shown(raw, "camera") == list(range(20))


def test_detect_says_what_was_expected(tmp_path):
  with pytest.raises(errors.UserError, match="does not exist: expected a folder"):
    sources.detect(str(tmp_path / "nowhere"))
  with pytest.raises(errors.UserError, match="meta/info.json.*manifest.json.*mp4"):
    sources.detect(str(tmp_path))
  with pytest.raises(errors.UserError, match="'lerbot'.*did you mean 'lerobot'"):
    sources.open_source(str(tmp_path), format="lerbot")
