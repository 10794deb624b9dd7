"""Times of LeRobot rows against their videos: origins, units, rates."""

import numpy as np
import pyarrow as pa
import pytest

from tests.data import lerobot_makers as makers
from tests.data.lerobot_makers import TOP, WRIST, Folder, check, opened, refused, rows, shown
from tests.data.makers import write_video


@pytest.mark.parametrize(
  "stamps, reason",
  [
    ([float("nan")] * 6, "'timestamp' is not finite: nan at frame 0, 6 of 6 rows.*'frame_index'"),
    ([0, 0.1, 0.2, None, 0.4, 0.5], "'timestamp' is not finite: nan at frame 3, 1 of 6 rows"),
    ([0.0] * 6, "'timestamp' is not increasing: 0 s at frame 0, then 0 s; so in 5 of 6 rows"),
    (
      [0, 0.1, 0.2, 0.15, 0.4, 0.5],
      "'timestamp' is not increasing: 0.2 s at frame 2, then 0.15 s; so in 1 of 6",
    ),
  ],
)
def test_times_that_are_none(tmp_path, stamps, reason):
  change = rows(lambda e, columns: {"timestamp": pa.array(stamps, pa.float64())}, only=0)
  path = Folder(rows=change).write(tmp_path / "set")
  source = opened(path)
  refused(source, 0, reason)
  check(source[1], 1, range(8))
  raw = opened(path, timestamps="frame_index")[0]
  check(raw, 0, range(6))
  wrong = sum(s is None or not abs(s - t / 10) <= 0.05 for t, s in enumerate(stamps))
  assert [f"{wrong} of 6 timestamps are not finite" in note for note in raw.notes] == [True] * bool(
    wrong
  )


def test_times_that_jitter_or_leave_rows_out(tmp_path):
  jitter = np.array([0, 0.13, 0.2, 0.27, 0.43, 0.5])
  path = Folder(rows=rows(lambda e, c: {"timestamp": pa.array(jitter)}, only=0)).write(
    tmp_path / "jitter"
  )
  raw = opened(path)[0]
  times, numbers = shown(raw, "top")
  assert numbers == [0, 1, 2, 3, 4, 5] and raw.notes == []
  np.testing.assert_array_equal(times, jitter)
  kept = np.array([0, 1, 2, 5, 6, 7])  # rows dropped, the video whole
  path = Folder(
    lengths=(6,),
    pictures=lambda e: range(8),
    rows=rows(lambda e, c: {"timestamp": pa.array(kept / 10)}),
  ).write(tmp_path / "dropped")
  times, numbers = shown(opened(path)[0], "top")
  assert numbers == kept.tolist()
  np.testing.assert_allclose(times, kept / 10)


def test_trimmed_rows_keep_their_pictures(tmp_path):
  change = rows(
    lambda e, c: {
      "timestamp": pa.array((10 + np.arange(6)) / 10, pa.float32()),
      "action": makers.vector([[e, 10 + t, 5 + t / 2] for t in range(6)]),
      "observation.state": makers.vector([[10 + t, e] for t in range(6)]),
    }
  )
  folder = Folder(lengths=(6, 6), pictures=lambda e: range(1000 * e, 1000 * e + 16), rows=change)
  raw = opened(folder.write(tmp_path / "set"))[1]
  check(raw, 1, range(10, 16), first=1.0)
  assert [note for note in raw.notes if "16 pictures for 6 rows" in note] == raw.notes


def stamped(origin, scale=1.0):
  def change(e, columns):
    return {
      "timestamp": pa.array(origin(e) + scale * np.arange(len(columns["index"])) / 10, pa.float64())
    }

  return rows(change)


@pytest.mark.parametrize("origin", [0.1, 0.16, 0.3, 7.0, 1.75e9])
def test_another_origin_is_taken_where_it_is_certain(tmp_path, origin):
  path = Folder(rows=stamped(lambda e: origin)).write(tmp_path / "set")
  raw = opened(path)[1]
  check(raw, 1, range(8))
  assert len(raw.notes) == 1 and f"timestamps run from {origin:.3f}" in raw.notes[0]
  assert "as many pictures as rows" in raw.notes[0]


