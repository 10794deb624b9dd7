"""Readers of every on-disk format."""

import pytest

from como_jax import errors
from como_jax.data import sources
from tests.data import lerobot_folders, makers


def test_detect_says_what_was_expected(tmp_path):
  with pytest.raises(errors.UserError, match="does not exist: expected a folder"):
    sources.detect(str(tmp_path / "nowhere"))
  with pytest.raises(errors.UserError, match="meta/info.json.*manifest.json.*mp4"):
    sources.detect(str(tmp_path))
  with pytest.raises(errors.UserError, match="'lerbot'.*did you mean 'lerobot'"):
    sources.open_source(str(tmp_path), format="lerbot")


def test_a_folder_of_data_sets_or_inside_one_is_refused_by_name(tmp_path):
  inside = str(tmp_path / "sets" / "one")
  lerobot_folders.lerobot_v21(inside)
  lerobot_folders.lerobot_v30(str(tmp_path / "sets" / "two"))
  with pytest.raises(
    errors.UserError,
    match=(
      "holds 2 data sets of its own .*sets/one, .*sets/two.: give one of them, or each as an entry"
    ),
  ):
    sources.detect(str(tmp_path / "sets"))
  for part in ("videos", "videos/chunk-000"):
    with pytest.raises(
      errors.UserError,
      match=f"{part} is a part of the LeRobot data set .*sets/one: give that folder",
    ):
      sources.detect(f"{inside}/{part}")
  makers.write_video(tmp_path / "sets" / "loose.mp4", 5)
  with pytest.raises(errors.UserError, match="source.format=video_folder takes the loose videos"):
    sources.detect(str(tmp_path / "sets"))
  loose = sources.open_source(str(tmp_path / "sets"), format="video_folder")
  assert loose.names == ("loose.mp4",) and {item["name"] for item in loose.skipped} >= {
    "one",
    "two",
  }
