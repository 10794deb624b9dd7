"""Folders of videos: what is found, which files are views of one recording, and writing of files at
once; the words and the limits.
"""

import errno
import json
import os
import pathlib

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import episode, ingest_settings, shard_writer, video
from como_jax.data.sources import video_folder, video_groups
from tests.data import makers


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
  assert list(video_folder._walk(path, skipped)) == ["a.mp4"]
  assert skipped == [{"name": "shut", "reason": "the folder cannot be read (Permission denied)"}]
  shut, skipped = [tmp_path.name, ""], []
  assert list(video_folder._walk(path, skipped)) == [] and [one["name"] for one in skipped] == ["."]


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


@pytest.mark.parametrize(
  "rule, names, groups, text",
  [
    (
      "auto",
      "cam_left/1.mp4 cam_left/2.mp4 cam_right/1.webm cam_right/2.mp4",
      ["*/1", "*/2"] * 2,
      (
        "4 videos are taken as views of 2 recordings (folders named like cameras; source option "
        "group)"
      ),
    ),
    (
      "auto",
      "d/cam1/1.mp4 d/cam2/1.mp4 e/x.mp4",
      ["d/*/1"] * 2 + [""],
      (
        "2 videos are taken as views of 1 recordings (folders named like cameras; source option "
        "group)"
      ),
    ),
    (
      "auto",
      "ep1/left.mp4 ep1/right.mp4 ep2/left.mp4 ep2/right.mp4",
      ["ep1"] * 2 + ["ep2"] * 2,
      "4 videos are taken as views of 2 recordings (files named like cameras; source option group)",
    ),
    (
      "auto",
      "a/1.mp4 a/2.mp4 b/1.mp4 b/2.mp4 c/1.mp4 c/2.mp4",
      ["a"] * 2 + ["b"] * 2 + ["c"] * 2,
      (
        "6 videos are taken as views of 3 recordings (the same few file names in every folder; "
        "source option group)"
      ),
    ),
    (
      "auto",
      "a/1.mp4 a/2.mp4 b/1.mp4 b/2.mp4",
      ["*/1", "*/2"] * 2,
      (
        "4 videos are taken as views of 2 recordings (the same file names in sibling folders; "
        "source option group)"
      ),
    ),
    (
      "auto",
      "z/a/1.mp4 z/a/2.mp4 z/b/2.mp4 z/b/3.mp4",
      ["", "z/*/2", "z/*/2", ""],
      (
        "2 videos are taken as views of 1 recordings (the same file names in sibling folders; "
        "source option group)"
      ),
    ),
    ("auto", "ep1/left.mp4 ep2/left.mp4", ["", ""], ""),
    ("auto", "one.mp4", [""], ""),
    ("auto", "ep1/left.mp4 ep1/right.mp4 ep2/left.mp4", ["*/left", "", "*/left"], None),
    ("auto", "clip_left/1.mp4 clip_right/1.mp4 c/2.mp4", ["*/1", "*/1", ""], None),
    ("auto", "Left/1.mp4 RIGHT-cam/1.mp4 x/y/2.mp4", None, None),
    (
      "auto",
      "left/1.mp4 right/1.mp4",
      ["", ""],
      "all 2 videos look like views of one recording (folders named like cameras): not grouped",
    ),
    (
      "folder",
      "a/1.mp4 a/2.mp4 3.mp4 4.mp4",
      ["a", "a", ".", "."],
      "4 videos are taken as views of 2 recordings (files of one folder; source option group)",
    ),
    (
      "name",
      "a/1.mp4 b/1.webm b/2.mp4",
      ["1", "1", ""],
      "2 videos are taken as views of 1 recordings (files of one name; source option group)",
    ),
    (
      r"(\d)?_cam",
      "7_cam1.mp4 7_cam2.mp4 _cam3.mp4 o.mp4",
      ["7", "7", "", ""],
      (
        r"2 videos are taken as views of 1 recordings (files of one match of '(\\d)?_cam'; source "
        r"option group)"
      ),
    ),
    ("none", "a/1.mp4 a/2.mp4", ["", ""], ""),
  ],
)
def test_groups_and_their_words(rule, names, groups, text):
  found, how = video_groups.groups(names.split(), rule)
  if groups is not None:
    assert found == groups
  if text is not None:
    assert how == text


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


