"""Views of one recording."""

import pytest

from como_jax import errors
from como_jax.data import sources
from como_jax.data.sources import video_groups
from como_jax.data.sources.options import SourceOptions
from tests.data.made_videos import video_files


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