def test_another_origin_is_refused_where_it_is_not(tmp_path):
  # 10 pictures for 8 rows: the first picture of the episode could be any of three.
  path = Folder(lengths=(8,), pictures=lambda e: range(10), rows=stamped(lambda e: 7.0)).write(
    tmp_path / "set"
  )
  refused(
    opened(path), 0, r"run from 7.000 to 7.700 s .*from 0 to 1.000 s with 10 pictures for 8 rows"
  )
  # A picture is missing: at the end, or is it the first row's?
  path = Folder(lengths=(8,), pictures=lambda e: range(7), rows=stamped(lambda e: 0.1)).write(
    tmp_path / "short"
  )
  refused(
    opened(path), 0, "run from 0.100 to 0.800 s .*from 0 to 0.700 s with 7 pictures for 8 rows"
  )
  path = Folder(rows=stamped(lambda e: -0.3)).write(tmp_path / "negative")
  raw = opened(path)[1]
  check(raw, 1, range(8))
  assert "timestamps run from -0.300" in raw.notes[0]


def test_milliseconds_are_refused(tmp_path):
  path = Folder(rows=stamped(lambda e: 0, 1000)).write(tmp_path / "set")
  refused(
    opened(path), 1, "has 10 pictures a second, its table 0.01 rows a second.*counted milliseconds"
  )
  path = Folder(videos=(), images=(WRIST,), rows=stamped(lambda e: 0, 1000)).write(
    tmp_path / "images"
  )
  refused(opened(path), 1, "table has 0.01 rows a second .*says fps 10")


def test_rows_beyond_an_episode_of_a_shared_file_never_show_the_next(tmp_path):
  """v3: the pictures of another episode lie right behind."""

  def change(table):  # two pictures of episode 0 are missing, all later ones lie earlier
    for row in table:
      start, end = ((0.0, 0.4), (0.4, 1.2))[row["episode_index"]]
      row |= {f"videos/{TOP}/from_timestamp": start, f"videos/{TOP}/to_timestamp": end}
    return table

  folder = Folder(
    version="v3.0", pictures=lambda e: range(1000 * e, 1000 * e + (4, 8)[e]), episodes=change
  )
  source = opened(folder.write(tmp_path / "set"))
  refused(source, 0, "run from 0.000 to 0.500 s .*from 0 to 0.400 s with 4 pictures for 6 rows")
  check(source[1], 1, range(8))
  # The table counts from the beginning of the file: read as it stands, episode 1 would show what
  # lies twice as far.
  path = Folder(version="v3.0", lengths=(6, 8, 9), rows=stamped(lambda e: (0, 0.6, 1.4)[e])).write(
    tmp_path / "global"
  )
  for i in range(3):
    raw = opened(path)[i]
    check(raw, i, range((6, 8, 9)[i]))
    assert len(raw.notes) == (i > 0)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("video_fps, fps", [(10, 20), (20, 10), (25, 30)])
def test_two_rates(tmp_path, version, video_fps, fps):
  path = Folder(version=version, lengths=(30, 20), fps=fps, video_fps=video_fps).write(
    tmp_path / "set"
  )
  for i in range(2):
    refused(
      opened(path),
      i,
      f"camera 'top', videos.*mp4 has {video_fps} pictures a second, its table {fps} rows a "
      f"second.*fps {fps}.*rate_conflict",
    )
    raw = opened(path, rate_conflict="video")[i]
    check(raw, i, range((30, 20)[i]), fps=video_fps)
    assert (
      f"{video_fps} pictures a second" in raw.notes[0] and "the video is believed" in raw.notes[0]
    )
  if version == "v2.1":
    pictures = [makers.coded(t) for t in range(13)]
    write_video(f"{path}/videos/chunk-000/{TOP}/episode_000001.mp4", pictures, fps=video_fps)
    refused(
      opened(path, rate_conflict="video"),
      1,
      "13 pictures for 20 rows of which the first shows number 0",
    )
  if video_fps < fps:
    times, numbers = shown(opened(path, rate_conflict="table")[0], "top")
    np.testing.assert_allclose(times, np.arange(30) / fps, atol=1e-6)
    # nearest in time
    assert np.abs(np.array(numbers) / video_fps - times).max() <= 0.5 / video_fps + 1e-6


