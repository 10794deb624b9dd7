"""LeRobot folders as they are found: each is read rightly, or refused naming what is wrong with
it.
"""

import os
import pathlib
import pickle

import numpy as np
import pyarrow as pa
import pytest

from como_jax import errors
from como_jax.data import sources, video
from como_jax.data.sources import lerobot
from tests.data import lerobot_makers as makers
from tests.data import makers as plain_makers
from tests.data.lerobot_makers import (
  TOP,
  WRIST,
  Folder,
  check,
  each,
  features,
  opened,
  refused,
  rows,
  shown,
)
from tests.data.makers import write_video


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_every_layout(tmp_path, version):
  folder = Folder(version=version, lengths=(6, 9, 7), videos=(TOP,), images=(WRIST,))
  folder.files = {TOP: [[0], [1, 2]]}
  path = folder.write(tmp_path / "set")
  assert sources.detect(path) == "lerobot"
  source = opened(path)
  assert source.cameras == ("top", "wrist") and len(source) == 3 and source.skipped == []
  assert source.names == ("episode_000000", "episode_000001", "episode_000002")
  assert source.info["action_names"] == ["a", "b", "c"] and source.info["state_names"] == ["x", "y"]
  assert "action from 'action', state from 'observation.state'" in source.info["description"]
  for i in (2, 0, 1):
    raw = source[i]
    check(raw, i, range((6, 9, 7)[i]))
    assert raw.task == makers.TASKS[i % 2] and raw.group == ""
    for camera in source.cameras:
      assert next(iter(raw.cameras[camera](video.Geometry(32))))[1].shape == (32, 32, 3)
    assert raw.notes == []


def test_av1(tmp_path):
  source = opened(Folder(version="v3.0", codec="libsvtav1").write(tmp_path / "set"))
  check(source[1], 1, range(8))


def test_groups_are_kept(tmp_path):
  assert opened(Folder().write(tmp_path / "none"))[0].group == ""
  for name, change, wanted in (
    ("motion", lambda row: {"motion": 3}, ["open the drawer/3", "close the drawer/3"]),
    ("group", lambda row: {"motion": 3, "group": "a/b"}, ["a/b", "a/b"]),
    ("nan", lambda row: {"group": float("nan"), "motion": None}, ["", ""]),
  ):
    source = opened(Folder(version="v3.0", episodes=each(change)).write(tmp_path / name))
    assert [source[i].group for i in range(2)] == wanted, name


def test_a_camera_without_its_file(tmp_path):
  path = Folder(videos=(TOP, WRIST)).write(tmp_path / "set")
  os.remove(f"{path}/videos/chunk-000/{WRIST}/episode_000001.mp4")
  source = opened(path)
  refused(
    source, 1, f"camera 'wrist', videos/chunk-000/{WRIST}/episode_000001.mp4: the file is missing"
  )
  check(source[0], 0, range(6))


@pytest.mark.parametrize("pictures", [7, 6, 4, 12])
def test_more_or_fewer_pictures_than_rows(tmp_path, pictures):
  path = Folder(lengths=(8,), pictures=lambda e: range(pictures)).write(tmp_path / "set")
  if pictures == 4:
    refused(
      opened(path),
      0,
      "episode's video from 0 to 0.400 s with 4 pictures for 8 rows: the video is too short",
    )
    return
  raw = opened(path)[0]
  assert shown(raw, "top")[1] == [min(t, pictures - 1) for t in range(8)]
  where = f"camera 'top', videos/chunk-000/{TOP}/episode_000000.mp4: "
  wanted = [where + f"{pictures} pictures for 8 rows"]
  if pictures < 8:
    wanted += [
      where
      + f"{8 - pictures} of 8 timestamps are further than half a frame from the nearest video frame"
    ]
  assert raw.notes == wanted


