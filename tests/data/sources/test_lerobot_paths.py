"""Places of episodes: templates, shared files, and which files belong to a data set."""

import os

import pytest

from como_jax import errors
from como_jax.data import video
from como_jax.data.sources import lerobot_paths as locations
from tests.data.lerobot_makers import TOP, WRIST, Folder, check, each, opened, refused


def test_places_in_shared_files_are_needed(tmp_path):
  def drop(row):
    return {key: value for key, value in row.items() if key != f"videos/{TOP}/from_timestamp"}

  folder = Folder(
    version="v3.0", videos=(TOP, WRIST), episodes=lambda table: list(map(drop, table))
  )
  path = folder.write(tmp_path / "column")
  pattern = f"no column 'videos/{TOP}/from_timestamp', only videos/{WRIST}/from_timestamp"
  with pytest.raises(errors.UserError, match=pattern):
    opened(path)
  check(opened(path, camera_keys=("wrist",))[1], 1, range(8))
  for name in ("data/file_index", f"videos/{WRIST}/chunk_index"):
    folder.episodes = lambda table, name=name: [
      {k: v for k, v in row.items() if k != name} for row in table
    ]
    with pytest.raises(errors.UserError, match=f"no column '{name}'"):
      opened(folder.write(tmp_path / name.replace("/", "_")))
  folder.episodes = lambda table: [table[0] | {f"videos/{TOP}/from_timestamp": None}, table[1]]
  source = opened(folder.write(tmp_path / "row"))
  refused(
    source, 0, f"column 'videos/{TOP}/from_timestamp' of meta/episodes is None, expected seconds"
  )
  check(source[1], 1, range(8))


@pytest.mark.parametrize("end", [None, float("nan")])
def test_ends_in_shared_files_are_not_needed(tmp_path, end):
  change = each(lambda row: {f"videos/{TOP}/to_timestamp": end})
  source = opened(
    Folder(version="v3.0", lengths=(6, 8, 9), episodes=change).write(tmp_path / "set")
  )
  for i in range(3):
    check(source[i], i, range((6, 8, 9)[i]))
    assert source[i].notes == []
  # Pictures between two episodes that belong to neither: of rows that were taken out at the end.
  change = each(lambda row: {f"videos/{TOP}/to_timestamp": (0.6, 1.8)[row["episode_index"]]})
  folder = Folder(
    version="v3.0", pictures=lambda e: range(1000 * e, 1000 * e + (10, 8)[e]), episodes=change
  )
  source = opened(folder.write(tmp_path / "gap"))
  check(source[0], 0, range(6))
  check(source[1], 1, range(8))
  assert source[0].notes == source[1].notes == []
  change = each(lambda row: {f"videos/{TOP}/to_timestamp": (0.6, 0.5, 2.3)[row["episode_index"]]})
  source = opened(
    Folder(version="v3.0", lengths=(6, 8, 9), episodes=change).write(tmp_path / "before")
  )
  refused(source, 1, "file-000.mp4: the episode begins at 0.600 and ends at 0.500 s")
  check(source[2], 2, range(9))


def test_episodes_that_claim_the_same_pictures(tmp_path):
  change = each(lambda row: {f"videos/{TOP}/from_timestamp": (0.0, 0.3, 1.4)[row["episode_index"]]})
  source = opened(
    Folder(version="v3.0", lengths=(6, 8, 9), episodes=change).write(tmp_path / "set")
  )
  for i in range(2):
    refused(
      source, i, "0.000 to 0.600 of episode 0 overlap 0.300 to 1.400 of episode 1.*from_timestamp"
    )
  check(source[2], 2, range(9))


INFO = {
  "major": 3,
  "chunks_size": 2,
  "fps": 10.0,
  "data_path": "data/{chunk_index:03d}/{file_index}.parquet",
  "video_path": "videos/{video_key}/{chunk_index}-{file_index:02d}.mp4",
}


def paths(**changes):
  return locations.Paths("root", INFO | changes)


