"""Features of LeRobot data sets: names of all kinds, depth, and meta/info.json."""

import os
import pathlib

import av
import numpy as np
import pyarrow as pa
import pytest

from como_jax import errors
from como_jax.data.sources import lerobot_features
from tests.data import lerobot_makers as makers
from tests.data.lerobot_makers import (
  KEEP,
  TOP,
  WRIST,
  Folder,
  check,
  each,
  features,
  opened,
  refused,
  rows,
)


def test_names_of_openpi(tmp_path):
  path = Folder(videos=(), images=("image", "wrist_image"), action="actions", state="state").write(
    tmp_path / "set"
  )
  source = opened(path)
  assert source.cameras == ("image", "wrist_image") and source.info["action_names"] == [
    "a",
    "b",
    "c",
  ]
  assert "action from 'actions', state from 'state'" in source.info["description"]
  check(source[1], 1, range(8))


@pytest.mark.parametrize(
  "action, state, found",
  [
    ("robot.actions", "robot/proprio", True),
    ("observation.actions", "observation.states", True),
    ("torque", "joints", False),
  ],
)
def test_other_names(tmp_path, action, state, found):
  path = Folder(action=action, state=state).write(tmp_path / "set")
  source = opened(path)
  if found:
    check(source[1], 1, range(8))
  else:
    assert source[0].arrays == {} and "no action, no state" in source.info["description"]
    assert [
      one
      for one in source.skipped
      if "torque, joints" in one["reason"] and "action_key" in one["reason"]
    ]
  check(opened(path, action_key=action, state_key=state)[1], 1, range(8))


def test_names_given(tmp_path):
  change = rows(
    lambda e, columns: {
      "action.delta": columns["action"],
      "actions": makers.vector([[9, 9, 9]] * len(columns["index"])),
    }
  )
  vector = {"dtype": "float32", "shape": [3], "names": None}
  folder = Folder(videos=(TOP, WRIST, "images.side"), rows=change)
  folder.info = features(
    **{"action.delta": vector, "actions": vector, "note": {"dtype": "string", "shape": [1]}}
  )
  path = folder.write(tmp_path / "set")
  source = opened(path)
  check(source[0], 0, range(6))  # LeRobot's own name first
  assert source.cameras == ("top", "wrist", "side")
  assert [one["reason"] for one in source.skipped] == [
    (
      "features not used: action.delta, actions, note (source options action_key and state_key "
      "choose)"
    )
  ]
  assert opened(path, action_key="actions")[0].arrays["action"].tolist() == [[9, 9, 9]] * 6
  some = opened(path, camera_keys=("side", TOP))
  assert some.cameras == ("side", "top") and list(some[0].cameras) == ["side", "top"]
  assert {
    "name": "camera wrist",
    "reason": "not among the source option camera_keys",
  } in some.skipped
  for options, pattern in (
    ({"action_key": "actoin"}, "action_key: 'actoin' is no feature.*did you mean 'action'"),
    ({"state_key": "note"}, "state_key: 'note' is a feature of dtype 'string', expected numbers"),
    ({"camera_keys": ("wirst",)}, "camera_keys: 'wirst' is no feature.*did you mean 'wrist'"),
    (
      {"camera_keys": ("action",)},
      "camera_keys: 'action' is a feature of dtype 'float32', expected video or image",
    ),
  ):
    with pytest.raises(errors.UserError, match=pattern):
      opened(path, **options)


def test_camera_names_are_unique(tmp_path):
  path = Folder(videos=(TOP, "images.top", "observation.image")).write(tmp_path / "set")
  source = opened(path)
  assert source.cameras == (TOP, "images.top", "image")
  check(source[1], 1, range(8))


