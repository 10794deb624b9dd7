"""Features of LeRobot folders: names, sizes and templates by hand."""

import json
import os

import pytest

from como_jax import errors
from como_jax.data.sources import lerobot_features as layout
from como_jax.data.sources.options import SourceOptions


@pytest.mark.parametrize(
  "feature, name",
  [
    ("observation.images.top", "top"),
    ("images.top", "top"),
    ("observation.image", "image"),
    ("image", "image"),
    ("observation.images.", "observation.images."),
    ("my.images.top", "my.images.top"),
  ],
)
def test_names_of_cameras(feature, name):
  assert layout.camera_name(feature) == name


def test_features_of_vectors():
  number = {"dtype": "float32", "shape": [2, 3], "names": {"b": 1, "a": 0}}
  features = {
    "x.actions": number,
    "robot/state": {"dtype": "int64", "shape": 4},
    "state": {"dtype": "string"},
    "flag": {"dtype": "bool", "shape": [0]},
    "top": {"dtype": "video"},
    "next.reward": {"dtype": "float32"},
    "index": {"dtype": "int64"},
    "odd": {"dtype": "float64", "shape": [1, True]},
  }
  assert layout.numeric(features) == [
    "x.actions",
    "robot/state",
    "flag",
    "next.reward",
    "index",
    "odd",
  ]
  assert layout.vector("action", features, "", "w") == layout.Vector("x.actions", 6, ["a", "b"])
  assert layout.vector("state", features, "", "w") == layout.Vector("robot/state", 4, None)
  assert layout.vector("action", features, "flag", "w") == layout.Vector("flag", None, None)
  assert layout.vector("action", features, "odd", "w").size is None
  # two that may be it
  assert layout.vector("action", features | {"y.action": number}, "", "w") is None
  assert layout.vector("action", features | {"actions": number}, "", "w").key == "actions"
  with pytest.raises(
    errors.UserError,
    match="^w: source option state_key: 'indx' is no feature of the data set: valid: .*flag",
  ):
    layout.vector("state", features, "indx", "w")
  assert layout.unused(features, ["x.actions"]) == ["robot/state", "state", "flag", "odd"]
  assert (
    layout._flat("all") == ["all"]
    and layout._flat(None) == []
    and layout._flat([1, ["a"]]) == ["1", "a"]
  )


def test_cameras_in_the_order_asked_for():
  features = {
    "observation.images.a": {"dtype": "video"},
    "b": {"dtype": "image", "is_depth_map": True},
    "c": {"dtype": "video", "info": {"video.pix_fmt": "gray8"}},
  }
  found = layout.cameras(features, SourceOptions(), "w")
  assert found == [
    layout.Camera("a", "observation.images.a", True, False),
    layout.Camera("b", "b", False, True),
    layout.Camera("c", "c", True, False),
  ]
  assert [
    one.name
    for one in layout.cameras(
      features, SourceOptions(camera_keys=("c", "observation.images.a", "c")), "w"
    )
  ] == ["c", "a"]


@pytest.mark.parametrize(
  "template, valid",
  [
    ("data/{episode_index:06d}.parquet", True),
    ("data/{episode_index:999d}", True),
    ("data/{episode_index:1000d}", False),
    ("{episode_index!r}", False),
    ("{episode_index:{chunk_index}}", False),
    ("a..b/{episode_index}", True),
    ("../{episode_index}", False),
    (3, False),
    ("{", False),
    ("{video_key}", False),
  ],
)
def test_templates(template, valid):
  def check():
    return layout._check_template(
      "info.json", "data_path", template, layout._TEMPLATE_KEYS["data_path"]
    )

  if valid:
    check()
  else:
    with pytest.raises(errors.UserError, match="^info.json: data_path = .* cannot be used"):
      check()


def test_how_deep_data_sets_are_looked_for(tmp_path):
  for name in ("a/b/c", "a/b/d/e", "meta", "x/meta/inner"):
    os.makedirs(tmp_path / name / "meta")
    (tmp_path / name / "meta" / "info.json").write_text("{}")
  assert layout.find_nested(str(tmp_path)) == ["a/b/c", "meta", "x/meta/inner"]
  assert layout.find_nested(str(tmp_path), depth=4) == ["a/b/c", "a/b/d/e", "meta", "x/meta/inner"]
  (tmp_path / "x" / "meta" / "info.json").write_text("{}")
  assert layout.find_nested(str(tmp_path)) == ["a/b/c", "meta", "x"]
  (tmp_path / "meta" / "info.json").write_text("{}")  # its own folder "meta" is a part of it
  assert layout.find_nested(str(tmp_path)) == ["a/b/c", "x"]


def test_info_that_says_little(tmp_path):
  os.makedirs(tmp_path / "meta")

  def write(**info):
    return (tmp_path / "meta" / "info.json").write_text(
      json.dumps({"codebase_version": "v3.0", "fps": 1e-3, "features": {}, "data_path": "x"} | info)
    )

  write()
  found = layout.read_info(str(tmp_path))
  assert (found["fps"], found["chunks_size"], found["major"]) == (1e-3, 1000, 3)
  write(chunks_size=1, codebase_version="v2")
  assert (
    layout.read_info(str(tmp_path))["chunks_size"],
    layout.read_info(str(tmp_path))["major"],
  ) == (1, 2)
  for change in (
    {"fps": float("inf")},
    {"fps": -1},
    {"chunks_size": 1.5},
    {"codebase_version": "v30"},
    {"features": {"a": 1}},
  ):
    write(**change)
    with pytest.raises(errors.UserError):
      layout.read_info(str(tmp_path))
