"""Folders of videos: what is found, which files are views of one recording, and writing of files at
once; the words and the limits.
"""

import errno
import json
import os
import pickle
import shutil

import pytest

from como_jax import errors
from como_jax.data import episode, sources
from como_jax.data.sources import video_folder, video_groups
from tests.data import lerobot_folders, makers
from tests.data.made_videos import shown, video_files


def touch(root, *names):
  for name in names:
    os.makedirs(os.path.dirname(root / name), exist_ok=True)
    (root / name).write_bytes(b"")
  return str(root)


def test_some_or_all_files(tmp_path):
  path = touch(tmp_path, "b.mp4", "a/c.MP4", "a.mkv", "x.txt")
  assert (
    video_folder.find(path) == ["a.mkv", "a/c.MP4", "b.mp4"]
    and len(video_folder.find(path, limit=2)) == 2
  )
  assert len(video_folder.find(path, limit=1)) == 1 and len(video_folder.find(path, limit=9)) == 3


@pytest.mark.parametrize("depth, found", [(1, True), (5, True), (6, False)])
def test_a_part_of_a_data_set_names_it(tmp_path, depth, found):
  touch(tmp_path, "set/meta/info.json")
  inside = tmp_path / "set"
  for i in range(depth):
    inside = inside / str(i)
  os.makedirs(inside)
  assert video_folder.enclosing(str(inside)) == (
    os.path.realpath(tmp_path / "set") if found else None
  )
  assert video_folder.enclosing(str(tmp_path / "set")) is None  # it itself


def test_summaries_of_what_is_not_used():
  skipped = [{"name": f"{i}.txt", "reason": "text"} for i in range(4)] + [
    {"name": "a", "reason": "other"}
  ]
  assert video_folder.summary(skipped) == [
    "4 not used, text: 0.txt, 1.txt, 2.txt and 1 more",
    "1 not used, other: a",
  ]
  assert (
    video_folder.summary(skipped[:3]) == ["3 not used, text: 0.txt, 1.txt, 2.txt"]
    and video_folder.summary([]) == []
  )


def test_formats_of_data_sets(tmp_path):
  touch(tmp_path, "l/meta/info.json", "n/x")
  for name, text in (("s", '{"shards": 1}'), ("o", '{"icons": 1}'), ("t", "{"), ("u", "3")):
    touch(tmp_path, f"{name}/manifest.json")
    (tmp_path / name / "manifest.json").write_text(text)
  assert [video_folder._format(str(tmp_path / name)) for name in "lnsotu"] == [
    "lerobot",
    None,
    "shards",
    None,
    None,
    None,
  ]


def test_folders_that_cannot_be_read(tmp_path, monkeypatch):
  path, scan = touch(tmp_path, "a.mp4", "shut/b.mp4"), os.scandir

  def scandir(folder):
    if os.path.basename(folder) in shut:
      raise PermissionError(errno.EACCES, "Permission denied")
    return scan(folder)

  monkeypatch.setattr(video_folder.os, "scandir", scandir)
  shut, skipped = ["shut"], []
  assert list(video_folder._scan(path, skipped)) == ["a.mp4"]
  assert skipped == [{"name": "shut", "reason": "the folder cannot be read (Permission denied)"}]
  shut, skipped = [tmp_path.name, ""], []
  assert list(video_folder._scan(path, skipped)) == [] and [one["name"] for one in skipped] == ["."]


def test_names_that_are_printed_alike():
  assert video_folder._unique(["a", "b\n", "b\\x0a", "b\\x0a~2", "b\r"]) == (
    "a",
    "b\\x0a",
    "b\\x0a~2",
    "b\\x0a~2~2",
    "b\\x0d",
  )


def test_annotations_of_each_folder(tmp_path):
  path = touch(tmp_path, "a/x.mp4", "b/x.mp4", "y.mp4", "b/z.mp4")
  (tmp_path / "a/lang_annotations.json").write_text(json.dumps({"x.mp4": "one"}))
  (tmp_path / "b/lang_annotations.json").write_text(
    json.dumps({"x.mp4": "two", "no.mp4": "x", "z.mp4": 3})
  )
  source = video_folder.VideoFolder(path)
  assert source.names == ("a/x.mp4", "b/x.mp4", "b/z.mp4", "y.mp4") and [
    source[i].task for i in range(4)
  ] == ["one", "two", "", ""]
  assert source.skipped == [
    {
      "name": "b/lang_annotations.json",
      "reason": "2 of 3 entries name no video of this folder or hold no text, as 'no.mp4'",
    }
  ]
  assert source.info == {
    "format": "video_folder",
    "action_names": None,
    "state_names": None,
    "description": (
      "folder of 4 video files, 2 videos are taken as views of 1 recordings (the same file "
      "names in sibling folders; source option group)"
    ),
  }
  assert (
    source.cameras == ("camera",)
    and not source[0].continuous
    and source[2].group == ""
    and source[0].arrays == {}
    and len(source) == 4
  )
  before = source.fingerprint()
  os.utime(tmp_path / "a/lang_annotations.json", (1, 1))
  assert source.fingerprint() != before
  (tmp_path / "a/lang_annotations.json").write_text("[1]")
  with pytest.warns(
    UserWarning, match=r'a/lang_annotations.json is ignored: expected {"file.mp4": "instruction"} '
  ):
    source = video_folder.VideoFolder(path)
  assert source.skipped[0]["name"] == "a/lang_annotations.json" and source.skipped[0][
    "reason"
  ].startswith("not readable instructions (")
  assert [source[i].task for i in range(2)] == ["", "two"]
  with pytest.raises(
    errors.UserError,
    match="^no video file below .*expected one of .mp4 .webm .*; 1 not used|no video file below",
  ):
    video_folder.VideoFolder(touch(tmp_path / "none", "x.txt"))


def test_one_file_cannot_be_all_in_one_group():
  assert video_groups.groups(["a/1.mp4"], "folder") == ([""], "")
  with pytest.raises(
    errors.UserError, match="puts all 2 videos into one group, which leaves none to validate with"
  ):
    video_groups.groups(["a/1.mp4", "a/2.mp4"], "folder")
  for name, like in (
    ("cam_left", True),
    ("left", True),
    ("view2", True),
    ("ep_left", False),
    ("episode3-cam", False),
    ("leftover", False),
    ("", False),
    ("top1-x", True),
  ):
    assert video_groups._like_camera(name) is like


def test_fingerprints_of_files(tmp_path):
  touch(tmp_path, "a", "b")
  both = episode.fingerprint(str(tmp_path), ["a", "b"])
  assert both != episode.fingerprint(str(tmp_path), ["b", "a"]) and len(both) == 16
  (tmp_path / "a").write_bytes(b"x")
  os.utime(tmp_path / "a", ns=(0, os.stat(tmp_path / "b").st_mtime_ns))
  assert episode.fingerprint(str(tmp_path), ["a", "b"]) != both


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
  with pytest.raises(sources.UnreadableError, match="the file is empty"):
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
  lerobot_folders.lerobot_v21(tmp_path / "one", (3,))
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