def test_a_drift_of_more_than_a_picture_is_two_rates(tmp_path):
  path = Folder(lengths=(150, 40), fps=30, video_fps=30.3).write(tmp_path / "set")
  refused(opened(path), 0, "has 30.3 pictures a second, its table 30 rows a second")
  # a third of a picture at its end
  assert shown(opened(path)[1], "top")[1] == list(range(1000, 1040))


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
@pytest.mark.parametrize("video_fps, every", [(30, 3), (5, 0.5)])
def test_a_table_of_every_third_picture(tmp_path, version, video_fps, every):
  """Both take equally long: the clocks agree, only the rates do not."""
  lengths = (10, 20)

  def pictures(e):
    return range(1000 * e, 1000 * e + int(lengths[e] * every))

  folder = Folder(version=version, lengths=lengths, fps=10, video_fps=video_fps, pictures=pictures)
  path = folder.write(tmp_path / "set")
  for i in range(2):
    raw = opened(path)[i]
    numbers = np.array(shown(raw, "top")[1]) - 1000 * i
    assert np.abs(numbers / video_fps - np.arange(lengths[i]) / 10).max() <= 0.1 + 1e-6
    if every == 3:
      assert numbers.tolist() == list(range(0, 3 * lengths[i], 3))
    text = f"{video_fps} pictures a second, its table 10 rows: the nearest in time is taken"
    assert [text in note for note in raw.notes].count(True) == 1
  # 0.8 s longer than the table: two clocks, or not what the table is about.
  path = Folder(
    version=version,
    lengths=lengths,
    fps=10,
    video_fps=video_fps,
    pictures=lambda e: range(int((lengths[e] + 8) * every)),
  ).write(tmp_path / "longer")
  refused(opened(path), 1, f"has {video_fps} pictures a second, its table 10 rows")


def test_two_cameras_of_two_rates_have_no_common_time(tmp_path):
  path = Folder(videos=(TOP, WRIST), lengths=(12,), fps=10).write(tmp_path / "set")
  write_video(
    f"{path}/videos/chunk-000/{TOP}/episode_000000.mp4",
    [makers.coded(t) for t in range(12)],
    fps=20,
  )
  refused(opened(path), 0, "camera 'top'.*has 20 pictures a second, its table 10")
  pattern = "'top'.* has 20 pictures a second, camera 'wrist'.* 10: there is no one"
  refused(opened(path, rate_conflict="video"), 0, pattern)


def test_the_rate_of_info_is_only_said(tmp_path):
  raw = opened(Folder(info=lambda info: info | {"fps": 30}).write(tmp_path / "set"))[1]
  check(raw, 1, range(8))
  assert raw.notes == [
    (
      "the table has 10 rows a second (column 'timestamp'), meta/info.json says fps 30; the table "
      "is used"
    )
  ]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_a_picture_a_row_is_shown_in_order(tmp_path, version):
  """Times of a wall clock, further than half a picture from where the recorder put the picture."""
  stamps = np.array([0, 0.1, 0.26, 0.3, 0.4, 0.5, 0.54, 0.7])
  change = rows(lambda e, c: {"timestamp": pa.array(stamps)}, only=1)
  source = opened(Folder(version=version, rows=change).write(tmp_path / "set"))
  times, numbers = shown(source[1], "top")
  assert numbers == list(range(1000, 1008))
  np.testing.assert_array_equal(times, stamps)
  first = 6 if version == "v3.0" else 0
  assert len(source[1].notes) == 1 and source[0].notes == []
  assert (
    f"row 2 at 0.260 s is nearest to picture {first + 3}, so are 2 of 8 rows to another than "
    f"their own; the file has a picture a row: row 2 shows picture {first + 2}"
  ) in source[1].notes[0]
  # With another picture in the file, time alone can tell.
  folder = Folder(
    version=version, rows=change, pictures=lambda e: range(1000 * e, 1000 * e + (6, 9)[e])
  )
  numbers = shown(opened(folder.write(tmp_path / "longer"))[1], "top")[1]
  assert numbers == [1000, 1001, 1003, 1003, 1004, 1005, 1005, 1007]


def test_a_pause_of_both_clocks(tmp_path):
  """A video whose pictures pause is longer than its number of pictures tells."""
  milliseconds = [0, 100, 200, 300, 400, 1500, 1600, 1700]
  stamps = np.array(milliseconds) / 1000
  path = Folder(rows=rows(lambda e, c: {"timestamp": pa.array(stamps)}, only=1)).write(
    tmp_path / "set"
  )
  pictures = [makers.coded(1000 + t) for t in range(8)]
  write_video(f"{path}/videos/chunk-000/{TOP}/episode_000001.mp4", pictures, times=milliseconds)
  raw = opened(path)[1]
  times, numbers = shown(raw, "top")
  assert numbers == list(range(1000, 1008)) and raw.notes == []
  np.testing.assert_array_equal(times, stamps)