def episode_row(number, start, end=None, *, length=6, file=0):
  return {
    "episode_index": number,
    "length": length,
    "videos/top/chunk_index": 1,
    "videos/top/file_index": file,
    "videos/top/from_timestamp": start,
    "videos/top/to_timestamp": end,
    "data/chunk_index": 0,
    "data/file_index": number,
  }


def test_places_by_template():
  found = paths()
  assert (
    found.data(episode_row(5, 0.0)) == "root/data/000/5.parquet"
    and found.video(episode_row(5, 0.0, file=3), "top") == "root/videos/top/1-03.mp4"
  )
  old = paths(
    major=2, data_path="data/{episode_chunk}/{episode_index:03d}.parquet", video_path=None
  )
  assert (
    old.data({"episode_index": 5}) == "root/data/2/005.parquet"
    and old.data({"episode_index": 1}) == "root/data/0/001.parquet"
  )
  with pytest.raises(
    video.UnreadableError, match="^meta/info.json has no video_path for the camera 'top'$"
  ):
    old.video({"episode_index": 5}, "top")
  with pytest.raises(
    video.UnreadableError,
    match="^column 'data/file_index' of meta/episodes is 1.5, expected a whole number$",
  ):
    found.data(episode_row(1, 0.0) | {"data/file_index": 1.5})
  with pytest.raises(
    video.UnreadableError, match="^the path template '{episode_index:q}' cannot be filled"
  ):
    paths(data_path="{episode_index:q}").data(episode_row(1, 0.0))
  with pytest.raises(video.UnreadableError, match="leads out of the data set"):
    paths(video_path="{video_key}/x").video(episode_row(1, 0.0), "..")


def test_stretches_of_shared_files():
  damaged = {7: "known"}
  rows = [
    episode_row(2, 1.4, None, length=4),
    episode_row(0, 0.0, 0.6),
    episode_row(1, 0.6, 1.2, length=8),
    episode_row(3, 0.0, 0.6, file=1),
    episode_row(7, 0.0),
  ]
  found = paths().stretches(rows, ["top"], damaged)
  assert damaged == {7: "known"}
  assert found == {
    ("top", 0): (0.0, 0.6, True, 18, pytest.approx(1.8), None),
    ("top", 1): (0.6, 1.2, True, 18, pytest.approx(1.8), None),
    ("top", 2): (1.4, None, False, 18, pytest.approx(1.8), None),
    ("top", 3): (0.0, 0.6, False, 6, 0.6, 0),
  }
  found = paths().stretches(
    [episode_row(0, 0.0, 0.6), episode_row(1, 0.6, 1.4, length=8), episode_row(2, 1.4, 2.0)],
    ["top"],
    damaged,
  )
  # rows before each in a file whose borders fit the rows
  assert [found["top", i][5] for i in range(3)] == [0, 6, 14]
  # An end that is not known is where the next begins, or behind the rows; one beyond the next's
  # beginning stops there.
  found = paths().stretches(
    [episode_row(0, 0.0), episode_row(1, 0.7, length=None), episode_row(2, 1.0, 1.3)],
    ["top"],
    damaged,
  )
  assert found == {
    ("top", 0): (0.0, 0.7, True, 0, 1.3, None),
    ("top", 1): (0.7, 1.0, True, 0, 1.3, None),
    ("top", 2): (1.0, 1.3, False, 0, 1.3, None),
  }
  found = paths().stretches([episode_row(0, 0.0, 0.64), episode_row(1, 0.6, 1.0)], ["top"], damaged)
  # less than half a frame
  assert found["top", 0][:3] == (0.0, 0.6, True) and damaged == {7: "known"}
  assert paths(major=2).stretches(rows, ["top"], damaged) == {}