def test_files_are_written_at_once(tmp_path):
  path = str(tmp_path / "x.json")
  shard_writer.write_json(
    path, {"a": np.int64(3), "b": np.array([1.5]), "c": np.bool_(True), "d": np.float32(0.5)}
  )
  assert pathlib.Path(
    path
  ).read_text() == '{\n "a": 3,\n "b": [\n  1.5\n ],\n "c": true,\n "d": 0.5\n}' and os.listdir(
    tmp_path
  ) == ["x.json"]
  with pytest.raises(TypeError, match="^set cannot be written as JSON$"):
    shard_writer.write_json(path, {"a": {1}})
  assert shard_writer.read_json(path)["a"] == 3 and shard_writer.read_json(path + "no") is None
  (tmp_path / "x.json").write_text("{")
  assert shard_writer.read_json(path) is None and shard_writer.sidecar_path(
    "d", 12
  ) == os.path.join("d", "shard-00012.json")


class Failing(makers.Synthetic):
  """Its episodes fail as they are told to."""

  def __init__(self, lengths, fail):
    super().__init__(lengths)
    self.fail = fail

  def __getitem__(self, i):
    raw = super().__getitem__(i)
    raw.notes.extend(["odd", "odd", f"note {i}"])
    if i in self.fail:
      raise self.fail[i]
    return raw


def test_a_unit_of_work(tmp_path):
  said, settings = ([], ingest_settings.Settings(0, "squash", "jpeg", 95, 4, ("camera",), 9, {}))
  source = Failing((3, 9, 5, 6, 2), {1: ValueError("a\nb"), 3: video.Unreadable("bad")})
  unit = shard_writer.Unit(2, 0, 5, {4: "kills"}, {})
  sidecar = shard_writer.WriteShard(source, str(tmp_path), settings)(unit, said.append)
  assert sidecar["quarantine"] == [
    {"name": "episode_1", "reason": "ValueError: a b"},
    {"name": "episode_3", "reason": "bad"},
    {"name": "episode_4", "reason": "kills"},
  ]
  assert sidecar["notes"] == [
    {"name": f"episode_{i}", "note": note} for i in (0, 2) for note in ("odd", f"note {i}")
  ]
  assert (
    sidecar["frames"] == {"kept": 8}
    and sidecar["file"] == "shard-00002.shard"
    and sidecar["shard"] == 2
  )
  assert [(row["episode"], row["clip"], row["shard"], row["start"]) for row in sidecar["rows"]] == [
    ("episode_0", 0, 2, 0),
    ("episode_2", 1, 2, 0),
    ("episode_2", 2, 2, 4),
  ]
  one = shard_writer.Progress
  assert said == [
    one(0),
    one(0, 3),
    one(0, 0, True),
    one(1),
    one(1, 0, True),
    one(2),
    one(2, 5),
    one(2, 0, True),
    one(3),
    one(3, 0, True),
    one(4),
    one(4, 0, True),
  ]
  assert sorted(os.listdir(tmp_path)) == ["shard-00002.json", "shard-00002.shard"]
  assert shard_writer.read_json(str(tmp_path / "shard-00002.json")) == json.loads(
    json.dumps(sidecar, default=shard_writer._plain)
  )
  none = shard_writer.WriteShard(source, str(tmp_path), settings)(
    shard_writer.Unit(3, 3, 4, {}, {}), said.append
  )
  assert (
    none["file"] is None and none["rows"] == [] and not (tmp_path / "shard-00003.shard").exists()
  )


@pytest.mark.parametrize(
  "number, fatal",
  [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EMFILE, True), (errno.EIO, False)],
)
def test_a_full_disk_is_no_bad_episode(tmp_path, number, fatal):
  settings = ingest_settings.Settings(0, "squash", "jpeg", 95, 4, ("camera",), 9, {})
  write = shard_writer.WriteShard(
    Failing((3,), {0: OSError(number, "no")}), str(tmp_path), settings
  )
  if fatal:
    with pytest.raises(OSError):
      write(shard_writer.Unit(0, 0, 1, {}, {}), lambda message: None)
  else:
    assert (
      write(shard_writer.Unit(0, 0, 1, {}, {}), lambda message: None)["quarantine"][0]["reason"]
      == f"OSError: [Errno {number}] no"
    )
  with pytest.raises(errors.UserError):
    shard_writer.WriteShard(Failing((3,), {0: errors.UserError("x")}), str(tmp_path), settings)(
      shard_writer.Unit(0, 0, 1, {}, {}), lambda message: None
    )


def test_fingerprints_of_files(tmp_path):
  touch(tmp_path, "a", "b")
  both = episode.fingerprint(str(tmp_path), ["a", "b"])
  assert both != episode.fingerprint(str(tmp_path), ["b", "a"]) and len(both) == 16
  (tmp_path / "a").write_bytes(b"x")
  os.utime(tmp_path / "a", ns=(0, os.stat(tmp_path / "b").st_mtime_ns))
  assert episode.fingerprint(str(tmp_path), ["a", "b"]) != both
