"""Clocks of LeRobot rows and videos at the edges of each rule, without a file."""

import numpy as np
import pytest

from como_jax.data import video
from como_jax.data.sources import lerobot_clock as clock
from como_jax.data.sources.options import SourceOptions


def stretch(
  *,
  start=0.0,
  end=None,
  followed=False,
  file_rows=0,
  file_end=0.0,
  fps=10.0,
  frames=10,
  duration=0.0,
  where="cam",
):
  return clock.Stretch(
    where,
    f"{where}.mp4",
    start,
    end,
    followed,
    file_rows,
    file_end,
    None,
    video.Info(fps, frames, duration),
  )


def at(count, *, rate=10.0, first=0.0):
  return first + np.arange(count) / rate


@pytest.mark.parametrize(
  "given, pictures, seconds, own",
  [
    ({}, 10, 1.0, 10),
    ({"frames": 0, "duration": 1.26}, 13, 1.3, 13),
    ({"frames": 0}, 0, 0.0, 0),
    ({"start": 0.3}, 10, 0.7, 7),
    ({"start": 0.3, "end": 0.8}, 10, 0.5, 5),
    ({"start": 2.0}, 10, 0.0, 0),
    ({"start": 0.2, "end": 0.76}, 10, 0.56, 6),
  ],
)
def test_a_stretch(given, pictures, seconds, own):
  one = stretch(**given)
  assert (one.file_pictures, one.seconds, one.pictures) == (pictures, pytest.approx(seconds), own)


def test_times_of_rows():
  def of(notes=None, option="table", **columns):
    return clock.row_times(
      columns, 10.0, SourceOptions(timestamps=option), notes if notes is not None else []
    )

  stamps, frames = at(4)[:, None], np.array([0, 1, 2, 4])
  assert of(timestamp=stamps, frame_index=frames).tolist() == at(4).tolist()
  notes = []
  np.testing.assert_allclose(
    of(notes, "frame_index", timestamp=stamps, frame_index=frames), [0, 0.1, 0.2, 0.4]
  )
  assert notes == [
    (
      "times are frame_index / 10: 1 of 4 timestamps are not finite or further than half a frame "
      "from that"
    )
  ]
  notes = []
  of(
    notes, "frame_index", timestamp=np.array([[0.0], [0.1499], [0.1501], [0.4]]), frame_index=frames
  )
  assert notes == []
  of(notes, "frame_index", frame_index=frames)
  assert notes == []
  np.testing.assert_allclose(of(notes, action=np.zeros((3, 2))), [0, 0.1, 0.2])
  np.testing.assert_allclose(of(notes, frame_index=frames), [0, 0.1, 0.2, 0.4])
  assert notes == ["no column 'timestamp': times are frame_index / 10"] * 2
  with pytest.raises(
    video.UnreadableError,
    match=(
      "^column 'frame_index' is not increasing: 0.1 s at frame 1, then 0.1 s; so in 1 of 3 rows$"
    ),
  ):
    of(frame_index=np.array([0, 1, 1]))
  with pytest.raises(
    video.UnreadableError, match="^column 'timestamp' has 2 numbers a row, expected 1$"
  ):
    of(timestamp=np.zeros((3, 2)))


def test_rates_of_tables():
  assert clock.table_rates(np.array([3.0])) is None
  assert clock.table_rates(np.array([1.0, 1.5])) == (2.0, 2.0)
  # 1.5 of the usual gap is jitter
  assert clock.table_rates(np.array([0.0, 0.1, 0.2, 0.35])) == pytest.approx((3 / 0.35,) * 2)
  # more: a row was left out
  assert clock.table_rates(np.array([0.0, 0.1, 0.2, 0.36])) == pytest.approx((10, 3 / 0.36))
  assert (
    clock._near((10, 20), 10.19)
    and clock._near((10, 20), 19.7)
    and clock._near((10, 20), 9.81)
    and not clock._near((10, 20), 10.21)
  )
  assert not clock._near((10, 20), 9.79) and not clock._near((10, 20), 20.5)


@pytest.mark.parametrize(
  "rows, fps, frames, agree, noted",
  [
    (21, 10.25, 0, True, False),  # half a picture at the last row
    (22, 10.25, 0, False, False),
    (51, 10.19, 0, True, False),  # nearly one rate: a picture
    (51, 10.2, 0, False, False),
    (41, 10.25, 0, False, False),
    (10, 30.0, 30, True, True),
    (10, 30.0, 35, True, True),
    (10, 30.0, 37, False, False),
    (10, 30.0, 25, True, True),
    (10, 30.0, 23, False, False),
    (10, 5.0, 5, True, True),
    (10, 5.0, 6, True, True),
    (10, 5.0, 8, False, False),
    (20, 30.0, 20, False, False),
  ],
)  # as many pictures as rows: the same moments
def test_one_clock_or_two(rows, fps, frames, agree, noted):
  times, notes = at(rows), []
  one = stretch(fps=fps, frames=frames, file_rows=rows)
  assert clock._same_clock(times, clock.table_rates(times), one, rows, notes) is agree
  assert notes == (
    [f"cam has {fps:.4g} pictures a second, its table 10 rows: the nearest in time is taken"]
    if noted
    else []
  )