def test_rows_that_were_taken_out_and_stamped_anew(tmp_path):
  kept = np.array([0, 1, 2, 5, 6, 7])

  def change(e, columns):
    return {
      "frame_index": pa.array(kept),
      "action": makers.vector([[e, t, t / 2] for t in kept]),
      "observation.state": makers.vector([[t, e] for t in kept]),
    }

  folder = Folder(
    lengths=(6, 6), pictures=lambda e: range(1000 * e, 1000 * e + 8), rows=rows(change)
  )
  path = folder.write(tmp_path / "set")
  refused(
    opened(path),
    1,
    "column 'frame_index' goes from 2 to 5 at row 3, column 'timestamp' only from 0.200 to 0.300 "
    "s; so in 1 of 6 rows; camera 'top', .*8 pictures for 6 rows.*'frame_index'",
  )
  assert shown(opened(path, timestamps="frame_index")[1], "top")[1] == [1000 + t for t in kept]
  # The pictures were taken out too.
  folder.pictures = lambda e: [1000 * e + t for t in kept]
  raw = opened(folder.write(tmp_path / "both"))[1]
  assert shown(raw, "top")[1] == [1000 + t for t in kept]
  assert len(raw.notes) == 1 and raw.notes[0].endswith("so in 1 of 6 rows: the timestamps are used")
  # Both clocks know of the rows, and a frame_index that does not count says nothing.
  for name, frames, stamps in (("honest", kept, kept / 10), ("zero", 0 * kept, np.arange(6) / 10)):
    folder = Folder(lengths=(6,), pictures=lambda e: range(8))
    folder.rows = rows(
      lambda e, c, f=frames, s=stamps: {"frame_index": pa.array(f), "timestamp": pa.array(s)}
    )
    raw = opened(folder.write(tmp_path / name))[0]
    assert shown(raw, "top")[1] == np.round(10 * stamps).tolist() and "frame_index" not in str(
      raw.notes
    )


@pytest.mark.parametrize(
  "stamps, reason",
  [
    (["a"] * 6, "it holds string, expected numbers"),
    (np.array([0] * 6, "datetime64[ns]"), r"it holds timestamp\[ns\], expected numbers"),
    (1752000000123456789 + 10**8 * np.arange(6), "counted nanoseconds"),
  ],
)
def test_times_of_other_types(tmp_path, stamps, reason):
  path = Folder(rows=rows(lambda e, c: {"timestamp": pa.array(stamps)}, only=0)).write(
    tmp_path / "set"
  )
  refused(opened(path), 0, f"column 'timestamp'.*{reason}")
  check(opened(path, timestamps="frame_index")[0], 0, range(6))


def test_a_frame_index_that_cannot_be_read_is_not_needed(tmp_path):
  path = Folder(rows=rows(lambda e, c: {"frame_index": pa.array([0.5] * 6)}, only=0)).write(
    tmp_path / "set"
  )
  raw = opened(path)[0]
  check(raw, 0, range(6))
  assert len(raw.notes) == 1 and "'frame_index'" in raw.notes[0]
  assert raw.notes[0].endswith("expected a whole number; it is not used")
  refused(opened(path, timestamps="frame_index"), 0, "column 'frame_index' of .*0.5 at frame 0")


@pytest.mark.parametrize(
  "milliseconds, first",
  [
    ([0, 150, 260, 300, 400, 440, 600, 700], "row 2 at 0.200 s is nearest to picture 1"),
    ([0, 100, 200, 300, 400, 1500, 1600, 1700], "row 5 at 0.500 s is nearest to picture 4"),
  ],
)
def test_pictures_at_times_that_the_table_does_not_know(tmp_path, milliseconds, first):
  """A recorder that stamped the pictures late, and counted rows."""
  path = Folder().write(tmp_path / "set")
  pictures = [makers.coded(1000 + t) for t in range(8)]
  write_video(f"{path}/videos/chunk-000/{TOP}/episode_000001.mp4", pictures, times=milliseconds)
  raw = opened(path)[1]
  check(raw, 1, range(8))
  assert len(raw.notes) == 1 and first in raw.notes[0]