@pytest.mark.parametrize(
  "names, wanted",
  [
    ({"motors": ["a", "b", "c"]}, ["a", "b", "c"]),
    ({"left": {"axes": ["a", "b"]}, "right": ["c"]}, ["a", "b", "c"]),
    ({"b": 1, "c": 2, "a": 0}, ["a", "b", "c"]),
    ([["a", "b"], ["c"]], ["a", "b", "c"]),
    (None, None),
    (["all of them"], None),
  ],
)
def test_names_of_numbers(tmp_path, names, wanted):
  folder = Folder(info=features(action={"dtype": "float32", "shape": [3], "names": names}))
  source = opened(folder.write(tmp_path / "set"))
  assert source.info["action_names"] == wanted
  assert ("has 1 names for 3 numbers" in str(source.skipped)) == (names == ["all of them"])


def deep(e, columns):
  return {
    "observation.images.depth": pa.array(
      [
        {"bytes": makers.png(1000 * e + t, deep=True), "path": None}
        for t in range(len(columns["index"]))
      ]
    )
  }


def test_depth_images(tmp_path):
  depth = {"dtype": "image", "shape": [makers.HEIGHT, makers.WIDTH, 3]}
  path = Folder(rows=rows(deep), info=features(**{"observation.images.depth": depth})).write(
    tmp_path / "set"
  )
  source = opened(path)
  assert source.cameras == ("top",) and list(source[0].cameras) == ["top"]
  assert [one["name"] for one in source.skipped] == [
    "camera depth"
  ] and "depth_range" in source.skipped[0]["reason"]
  with pytest.raises(errors.UserError, match="'depth' .*depth_range"):
    opened(path, camera_keys=("depth",))
  ranged = opened(path, depth_range=(100, 8100))
  assert ranged.cameras == ("top", "depth")
  image = list(ranged[1].cameras["depth"](KEEP))[3][1]
  assert image.shape == (makers.HEIGHT, makers.WIDTH, 3)
  # half of the range
  assert makers.number(255 * (image > 64)) == 1003 and np.unique(image).tolist() == [0, 128]
  # An image in the midst of a camera of colors.
  last = {"bytes": makers.png(7, deep=True), "path": None}
  change = rows(lambda e, columns: {WRIST: pa.array([*columns[WRIST].to_pylist()[:-1], last])})
  source = opened(Folder(images=(WRIST,), rows=change).write(tmp_path / "late"))
  refused(source, 1, "camera 'wrist' in .*at frame 7 .*16-bit")


@pytest.mark.parametrize(
  "mark",
  [
    {"info": {"video.is_depth_map": True}},
    {"video_info": {"is_depth_map": True}},
    {"info": {"video.is_depth_map": "true"}},
    {"is_depth_map": 1},
    {"info": {"video.pix_fmt": "gray12le"}},
  ],
)
def test_depth_video(tmp_path, mark):
  wrist = {"dtype": "video", "shape": [makers.HEIGHT, makers.WIDTH, 1], **mark}
  path = Folder(videos=(TOP, WRIST), info=features(**{WRIST: wrist})).write(tmp_path / "set")
  for options in ({}, {"depth_range": (0, 9)}):
    source = opened(path, **options)
    assert source.cameras == ("top",)
    assert source.skipped == [
      {"name": "camera wrist", "reason": "left out: depth video is not read"}
    ]


@pytest.mark.parametrize("lost", ["value", "column"])
def test_places_of_a_depth_video_are_not_asked_for(tmp_path, lost):
  wrist = {
    "dtype": "video",
    "shape": [makers.HEIGHT, makers.WIDTH, 1],
    "info": {"video.is_depth_map": True},
  }
  place = f"videos/{WRIST}/from_timestamp"
  change = (
    (lambda row: row | {place: None})
    if lost == "value"
    else (lambda row: {k: v for k, v in row.items() if k != place})
  )
  folder = Folder(
    version="v3.0",
    videos=(TOP, WRIST),
    info=features(**{WRIST: wrist}),
    episodes=lambda table: list(map(change, table)),
  )
  source = opened(folder.write(tmp_path / "set"))
  assert source.cameras == ("top",)
  for i, length in enumerate((6, 8)):
    check(source[i], i, range(length))