def test_claims_to_the_same_part_of_a_file():
  damaged = {}
  paths().stretches(
    [
      episode_row(0, 0.0, 2.0),
      episode_row(1, 0.5, 0.9),
      episode_row(2, 1.94, 2.5),
      episode_row(3, 2.46, 3.0),
    ],
    ["top"],
    damaged,
  )
  text = (
    "videos/top/1-00.mp4: seconds 0.000 to 2.000 of episode 0 overlap {} of episode {} (columns "
    "'videos/top/from_timestamp' and 'to_timestamp' of meta/episodes)"
  )
  assert damaged == {
    0: text.format("0.500 to 0.900", 1),
    1: text.format("0.500 to 0.900", 1),
    2: text.format("1.940 to 2.500", 2),
  }
  damaged = {}
  paths().stretches(
    [episode_row(0, 0.0, 0.6), episode_row(1, 0.6, 0.6), episode_row(2, 0.7, 0.65)],
    ["top"],
    damaged,
  )
  assert damaged == {
    1: (
      "videos/top/1-00.mp4: the episode begins at 0.600 and ends at 0.600 s (columns "
      "'videos/top/from_timestamp' and 'to_timestamp' of meta/episodes)"
    ),
    2: (
      "videos/top/1-00.mp4: the episode begins at 0.700 and ends at 0.650 s (columns "
      "'videos/top/from_timestamp' and 'to_timestamp' of meta/episodes)"
    ),
  }


def test_columns_that_every_episode_needs():
  rows = [episode_row(0, 0.0), episode_row(1, -1.0), episode_row(2, None) | {"twice": "said"}]
  assert paths().check(rows, ["top"]) == {
    1: "column 'videos/top/from_timestamp' of meta/episodes is -1.0, expected seconds",
    2: "said",
  }
  assert (
    paths(major=2).check(rows[2:], ["top"]) == {2: "said"} and paths().check(rows[:1], []) == {}
  )
  lacking = [{k: v for k, v in one.items() if k != "videos/top/file_index"} for one in rows]
  with pytest.raises(
    errors.UserError,
    match=(
      "^root/meta/episodes has no column 'videos/top/file_index', only data/file_index; source "
      "option"
    ),
  ):
    paths().check(lacking, ["top"])
  assert paths(video_path="videos/{video_key}/{chunk_index}.mp4").check(lacking[:1], ["top"]) == {}
  with pytest.raises(errors.UserError, match="has no column 'videos/side/chunk_index'"):
    paths().check(rows, ["top", "side"])


def test_files_that_no_episode_uses():
  files = [
    "data/000/0.parquet",
    "data/000/1.parquet",
    "data/x/a",
    "videos/top/1-00.mp4",
    "meta/info.json",
    *(f"videos/old/{i}.mp4" for i in range(5)),
    "videos/less/a.mp4",
    "videos/less/b.mp4",
    "videos/less/c.mp4",
  ]
  found = paths().unused(
    files,
    [episode_row(0, 0.0), episode_row(1, 0.0)],
    {"top": {"dtype": "video"}, "flat": {"dtype": "image"}},
  )
  assert found == [
    {"name": "data/x/a", "reason": "no episode of meta/episodes uses it"},
    {
      "name": "videos/old",
      "reason": "5 files that no episode of meta/episodes uses: 0.mp4, 1.mp4, 2.mp4, ...",
    },
    {
      "name": "videos/less",
      "reason": "3 files that no episode of meta/episodes uses: a.mp4, b.mp4, c.mp4",
    },
  ]


def test_which_files_belong_to_a_data_set(tmp_path):
  for name in (
    "meta/info.json",
    "data/a/0.parquet",
    "data/.x",
    "data/.h/y",
    "videos/v.mp4",
    "images/i.png",
    "other/t/0.parquet",
    "notes.txt",
  ):
    os.makedirs(os.path.dirname(tmp_path / name), exist_ok=True)
    (tmp_path / name).write_text("")
  os.symlink("a", tmp_path / "data" / "again")
  os.symlink(tmp_path, tmp_path / "videos" / "loop")
  os.symlink(tmp_path / "nowhere", tmp_path / "data" / "lost")

  def files(**more):
    return locations.list_files(str(tmp_path), {"features": {}} | more)

  assert files() == ["data/a/0.parquet", "meta/info.json", "videos/v.mp4"]
  assert files(data_path="other/t/{episode_index}", video_path=None) == [
    "data/a/0.parquet",
    "meta/info.json",
    "other/t/0.parquet",
    "videos/v.mp4",
  ]
  assert "images/i.png" in files(features={"x": {"dtype": "image"}})