def test_one_clock_within_a_shared_file():
  times, notes = at(10), []
  for seconds, file_end, frames, agree in (
    (1.0, 4.0, 120, True),
    (1.19, 4.0, 120, True),
    (1.21, 4.0, 120, False),
    (1.0, 4.19, 120, True),
    (1.0, 4.21, 120, False),
    (1.0, 3.79, 120, False),
    (1.0, 3.81, 120, True),
  ):
    one = stretch(
      start=2.0, end=2.0 + seconds, fps=30.0, frames=frames, file_rows=40, file_end=file_end
    )
    assert clock._same_clock(times, clock.table_rates(times), one, 10, notes) is agree
  # Rows that were cut off behind a damaged one do not shorten the episode.
  one = stretch(start=0.0, end=2.0, fps=30.0, frames=60, file_rows=20, file_end=2.0)
  assert clock._same_clock(times, (10.0, 10.0), one, 20, notes) and not clock._same_clock(
    times, (10.0, 10.0), one, 10, notes
  )


def by_picture(times, stretches, rows=None, *, rate=10.0, timelines=None):
  return clock._picture_by_picture(times, rate, stretches, len(times) if rows is None else rows)


def test_row_by_row_the_next_picture(monkeypatch):
  timelines = {"cam.mp4": np.arange(40) / 20, "two.mp4": np.arange(40) / 20 + 0.01}
  monkeypatch.setattr(clock.video, "timeline", lambda path: timelines[path])
  times, places = by_picture(
    at(10), [stretch(fps=20.0, frames=40), stretch(where="two", fps=20.01, frames=40)]
  )
  np.testing.assert_allclose(times, np.arange(10) / 20)
  np.testing.assert_allclose(places, [np.arange(10) / 20, np.arange(10) / 20 + 0.01])
  # the first row shows picture 3
  times, places = by_picture(at(10, first=0.3), [stretch(fps=20.0)])
  np.testing.assert_allclose(times, 0.15 + np.arange(10) / 20)
  np.testing.assert_allclose(places[0], np.arange(3, 13) / 20)
  # A shared file: borders on the video's clock where the last end is the file's, else on the
  # table's.
  own = stretch(start=0.5, end=1.0, followed=True, file_end=2.0, fps=20.0)
  np.testing.assert_allclose(by_picture(at(10), [own])[1][0], np.arange(10, 20) / 20)
  shifted = stretch(start=0.524, end=1.0, followed=True, file_end=2.0, fps=20.0)
  # within half a picture
  np.testing.assert_allclose(by_picture(at(9), [shifted])[1][0], np.arange(10, 19) / 20)
  tables = stretch(start=1.0, end=2.0, followed=True, file_end=4.0, fps=20.0)
  np.testing.assert_allclose(by_picture(at(10), [tables])[1][0], np.arange(10, 20) / 20)
  for one, count, reason in (
    (own, 11, "cam: 10 pictures for 11 rows of which the first shows number 0"),
    (
      stretch(start=0.5, fps=20.0),
      31,
      "cam: 30 pictures for 31 rows of which the first shows number 0",
    ),
    (stretch(start=1.5, end=3.5, file_end=2.0, fps=20.0), 11, "cam: 10 pictures for 11 rows"),
  ):
    with pytest.raises(video.UnreadableError, match=f"^{reason}"):
      by_picture(at(count), [one])
  assert len(by_picture(at(30), [stretch(start=0.5, fps=20.0)])[0]) == 30
  with pytest.raises(video.UnreadableError, match="of which the first shows number -1"):
    by_picture(at(3, first=-0.1), [stretch(fps=20.0)])
  with pytest.raises(video.UnreadableError, match="of which the first shows number 2"):
    by_picture(at(9, first=0.2), [own])
  with pytest.raises(
    video.UnreadableError,
    match="^cam has 20 pictures a second, two 20.03: there is no one rate to believe",
  ):
    by_picture(at(3), [stretch(fps=20.0), stretch(where="two", fps=20.03)])


@pytest.mark.parametrize(
  "first, count, given, inside",
  [
    # 1.6 pictures behind the end of 1 s, but not from the second one on
    (0.0, 10, {}, True),
    (0.0, 12, {}, True),
    (0.04, 12, {}, True),
    (0.06, 12, {}, False),
    (0.0, 13, {}, False),
    # none before another episode
    (0.0, 10, {"followed": True}, True),
    (0.04, 10, {"followed": True}, True),
    (0.06, 10, {"followed": True}, False),
    (-0.04, 10, {}, True),
    (-0.06, 8, {}, False),
    (5.0, 3, {"frames": 0}, True),
  ],
)
def test_rows_within_their_stretch(first, count, given, inside):
  times, one = at(count, first=first), stretch(**given)
  if inside:
    assert clock._into_stretch(times, [one], count + 1, False, []) is times
  else:
    with pytest.raises(
      video.UnreadableError, match=f"^cam: timestamps run from {first:.3f} to {times[-1]:.3f} s"
    ):
      clock._into_stretch(times, [one], count + 1, False, [])


