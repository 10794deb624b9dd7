"""Readers of every on-disk format."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import sources, video
from como_jax.data.sources import video_folder, video_groups
from como_jax.data.sources.options import SourceOptions
from tests.data import makers

KEEP = video.Geometry()


def shown(raw, camera, geometry=KEEP):
  return [makers.number(image) for _, image in raw.cameras[camera](geometry)]


def test_video_folder(tmp_path):
  path = makers.video_folder(tmp_path / "videos")
  (tmp_path / "videos" / "notes.txt").write_text("not a video")
  assert sources.detect(path) == "video_folder"
  source = pickle.loads(pickle.dumps(sources.open_source(path)))
  assert source.names == ("a/clip_0.mp4", "a/clip_3.mp4", "b/clip_1.mp4", "c/clip_2.mp4")
  assert [source[i].task for i in range(4)] == ["task 0", "task 1", "task 1", "task 0"]
  assert shown(source[1], "camera") == list(range(7)) and not source[1].continuous
  assert {item["name"] for item in source.skipped} == {"notes.txt"}
  before = source.fingerprint()
  os.utime(f"{path}/a/clip_0.mp4", (1, 1))
  assert source.fingerprint() != before


def test_bad_annotations_are_ignored_with_a_warning(tmp_path):
  path = makers.video_folder(tmp_path / "videos", (5,), annotate=False)
  (tmp_path / "videos" / "a" / "lang_annotations.json").write_text("[1")
  with pytest.warns(UserWarning, match="lang_annotations.json is ignored"):
    assert sources.open_source(path)[0].task == ""


def video_files(root, *names):
  """The same small video under several names."""
  made = makers.write_video(root / ".made" / "a.mp4", 3)
  for name in names:
    target = os.path.join(os.fsencode(root), os.fsencode(name))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copy(made, target)
  shutil.rmtree(root / ".made")
  return str(root)


def test_everything_in_a_video_folder_is_named(tmp_path):
  path = video_files(tmp_path, "a.mp4", "b/c.MTS", "b/._c.mp4", ".hidden/d.mp4")
  for name in ("b/x.jpg", "b/y.JPG", "notes.txt", "data.bin", "none", "z.mp4.part"):
    (tmp_path / name).write_bytes(b"x")
  (tmp_path / "b" / "empty.mp4").write_bytes(b"")
  source = sources.open_source(path)
  assert source.names == ("a.mp4", "b/c.MTS", "b/empty.mp4")
  assert {item["name"]: item["reason"] for item in source.skipped} == {
    ".hidden": "a hidden folder",
    "b/._c.mp4": "a hidden file",
    "b/x.jpg": "a picture, not a video",
    "b/y.JPG": "a picture, not a video",
    "data.bin": "unknown extension '.bin'",
    "none": "no extension",
    "notes.txt": "text or a table, not a video",
    "z.mp4.part": "an unfinished download",
  }
  assert "2 not used, a picture, not a video: b/x.jpg, b/y.JPG" in video_folder.summary(
    source.skipped
  )
  assert (
    video_folder.summary(source.skipped * 3, max_names=1)[0]
    == "3 not used, a hidden folder: .hidden and 2 more"
  )
  with pytest.raises(sources.Unreadable, match="the file is empty"):
    shown(source[2], "camera")
  os.remove(tmp_path / "a.mp4")
  shutil.rmtree(tmp_path / "b")
  with pytest.raises(errors.UserError, match="no video file below .*1 not used, text or a table"):
    sources.open_source(path, format="video_folder")


def test_each_real_folder_and_file_is_read_once(tmp_path):
  path = video_files(tmp_path / "set", "day/a.mp4", "day/b.mp4")
  outside = video_files(tmp_path / "elsewhere", "c.mp4")
  links = {
    "day/up": tmp_path / "set",
    "day/above": tmp_path,
    "again": tmp_path / "set" / "day",
    "more": outside,
    "twice": outside,
    "a_too.mp4": tmp_path / "set" / "day" / "a.mp4",
    "lost.mp4": tmp_path / "nowhere",
  }
  for name, target in links.items():
    os.symlink(target, tmp_path / "set" / name)
  os.symlink(tmp_path / "elsewhere", tmp_path / "elsewhere" / "self")
  os.link(tmp_path / "set" / "day" / "b.mp4", tmp_path / "set" / "day" / "b_too.mp4")
  source = sources.open_source(path)
  assert source.names == ("day/a.mp4", "day/b.mp4", "more/c.mp4")
  above = "a link to the folder that is read, or to one above it"
  assert {item["name"]: item["reason"] for item in source.skipped} == {
    "a_too.mp4": "the same file as day/a.mp4",
    "again": "a folder that was read already, by another path",
    "day/above": above,
    "day/b_too.mp4": "the same file as day/b.mp4",
    "day/up": above,
    "lost.mp4": "a link that leads nowhere",
    "more/self": "a folder that was read already, by another path",
    "twice": "a folder that was read already, by another path",
  }


def test_data_sets_below_a_video_folder_are_not_its_videos(tmp_path):
  path = video_files(tmp_path, "own.mp4")
  makers.lerobot_v21(tmp_path / "one", (3,))
  (tmp_path / "page").mkdir()
  (tmp_path / "page" / "manifest.json").write_text('{"icons": []}')
  (tmp_path / "kept").mkdir()
  (tmp_path / "kept" / "manifest.json").write_text('{"shards": []}')
  assert sorted(video_folder.find_nested(path)) == [("kept", "shards"), ("one", "lerobot")]
  source = video_folder.VideoFolder(path)
  assert source.names == ("own.mp4",)
  assert {"name": "one", "reason": "a lerobot data set of its own: give its path"} in source.skipped
  assert video_folder.enclosing(str(tmp_path / "one" / "videos" / "chunk-000")) == os.path.realpath(
    tmp_path / "one"
  )
  assert video_folder.enclosing(path) is None


def test_names_that_are_not_utf_8(tmp_path):
  path = video_files(tmp_path, b"caf\xe9.mp4", "caf\\xe9.mp4", b"d\xff/new\nline.mp4")
  (tmp_path / os.fsdecode(b"d\xff") / "lang_annotations.json").write_text(
    json.dumps({"new\nline.mp4": "go"})
  )
  source = pickle.loads(pickle.dumps(sources.open_source(path)))
  assert source.names == ("caf\\xe9.mp4", "caf\\xe9.mp4~2", "d\\xff/new\\x0aline.mp4")
  json.dumps(source.names).encode("utf-8")
  assert [shown(source[i], "camera") for i in range(3)] == [[0, 1, 2]] * 3
  assert source[2].task == "go"
  assert len(source.fingerprint()) == 16


def test_instructions_for_no_video_are_named(tmp_path):
  path = video_files(tmp_path, "a.mp4")
  (tmp_path / "lang_annotations.json").write_text(
    json.dumps({"a.mp4": "go", "b.mp4": "stop", "c.mp4": 1})
  )
  source = sources.open_source(path)
  assert source[0].task == "go"
  assert source.skipped == [
    {
      "name": "lang_annotations.json",
      "reason": "2 of 3 entries name no video of this folder or hold no text, as 'b.mp4'",
    }
  ]


@pytest.mark.parametrize(
  "rule,names,expected",
  [
    # Folders named like cameras, at any height above.
    ("auto", "cam_left/1.mp4 cam_left/2.mp4 cam_right/1.webm cam_right/2.mp4", "1212"),
    ("auto", "left/mon/1.mp4 left/tue/1.mp4 right/mon/1.mp4 right/tue/1.mp4", "1212"),
    ("auto", "ep1/view1/v.mp4 ep1/view2/v.mp4 ep2/view1/v.mp4 ep2/view2/v.mp4", "1122"),
    # Files named like cameras.
    ("auto", "ep1/left.mp4 ep1/right.mp4 ep2/left.mp4 ep2/right.mp4 ep2/notes.mp4", "11220"),
    # Neither: the smaller number is that of the cameras.
    ("auto", "a/1.mp4 a/2.mp4 b/1.mp4 b/2.mp4 c/1.mp4 c/2.mp4", "112233"),
    ("auto", "a/1.mp4 a/2.mp4 a/3.mp4 b/1.mp4 b/2.mp4 b/3.mp4", "123123"),
    ("auto", "a/1.mp4 a/2.mp4 b/2.mp4 b/3.mp4", "0110"),
    # Nothing shared, or nothing but one common name.
    ("auto", "a/1.mp4 b/2.mp4 c.mp4", "000"),
    ("auto", "ep1/video.mp4 ep2/video.mp4 ep3/video.mp4", "000"),
    # All in one would leave nothing to validate with.
    ("auto", "left/1.mp4 right/1.mp4", "00"),
    ("none", "cam_left/1.mp4 cam_right/1.mp4 cam_left/2.mp4", "000"),
    ("folder", "a/1.mp4 a/2.mp4 b/1.mp4", "110"),
    ("name", "a/1.mp4 a/2.mp4 b/1.mp4", "101"),
    (r"(\d+)_cam", "7_cam1.mp4 7_cam2.mp4 8_cam1.mp4 other.mp4", "1100"),
  ],
)
def test_views_of_one_recording(rule, names, expected):
  found, how = video_groups.groups(names.split(), rule)
  assert [bool(one) for one in found] == [digit != "0" for digit in expected]
  for i, one in enumerate(expected):
    assert [found[i] == found[j] for j in range(len(expected)) if "0" not in one + expected[j]] == [
      one == other for other in expected if "0" not in one + other
    ]
  assert bool(how) == (set(expected) != {"0"} or names.startswith("left/1"))


def test_groups_reach_the_episodes_and_are_said(tmp_path):
  path = video_files(tmp_path, "left/1.mp4", "left/2.mp4", "right/1.mp4", "right/2.mp4")
  source = sources.open_source(path)
  groups = [source[i].group for i in range(4)]
  assert groups[0] == groups[2] != groups[1] == groups[3]
  assert (
    "4 videos are taken as views of 2 recordings (folders named like cameras"
    in source.info["description"]
  )
  source = sources.open_source(path, options=SourceOptions(group="none"))
  assert [source[i].group for i in range(4)] == [""] * 4
  bad = {
    "[": "nor a regular expression",
    "foldr": "did you mean 'folder'",
    r"(\.)mp4": "all 4 videos into one",
  }
  for rule, text in bad.items():
    with pytest.raises(errors.UserError, match=text):
      sources.open_source(path, options=SourceOptions(group=rule))


def test_shards_are_a_source_too(tmp_path):
  path = makers.shards(tmp_path / "s", (20, 5), clip_frames=8)
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


def test_a_folder_of_data_sets_or_inside_one_is_refused_by_name(tmp_path):
  inside = str(tmp_path / "sets" / "one")
  makers.lerobot_v21(inside)
  makers.lerobot_v30(str(tmp_path / "sets" / "two"))
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
