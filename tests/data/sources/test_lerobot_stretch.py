"""Borders of episodes in shared files."""

import pytest

from tests.data import lerobot_makers as makers
from tests.data.lerobot_makers import TOP, Folder, check, each, opened, refused, shown
from tests.data.makers import write_video


def test_borders_of_a_shared_file_on_the_tables_clock(tmp_path):
  """v3 sets whose from_timestamp was computed from lengths / fps while the video runs at another
  rate.
  """
  key = f"videos/{TOP}"
  change = each(
    lambda row: {
      f"{key}/from_timestamp": row[f"{key}/from_timestamp"] / 2,
      f"{key}/to_timestamp": row[f"{key}/to_timestamp"] / 2,
    }
  )
  path = Folder(version="v3.0", lengths=(9, 12), fps=20, video_fps=10, episodes=change).write(
    tmp_path / "set"
  )
  refused(opened(path), 1, "has 10 pictures a second, its table 20 rows a second")
  check(opened(path, rate_conflict="video")[1], 1, range(12), fps=10)


def moved(change):
  """A knob of `Folder`: borders of episodes in a shared file, by a function of (episode,
  seconds).
  """
  names = [f"videos/{TOP}/{name}_timestamp" for name in ("from", "to")]
  return each(lambda row: {name: change(row["episode_index"], row[name]) for name in names})


@pytest.mark.parametrize("away", [0.06, 0.1, 0.27])
def test_borders_beside_the_pictures(tmp_path, away):
  """v3: each row of the file has a picture, and the borders skip the first ones."""
  lengths = (6, 8, 9)
  path = Folder(version="v3.0", lengths=lengths, episodes=moved(lambda e, x: x + away)).write(
    tmp_path / "set"
  )
  for i in range(3):
    before = (0, 6, 14)[i]
    refused(
      opened(path),
      i,
      f"begins at {before / 10 + away:.3f} s .*'from_timestamp'.*nearest to picture "
      f"{round(before + 10 * away)}; those before it have {before} rows.*rate_conflict",
    )
    raw = opened(path, rate_conflict="video")[i]
    check(raw, i, range(lengths[i]))
    assert len(raw.notes) == 1 and "the video is believed" in raw.notes[0]
  assert shown(opened(path, rate_conflict="table")[0], "top")[1][0] == round(10 * away)
  for near in (0.0004, 0.03, -0.03):
    folder = Folder(
      version="v3.0", lengths=lengths, episodes=moved(lambda e, x, near=near: max(0, x + near))
    )
    source = opened(folder.write(tmp_path / str(near)))
    for i in range(3):
      check(source[i], i, range(lengths[i]))
      assert source[i].notes == []


@pytest.mark.parametrize("factor", [1.03, 0.97])
def test_borders_that_drift(tmp_path, factor):
  """v3: borders added up from lengths that are a little off."""
  path = Folder(
    version="v3.0", lengths=(15, 15, 15), episodes=moved(lambda e, x: x * factor)
  ).write(tmp_path / "set")
  source = opened(path)
  for i in range(2):
    assert shown(source[i], "top")[1] == [1000 * i + t for t in range(15)]
  refused(source, 2, f"nearest to picture {round(30 * factor)}; those before it have 30 rows")
  check(opened(path, rate_conflict="video")[2], 2, range(15))


def test_borders_that_fit_where_numbers_agree_by_chance(tmp_path):
  """v3: an episode has a picture more than rows, the next one fewer; the borders know."""
  source = opened(
    Folder(version="v3.0", pictures=lambda e: range(1000 * e, 1000 * e + 7)).write(tmp_path / "set")
  )
  assert shown(source[0], "top")[1] == list(range(6))
  assert shown(source[1], "top")[1] == [*range(1000, 1007), 1006]


def test_a_shared_file_that_pauses_between_episodes(tmp_path):
  """v3: the borders may know of the pause, as those that were measured do, or not, as those added
  up from lengths.
  """
  for name, late in (("known", 0.2), ("unknown", 0.0)):
    path = Folder(version="v3.0", episodes=moved(lambda e, x, late=late: x + e * late)).write(
      tmp_path / name
    )
    times = [*range(0, 600, 100), *range(800, 1600, 100)]
    pictures = [makers.coded(n) for n in [*range(6), *range(1000, 1008)]]
    write_video(f"{path}/videos/{TOP}/chunk-000/file-000.mp4", pictures, times=times)
    source = opened(path)
    check(source[0], 0, range(6))
    if late:
      check(source[1], 1, range(8))
      assert source[1].notes == []
    else:
      refused(source, 1, "begins at 0.600 s .*nearest to picture 5; those before it have 6 rows")
      check(opened(path, rate_conflict="video")[1], 1, range(8))


def test_a_shared_file_that_goes_on_is_said(tmp_path):
  """v3: behind the last episode, or a picture more for each one, which nothing tells."""
  change = moved(lambda e, x: x - 0.1 * ((x > 0.5) + (x > 1)))
  folder = Folder(
    version="v3.0", lengths=(6, 8), pictures=lambda e: range(1000 * e, 1000 * e + (7, 9)[e])
  )
  assert [
    note for note in opened(folder.write(tmp_path / "own"))[1].notes if "in the file" in note
  ] == []
  folder.episodes = change
  raw = opened(folder.write(tmp_path / "set"))[1]
  assert any(
    note.endswith("file-000.mp4: 16 pictures in the file, its episodes end after 14")
    for note in raw.notes
  )