def test_a_color_video_that_says_it_is_no_depth(tmp_path):
  wrist = {
    "dtype": "video",
    "shape": [makers.HEIGHT, makers.WIDTH, 3],
    "info": {"video.is_depth_map": "false"},
  }
  source = opened(
    Folder(videos=(TOP, WRIST), info=features(**{WRIST: wrist})).write(tmp_path / "set")
  )
  assert source.cameras == ("top", "wrist")


def write_depth(file, frames):
  with av.open(file, "w", format="matroska") as container:
    stream = container.add_stream("ffv1", rate=10)
    stream.height, stream.width, stream.pix_fmt = makers.HEIGHT, makers.WIDTH, "gray16le"
    for t in range(frames):
      frame = av.VideoFrame.from_ndarray(
        np.zeros((makers.HEIGHT, makers.WIDTH), np.uint16), format="gray16le"
      )
      frame.pts = t
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def test_depth_video_that_does_not_say_so(tmp_path):
  path = Folder(videos=(TOP, WRIST)).write(tmp_path / "set")
  files = [f"{path}/videos/chunk-000/{WRIST}/episode_00000{e}.mp4" for e in range(2)]
  write_depth(files[1], 8)
  source = opened(path)  # the first one is one of colors
  check(source[0], 0, range(6))
  refused(
    source,
    1,
    f"camera 'wrist', videos/chunk-000/{WRIST}/episode_000001.mp4: its pictures are gray16le, "
    "depth",
  )
  os.remove(files[0])
  assert opened(path).cameras == ("top",)
  write_depth(files[0], 1)
  assert opened(path).cameras == ("top",)


@pytest.mark.parametrize(
  "info, pattern",
  [
    ({"fps": None}, "fps = None, expected a positive number"),
    ({"fps": 0}, "fps = 0, expected"),
    ({"fps": "fast"}, "fps = 'fast', expected"),
    ({"fps": True}, "fps = True, expected"),
    ({"features": ["action"]}, "features is not an object"),
    ({"features": {}}, "no camera"),
    ({"chunks_size": 0}, "chunks_size = 0, expected"),
    ({"codebase_version": "v1.6"}, "'v1.6' is not supported, expected v2.0, v2.1 or v3.0"),
    ({"data_path": "data/{episode}.parquet"}, "data_path = .*did you mean 'episode_"),
    ({"data_path": "data/{episode_index:9999999999d}.parquet"}, "data_path = .*cannot be used"),
    ({"data_path": "/etc/{episode_index}.parquet"}, "data_path = .*leads out of the data set"),
    (
      {"video_path": "../{video_key}/{episode_index}.mp4"},
      "video_path = .*leads out of the data set",
    ),
    ({"video_path": "{video_key.__class__}"}, "video_path = .*cannot be used"),
  ],
)
def test_info_that_cannot_be(tmp_path, info, pattern):
  path = Folder(lengths=(6,), info=lambda before: before | info).write(tmp_path / "set")
  with pytest.raises(errors.UserError, match=pattern) as caught:
    opened(path)
  assert path in str(caught.value) and "\n" not in str(caught.value)


def test_info_that_may_be(tmp_path):
  for i, info in enumerate(
    ({"fps": "10"}, {"fps": 10.0}, {"codebase_version": "2.1"}, {"codebase_version": "v2"})
  ):
    check(
      opened(Folder(info=lambda before, info=info: before | info).write(tmp_path / str(i)))[1],
      1,
      range(8),
    )
  path = Folder().write(tmp_path / "set")
  for text, pattern in (
    ("[1]", "holds a JSON list"),
    ("{", "not readable JSON"),
    ('{"fps": 1}', "codebase_version None"),
    ('{"codebase_version": "v2.1", "fps": 1}', "lacks the key 'features'"),
  ):
    pathlib.Path(f"{path}/meta/info.json").write_text(text)
    with pytest.raises(errors.UserError, match=pattern):
      opened(path)


def test_a_camera_whose_name_leads_out_of_the_data_set(tmp_path):
  info = features(**{"../../other": {"dtype": "video", "shape": [8, 8, 3]}})
  source = opened(Folder(info=info).write(tmp_path / "set"))
  refused(source, 1, "path 'videos/chunk-000/../../other/.*' leads out of the data set")