def test_a_shared_file_that_lacks_pictures_is_said(tmp_path):
  path = Folder(version="v3.0").write(tmp_path / "set")
  numbers = [0, 1, 2, 3, 4, 5, *range(1000, 1007)]
  write_video(
    f"{path}/videos/{TOP}/chunk-000/file-000.mp4", [makers.coded(n) for n in numbers], fps=10
  )
  assert any(
    "13 pictures in the file for 14 rows of its episodes" in note for note in opened(path)[0].notes
  )


@pytest.mark.parametrize(
  "cell, reason",
  [
    ({"bytes": None, "path": "images/0.png"}, None),
    ({"bytes": b"", "path": "images/0.png"}, None),
    ({"bytes": None, "path": "images/1.png"}, "images/1.png is missing"),
    ({"bytes": None, "path": "/dev/zero"}, "'/dev/zero' leads out of the data set"),
    ({"bytes": None, "path": "../set/images/0.png"}, "leads out of the data set"),
    (
      {"bytes": b"\x89PNG\r\n", "path": None},
      r"the image at frame 2 cannot be used \(cannot identify image file\)",
    ),
    (None, "the cell is empty"),
  ],
)
def test_images_that_are_named(tmp_path, cell, reason):
  def change(e, columns):
    cells = columns[WRIST].to_pylist()
    return {
      WRIST: pa.array(
        [*cells[:2], cell, *cells[3:]], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
      )
    }

  path = Folder(lengths=(6,), videos=(), images=(WRIST,), rows=rows(change)).write(tmp_path / "set")
  os.makedirs(f"{path}/images")
  pathlib.Path(f"{path}/images/0.png").write_bytes(makers.png(2))
  if reason:
    refused(opened(path), 0, f"camera 'wrist' in .*at frame 2.*{reason}|{reason}")
  else:
    check(opened(path)[0], 0, range(6))


def test_parquet_that_cannot_be_read(tmp_path):
  path = Folder(version="v3.0").write(tmp_path / "set")
  data = f"{path}/data/chunk-000/file-000.parquet"
  whole = pathlib.Path(data).read_bytes()
  pathlib.Path(data).write_bytes(whole[:-200])
  refused(opened(path), 0, "file-000.parquet has no parquet footer.*finalize")
  os.remove(data)
  refused(opened(path), 1, "file-000.parquet is missing")
  pathlib.Path(f"{path}/meta/episodes/chunk-000/file-000.parquet").write_bytes(b"PAR1 unfinished")
  with pytest.raises(errors.UserError, match="no parquet footer"):
    opened(path)


def test_files_that_nobody_uses(tmp_path):
  path = Folder(videos=(TOP, WRIST)).write(tmp_path / "set")
  for name in (
    "data/extra.parquet",
    f"videos/chunk-000/{TOP}/a.mp4",
    f"videos/chunk-000/{TOP}/b.mp4",
    "data/.hidden",
    "videos/.cache/c.mp4",
    "images/old/0.png",
    "README.md",
  ):
    os.makedirs(os.path.dirname(f"{path}/{name}"), exist_ok=True)
    open(f"{path}/{name}", "w").close()
  os.symlink("..", f"{path}/videos/loop")
  wanted = [
    {"name": "data/extra.parquet", "reason": "no episode of meta/episodes uses it"},
    {
      "name": f"videos/chunk-000/{TOP}",
      "reason": "2 files that no episode of meta/episodes uses: a.mp4, b.mp4",
    },
  ]
  assert opened(path).skipped == wanted
  unchosen = [one["name"] for one in opened(path, camera_keys=("top",)).skipped]
  assert unchosen == ["camera wrist", *(one["name"] for one in wanted)]  # not its files besides
  open(os.fsencode(f"{path}/data/") + b"caf\xe9.parquet", "wb").close()
  assert opened(path).skipped[0]["reason"].endswith("uses: caf\\xe9.parquet, extra.parquet")