def test_another_origin_is_certain_with_a_picture_a_row():
  notes, times = [], at(10, first=3.0)
  np.testing.assert_allclose(
    clock._into_stretch(times, [stretch(), stretch(where="two")], 10, False, notes), at(10)
  )
  assert notes == [
    "timestamps run from 3.000 to 3.900 s, the episode's video from 0 to 1.000 s with as many "
    "pictures as rows: 3.000 s is taken as its beginning"
  ]
  for stretches, rows, conflict in (
    ([stretch()], 10, True),
    ([stretch()], 11, False),
    ([stretch(), stretch(frames=12)], 10, False),
  ):
    with pytest.raises(
      video.UnreadableError,
      match=(
        "with 10 pictures for 1[01] rows: the video is too short, or the times have another origin"
      ),
    ):
      clock._into_stretch(times, stretches, rows, conflict, [])
  assert clock._into_stretch(times, [], 10, False, []) is times


def place(times, stretches, *, rows=None, fps=10.0, notes=None, **options):
  return clock.locate_pictures(
    times,
    stretches,
    rows=len(times) if rows is None else rows,
    fps=fps,
    options=SourceOptions(**options),
    notes=notes if notes is not None else [],
  )


def test_places_and_what_is_noted():
  notes = []
  times, places = place(
    at(10),
    [stretch(start=2.0, end=3.0, frames=30, file_rows=30, file_end=3.0), stretch(where="two")],
    notes=notes,
  )
  np.testing.assert_allclose(times, at(10))
  np.testing.assert_allclose(places, [2 + at(10), at(10)])
  assert notes == []
  place(
    at(9),
    [stretch(), stretch(where="two", start=2.0, end=2.9, frames=29, file_rows=30)],
    notes=notes,
  )
  assert notes == [
    "cam: 10 pictures for 9 rows",
    "two: 29 pictures in the file for 30 rows of its episodes",
  ]
  notes = []
  place(at(1), [stretch(frames=1)], fps=77.0, notes=notes)  # a single row has no rate
  assert notes == []
  for rate, fps, noted in ((10.0, 10.19, False), (10.0, 10.21, True)):
    notes = []
    place(at(10, rate=rate), [], fps=fps, notes=notes)
    assert bool(notes) == noted
  for fps, refused in ((20.1, True), (19.9, False), (5.1, False), (4.9, True)):
    if refused:
      with pytest.raises(
        video.UnreadableError,
        match="source option rate_conflict = 'table' takes the table's times$",
      ):
        place(at(10), [], fps=fps)
    notes = []
    place(at(10), [], fps=fps, notes=notes, rate_conflict="table")
    assert notes == [
      (
        f"the table has 10 rows a second (column 'timestamp'), meta/info.json says fps {fps:g}; "
        "the table is used"
      )
    ]


@pytest.mark.parametrize(
  "factor, unit",
  [
    (1e3, "milliseconds"),
    (1e6, "microseconds"),
    (1e9, "nanoseconds"),
    (1015, "milliseconds"),
    (1025, ""),
    (985, "milliseconds"),
    (975, ""),
    (2, ""),
  ],
)
def test_units_of_time(factor, unit):
  with pytest.raises(video.UnreadableError) as caught:
    place(at(10) * factor, [stretch(frames=50)])
  assert (
    (", as if it counted " + unit in str(caught.value))
    if unit
    else ("as if" not in str(caught.value))
  )


def test_whom_to_believe(monkeypatch):
  monkeypatch.setattr(clock.video, "timeline", lambda path: np.arange(40) / 20)
  fast = stretch(fps=20.0, frames=10)
  with pytest.raises(
    video.UnreadableError,
    match="^the rates disagree: cam has 20 pictures a second, its table 10 rows a second ",
  ):
    place(at(10), [fast])
  notes = []
  times, places = place(at(10), [fast], notes=notes, rate_conflict="video")
  np.testing.assert_allclose([times, places[0]], [np.arange(10) / 20] * 2)
  assert notes == [
    "the rates disagree: cam has 20 pictures a second, its table 10 rows a second (column "
    "'timestamp'; meta/info.json: fps 10); the video is believed"
  ]
  with pytest.raises(video.UnreadableError, match="the video is too short"):
    place(at(10), [fast], rate_conflict="table")
  long = stretch(fps=20.0, frames=40, where="long")
  times, places = place(at(10), [long], rate_conflict="table")
  np.testing.assert_allclose(times, at(10))