def test_folders_of_sets(tmp_path):
  for name in ("a", "lab/b", ".hidden"):
    Folder(lengths=(6,)).write(tmp_path / "all" / name)
  (tmp_path / "all" / "empty").mkdir()
  os.symlink("..", tmp_path / "all" / "lab" / "loop")
  os.symlink("../a", tmp_path / "all" / "lab" / "again")
  assert lerobot_features.find_nested(str(tmp_path / "all")) == ["a", "lab/b"]
  a = str(tmp_path / "all" / "a")
  assert lerobot_features.find_nested(a) == []
  Folder(lengths=(6,)).write(f"{a}/copy")
  assert lerobot_features.find_nested(a) == ["copy"]
  assert opened(a).skipped == [
    {"name": "copy", "reason": "a LeRobot data set of its own: give its folder"}
  ]


def test_columns_that_info_does_not_describe(tmp_path):
  path = Folder(rows=rows(lambda e, columns: {"torque": columns["action"]})).write(tmp_path / "set")
  assert [one["reason"] for one in opened(path).skipped] == [
    "columns not used, meta/info.json does not describe them: torque"
  ]


def test_path_templates_that_give_one_file_to_several(tmp_path):
  def write(name, lengths=(6, 6), cameras=(TOP, WRIST), version="v2.1", **paths):
    folder = Folder(
      version=version, lengths=lengths, videos=cameras, info=lambda info: info | paths
    )
    return folder.write(tmp_path / name)

  both = f"to the cameras '{TOP}' and '{WRIST}': the part {{video_key}} is missing"
  for name, options, pattern in (
    ("camera", {"video_path": "videos/{episode_index}.mp4"}, f"gives videos/0.mp4 {both}"),
    (
      "shared",
      {"video_path": "videos/{chunk_index}/{file_index}.mp4", "version": "v3.0"},
      f"gives videos/0/0.mp4 {both}",
    ),
    (
      "episode",
      {"video_path": "videos/{video_key}.mp4"},
      (
        f"video_path = .* gives videos/{TOP}.mp4 to the episodes 0 and 1: the part "
        f"{{episode_index}} is missing"
      ),
    ),
    (
      "table",
      {"data_path": "data/all.parquet"},
      "data_path = .* gives data/all.parquet to the episodes 0 and 1",
    ),
  ):
    with pytest.raises(errors.UserError, match=pattern):
      opened(write(name, **options))
  one = write("one", cameras=(TOP,), lengths=(6,), video_path="all.mp4", data_path="all.parquet")
  os.rename(f"{one}/videos/chunk-000/{TOP}/episode_000000.mp4", f"{one}/all.mp4")
  os.rename(f"{one}/data/chunk-000/episode_000000.parquet", f"{one}/all.parquet")
  check(opened(one)[0], 0, range(6))


def test_totals_that_are_not_those_of_the_episodes(tmp_path):
  for name, totals, wanted in (
    ("right", {"total_episodes": 2, "total_frames": 14}, []),
    (
      "wrong",
      {"total_episodes": 3, "total_frames": 20},
      ["total_episodes = 3, meta/episodes lists 2", "total_frames = 20, meta/episodes lists 14"],
    ),
  ):
    source = opened(Folder(info=lambda info, totals=totals: info | totals).write(tmp_path / name))
    assert source.skipped == [{"name": "meta/info.json", "reason": text} for text in wanted]
  folder = Folder(
    info=lambda info: info | {"total_frames": 20}, episodes=each(lambda row: {"length": None})
  )
  assert opened(folder.write(tmp_path / "unknown")).skipped == []


def test_a_folder_whose_name_is_not_utf8(tmp_path):
  path = Folder().write(tmp_path / "set")
  other = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
  os.rename(path, other)
  with pytest.raises(
    errors.UserError, match=r"caf\\xe9: the path of the LeRobot data set is not UTF-8"
  ):
    opened(other)