def test_fingerprint(tmp_path):
  path = Folder().write(tmp_path / "set")
  before = opened(path).fingerprint()
  assert lerobot.LeRobot(path).fingerprint() == before
  for name in ("videos/.cache/index", "data/.part", "images/left/over.png", "README.md"):
    os.makedirs(os.path.dirname(f"{path}/{name}"), exist_ok=True)
    open(f"{path}/{name}", "w").close()
  assert opened(path).fingerprint() == before
  for name in (
    f"videos/chunk-000/{TOP}/episode_000001.mp4",
    "data/chunk-000/episode_000000.parquet",
    "meta/info.json",
  ):
    os.utime(f"{path}/{name}", (1, 1))
    assert opened(path).fingerprint() != before, name
    before = opened(path).fingerprint()


def test_fingerprint_of_pictures_in_files(tmp_path):
  path = Folder(videos=(), images=(WRIST,)).write(tmp_path / "set")
  os.makedirs(f"{path}/images")
  open(f"{path}/images/0.png", "w").close()
  before = opened(path).fingerprint()
  os.utime(f"{path}/images/0.png", (1, 1))
  assert opened(path).fingerprint() != before


def test_the_tables_of_another_episode_are_not_read_for_its_rows(tmp_path):
  """v3: row groups hold several episodes, and an episode several row groups."""
  source = opened(
    Folder(version="v3.0", lengths=(3, 11, 4, 2), videos=(), images=(WRIST,)).write(
      tmp_path / "set"
    )
  )
  for i, length in enumerate((3, 11, 4, 2)):
    check(source[i], i, range(length))


def test_every_reason_is_one_line(tmp_path):
  path = Folder().write(tmp_path / "set")
  pathlib.Path(f"{path}/data/chunk-000/episode_000001.parquet").write_bytes(
    b"PAR1" + b"\0" * 100 + b"PAR1"
  )
  with pytest.raises(
    video.UnreadableError, match=r"^episode 1: .*episode_000001.parquet is not readable"
  ) as caught:
    opened(path)[1]
  assert "\n" not in str(caught.value)


def test_what_it_says_of_itself(tmp_path):
  def info(before):
    return before | {"robot_type": "panda"}

  path = Folder(images=(WRIST,), info=info).write(tmp_path / "set")
  source = lerobot.LeRobot(path)
  assert source.info == {
    "format": "lerobot",
    "robot_type": "panda",
    "action_names": ["a", "b", "c"],
    "state_names": ["x", "y"],
    "description": (
      "LeRobot v2.1 data set, robot panda, action from 'action', state from 'observation.state'"
    ),
  }
  plain = lerobot.LeRobot(
    Folder(info=lambda before: {k: v for k, v in before.items() if k != "robot_type"}).write(
      tmp_path / "plain"
    )
  )
  assert plain.info["description"].startswith("LeRobot v2.1 data set, robot unknown, ")
  again = pickle.loads(pickle.dumps(source))
  assert (
    again._files == []
    and again._probed == {}
    and again.fingerprint() == source.fingerprint()
    and source._files
  )
  assert (len(source), source.names, source.cameras) == (
    2,
    ("episode_000000", "episode_000001"),
    ("top", "wrist"),
  )
  check(again[1], 1, range(8))


def test_sizes_and_names_that_do_not_fit(tmp_path):
  # no shape: the first file tells
  folder = Folder(info=features(action={"dtype": "float32", "names": ["a", "b"]}))
  source = opened(folder.write(tmp_path / "set"))
  assert source.info["action_names"] is None and source.info["state_names"] == ["x", "y"]
  assert source.skipped == [
    {
      "name": "meta/info.json",
      "reason": "feature 'action' has 2 names for 3 numbers: the names are not used",
    }
  ]
  path = Folder(info=features(action={"dtype": "float32", "names": None}), lengths=(6,)).write(
    tmp_path / "unreadable"
  )
  os.remove(f"{path}/data/chunk-000/episode_000000.parquet")
  assert opened(path)._sizes == {"action": None, "state": 2}


def broken(*frames, column="action"):
  def change(e, columns):
    values = [list(map(float, row)) for row in columns[column].to_pylist()]
    for frame in frames:
      values[frame][0] = np.nan
    return {column: pa.array(values, pa.list_(pa.float64()))}

  return rows(change, only=1)


@pytest.mark.parametrize(
  "frames, kept", [((2,), 2), ((7,), 7), ((3, 5), 3), ((1,), None), ((0, 5), None)]
)
def test_rows_before_one_that_is_not_finite(tmp_path, frames, kept):
  path = Folder(rows=broken(*frames)).write(tmp_path / "set")
  refused(
    opened(path),
    1,
    f"is null or not finite at frame {frames[0]}, {len(frames)} of 8 rows; source option "
    "invalid_rows = 'cut_episode' keeps",
  )
  if kept is None:
    refused(
      opened(path, invalid_rows="cut_episode"),
      1,
      f"at frame {frames[0]}, {len(frames)} of 8 rows: nothing is left before it",
    )
  else:
    raw = opened(path, invalid_rows="cut_episode")[1]
    check(raw, 1, range(kept))
    assert raw.notes[0].endswith(f"{len(frames)} of 8 rows: cut before it")


def test_the_earlier_of_two_cuts(tmp_path):
  def both(e, columns):
    return broken(5)(e, columns) | {
      "observation.state": broken(3, column="observation.state")(e, columns)["observation.state"]
    }

  raw = opened(Folder(rows=both).write(tmp_path / "set"), invalid_rows="cut_episode")[1]
  check(raw, 1, range(3))


def test_depth_alone(tmp_path):
  depth = {"dtype": "image", "shape": [makers.HEIGHT, makers.WIDTH, 1], "is_depth_map": True}
  folder = Folder(videos=(), images=(WRIST,), info=features(**{WRIST: depth}))
  path = folder.write(tmp_path / "set")
  with pytest.raises(
    errors.UserError,
    match=(
      "the LeRobot data set has only depth cameras; source option depth_range = .nearest, "
      "farthest. scales"
    ),
  ):
    opened(path)
  assert opened(path, depth_range=(0, 9)).cameras == ("wrist",)
  with pytest.raises(
    errors.UserError,
    match=(
      r"source option camera_keys: 'wrist' \(observation.images.wrist\): its images are depth, "
      r"source option depth_range"
    ),
  ):
    opened(path, camera_keys=(WRIST,))


def test_pictures_that_end_early(tmp_path):
  def change(e, columns):
    return {WRIST: columns[WRIST]}

  path = Folder(videos=(), images=(WRIST,), rows=rows(change)).write(tmp_path / "set")
  source = opened(path)
  frames = source._images(
    f"{path}/data/chunk-000/episode_000000.parquet",
    0,
    source._cameras[0],
    np.arange(8) / 10,
    video.Geometry(),
  )
  with pytest.raises(
    video.UnreadableError,
    match=(
      "^episode 0: camera 'wrist' in data/chunk-000/episode_000000.parquet has no frame 6 of 8$"
    ),
  ):
    list(frames)
  assert source._looks_deep(source._cameras[0], "") is False


def test_notes_name_the_camera_and_a_bad_picture_the_episode(tmp_path, monkeypatch):
  source = opened(Folder().write(tmp_path / "set"))
  raw = source[1]

  def read_at(path, place, geometry, *, notes, options):
    notes.append("said")
    yield plain_makers.picture(0)
    raise video.UnreadableError("broken")

  monkeypatch.setattr(lerobot.video, "read_at", read_at)
  with pytest.raises(
    video.UnreadableError,
    match=f"^episode 1: camera 'top', videos/chunk-000/{TOP}/episode_000001.mp4: broken$",
  ):
    list(raw.cameras["top"](video.Geometry()))
  assert raw.notes == [f"camera 'top', videos/chunk-000/{TOP}/episode_000001.mp4: said"]
