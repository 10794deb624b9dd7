"""Times of the rows of a LeRobot table, and the pictures of its videos that belong to them.

The column timestamp holds seconds on the clock of the episode's video. In v3, many episodes share
one video file, and an episode begins at `from_timestamp` in it. Many public data sets do not follow
these rules. This module reads such an episode correctly, or refuses it.

Legend: T rows of an episode.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from como_jax.data import video
from como_jax.data.sources.lerobot_stretch import Stretch, nearest
from como_jax.data.sources.options import SourceOptions

_RATE_WITHIN = 0.02  # two rates are equal when their relative difference is at most this
_HALF = 0.499  # pictures; a picture within this distance is the nearest one
_UNITS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}


def row_times(
  columns: Mapping[str, np.ndarray], fps: float, options: SourceOptions, notes: list[str]
) -> np.ndarray:
  """Times of the rows in seconds, float64 [T], finite and increasing.

  Raises:
    video.UnreadableError: they are not, or the requested column is missing.
  """
  stamps, frames = columns.get("timestamp"), columns.get("frame_index")
  if options.timestamps == "frame_index":
    if frames is None:
      raise video.UnreadableError(
        "source option timestamps = 'frame_index', but the table has no column 'frame_index'"
      )
    times = frames / fps
    if stamps is not None:
      with np.errstate(invalid="ignore"):
        count = int(np.sum(~(np.abs(stamps[:, 0] - times) <= 0.5 / fps)))
      if count:
        notes.append(
          f"times are frame_index / {fps:g}: {count} of {len(times)} timestamps are not finite or "
          "further than half a frame from that"
        )
    return _increasing(times, "frame_index", "")
  if stamps is None:
    if frames is None:
      frames = np.arange(len(next(iter(columns.values()))))
    notes.append(f"no column 'timestamp': times are frame_index / {fps:g}")
    return _increasing(frames / fps, "frame_index", "")
  if stamps.shape[1] != 1:
    raise video.UnreadableError(
      f"column 'timestamp' has {stamps.shape[1]} numbers a row, expected 1"
    )
  return _increasing(
    stamps[:, 0], "timestamp", "; source option timestamps = 'frame_index' takes frame_index / fps"
  )


def _increasing(times: np.ndarray, column: str, hint: str) -> np.ndarray:
  """Returns the times; raises `video.UnreadableError` unless they are finite and increasing."""
  bad = np.flatnonzero(~np.isfinite(times))
  if len(bad):
    raise video.UnreadableError(
      f"column {column!r} is not finite: {times[bad[0]]} at frame {bad[0]}, "
      f"{len(bad)} of {len(times)} rows{hint}"
    )
  bad = np.flatnonzero(np.diff(times) <= 0)
  if len(bad):
    t = int(bad[0])
    raise video.UnreadableError(
      f"column {column!r} is not increasing: {times[t]:g} s at frame {t}, then {times[t + 1]:g} "
      f"s; so in {len(bad)} of {len(times)} rows{hint}"
    )
  return times


def check_steps(
  columns: Mapping[str, np.ndarray],
  times: np.ndarray,
  stretches: Sequence[Stretch],
  rows: int,
  notes: list[str],
) -> None:
  """Checks that the times agree with frame_index where frame_index skips numbers.

  They disagree when rows were removed and the times were written again.

  Raises:
    video.UnreadableError: they disagree, and a video has more or fewer pictures than rows. Then it
      is unknown which of the two selects the picture of a row.
  """
  frames = columns.get("frame_index")
  if frames is None or len(times) < 3 or "timestamp" not in columns:
    return
  steps, gaps = np.diff(frames), np.diff(times)
  if steps.min() < 1:  # frame_index does not count the frames
    return
  bad = np.flatnonzero((steps > 1) & (gaps / np.median(gaps / steps) < (1 + steps) / 2))
  if not len(bad):
    return
  t = int(bad[0])
  text = (
    f"column 'frame_index' goes from {frames[t]} to {frames[t + 1]} at row {t + 1}, column "
    f"'timestamp' only from {times[t]:.3f} to {times[t + 1]:.3f} s; so in {len(bad)} of "
    f"{len(times)} rows"
  )
  odd = next((part for part in stretches if part.pictures != rows), None)
  if odd:
    raise video.UnreadableError(
      f"{text}; {odd.where} has {odd.pictures} pictures for {rows} rows: which of them a row "
      "shows is not known; source option timestamps = 'frame_index' takes frame_index / fps"
    )
  notes.append(f"{text}: the timestamps are used")


def locate_pictures(
  times: np.ndarray,
  stretches: Sequence[Stretch],
  *,
  rows: int,
  fps: float,
  options: SourceOptions,
  notes: list[str],
) -> tuple[np.ndarray, list[np.ndarray]]:
  """Finds the picture of each row in the video of each camera.

  `times` [T] are those of the rows, `rows` is their number in the whole episode (T or more), and
  `fps` is from meta/info.json.

  Returns:
    (seconds of the rows, float64 [T], the same for all cameras; for each stretch, the seconds of
    the pictures in its file, float64 [T]).

  Raises:
    video.UnreadableError: the clocks disagree, or rows are outside the episode's part of the file.
  """
  rates, conflicts = table_rates(times), []
  if rates is not None:
    conflicts = [part for part in stretches if not _same_clock(times, rates, part, rows, notes)]
    if conflicts:
      notes.append(_rate_conflict(conflicts, rates[0], fps, options))
    elif not _near(rates, fps):
      notes.append(_wrong_fps(rates[0], fps, options, has_video=bool(stretches)))
  misplaced = [] if conflicts else [part for part in stretches if part.misplaced]
  if misplaced:
    notes.append(_wrong_begin(misplaced, options))
  if (conflicts or misplaced) and options.rate_conflict == "video":
    return _picture_by_picture(times, rates[0] if rates else fps, stretches, rows)
  times = _into_stretch(times, stretches, rows, bool(conflicts), notes)
  for part in stretches:
    _note_counts(part, rows, bool(conflicts), notes)
  if conflicts or misplaced:
    return times, [part.start + times for part in stretches]
  return times, [_picture_times(part, times, notes) for part in stretches]


def _rate_conflict(
  conflicts: Sequence[Stretch], rate: float, fps: float, options: SourceOptions
) -> str:
  """The note that table and videos have different rates, when an option says which to believe.

  Args:
    conflicts: the parts of the videos.
    rate: rows per second of the table.
    fps: from meta/info.json.
    options: only `rate_conflict` is used.

  Raises:
    video.UnreadableError: the option is "refuse".
  """
  text = "; ".join(f"{part.where} has {part.info.fps:.4g} pictures a second" for part in conflicts)
  text += f", its table {rate:.4g} rows a second (column 'timestamp'; meta/info.json: fps {fps:g})"
  if options.rate_conflict == "refuse":
    factor = conflicts[0].info.fps / rate
    unit = next(
      (name for name, scale in _UNITS.items() if abs(factor / scale - 1) < _RATE_WITHIN), ""
    )
    unit = f", as if it counted {unit}" if unit else ""
    raise video.UnreadableError(
      f"the rates disagree: {text}{unit}; source option rate_conflict = 'table' or 'video' "
      "says which to believe"
    )
  return f"the rates disagree: {text}; the {options.rate_conflict} is believed"


def _wrong_fps(rate: float, fps: float, options: SourceOptions, *, has_video: bool) -> str:
  """The note that the table has another rate than meta/info.json says.

  Args:
    rate: rows per second of the table.
    fps: from meta/info.json.
    options: only `rate_conflict` is used.
    has_video: whether the episode has a video, which agrees with the table.

  Raises:
    video.UnreadableError: there is no video, and the unit of the times seems to be wrong.
  """
  text = (
    f"the table has {rate:.4g} rows a second (column 'timestamp'), meta/info.json says fps {fps:g}"
  )
  # Without a video, only fps can show that the unit of the times is wrong.
  if not has_video and options.rate_conflict != "table" and not 0.5 < rate / fps < 2:
    raise video.UnreadableError(
      f"{text}; source option rate_conflict = 'table' takes the table's times"
    )
  return f"{text}; the table is used"


def _wrong_begin(misplaced: Sequence[Stretch], options: SourceOptions) -> str:
  """The note that the episode does not begin at its first picture in some of its videos.

  Args:
    misplaced: the parts of these videos.
    options: only `rate_conflict` is used.

  Raises:
    video.UnreadableError: the option is "refuse".
  """
  text = "; ".join(
    f"{part.where}: the episode begins at {part.start:.3f} s (column 'from_timestamp' of "
    f"meta/episodes), nearest to picture {part.first_picture}; those before it have "
    f"{part.file_before} rows (column 'length')"
    for part in misplaced
  )
  text += ", and the file has a picture a row"
  if options.rate_conflict == "refuse":
    raise video.UnreadableError(
      f"{text}; source option rate_conflict = 'table' or 'video' says which to believe"
    )
  return f"{text}; the {options.rate_conflict} is believed"


def _note_counts(part: Stretch, rows: int, conflict: bool, notes: list[str]) -> None:
  """Adds a note when a video has another number of pictures than the table has rows."""
  if part.pictures and part.pictures != rows:
    notes.append(f"{part.where}: {part.pictures} pictures for {rows} rows")
  elif part.end is not None and part.file_pictures < part.file_rows:
    notes.append(
      f"{part.where}: {part.file_pictures} pictures in the file for {part.file_rows} "
      "rows of its episodes"
    )
  elif (
    part.end is not None
    and not conflict
    and part.file_pictures > (ends := round(part.file_end * part.info.fps))
  ):
    notes.append(
      f"{part.where}: {part.file_pictures} pictures in the file, its episodes end after {ends}"
    )


def table_rates(times: np.ndarray) -> tuple[float, float] | None:
  """(typical, mean) rows per second, different when rows were left out; None for a single row."""
  if len(times) < 2:
    return None
  gaps = np.diff(times)
  mean = len(gaps) / float(times[-1] - times[0])
  typical = mean if gaps.max() <= 1.5 * np.median(gaps) else 1 / float(np.median(gaps))
  return typical, mean


def _near(rates: tuple[float, float], rate: float) -> bool:
  return any(abs(rate / table_rate - 1) <= _RATE_WITHIN for table_rate in rates)


def _same_clock(
  times: np.ndarray, rates: tuple[float, float], part: Stretch, rows: int, notes: list[str]
) -> bool:
  """Whether a second of the table is a second of the video."""
  fps = part.info.fps
  drift = min(abs(fps / rate - 1) for rate in rates) * (len(times) - 1)  # pictures, at the last row
  # With few rows and jitter, the table's rate is not known more precisely.
  if drift <= 0.5 or (_near(rates, fps) and drift < 1):
    return True
  # A table may keep every third row, or a camera may be slower than the table. Then both have the
  # same duration, with different numbers of pictures and rows. If the file has as many pictures as
  # rows, each row is one picture, so different rates mean two clocks.
  slower = max(1 / fps, 1 / rates[0])
  span = float(times[-1] - times[0]) + 1 / rates[0] if len(times) == rows else part.seconds
  end = part.file_end if part.end is not None else float(times[-1]) + 1 / rates[0]
  agree = (
    part.file_pictures != part.file_rows
    and part.file_pictures
    and (abs(span - part.seconds) < 2 * slower and abs(end - part.file_pictures / fps) < 2 * slower)
  )
  if agree:
    notes.append(
      f"{part.where} has {fps:.4g} pictures a second, its table {rates[0]:.4g} rows: the nearest "
      "in time is taken"
    )
  return bool(agree)


def _picture_by_picture(
  times: np.ndarray, rate: float, stretches: Sequence[Stretch], rows: int
) -> tuple[np.ndarray, list[np.ndarray]]:
  """Assigns picture k of the episode to row k, at the time of the picture in the first video."""
  fps = stretches[0].info.fps
  other = next((part for part in stretches if abs(part.info.fps / fps - 1) > 1e-3), None)
  if other:
    raise video.UnreadableError(
      f"{stretches[0].where} has {fps:.4g} pictures a second, {other.where} {other.info.fps:.4g}: "
      "there is no one rate to believe (source option rate_conflict)"
    )
  picture_seconds = []
  for part in stretches:
    pictures = video.timeline(part.path)
    # The episodes' begins and ends in a shared file are on the video's clock when the last end is
    # the end of the file. Otherwise they are on the table's clock.
    end = len(pictures) / fps
    own_clock = part.end is None or abs(part.file_end - end) < abs(part.file_end * rate / fps - end)
    start = (
      int(np.searchsorted(pictures, part.start - 0.5 / fps))
      if own_clock
      else round(part.start * rate)
    )
    if part.misplaced and part.file_before is not None:
      start = part.file_before
    first = start + round(float(times[0]) * rate)
    last = start + part.pictures if part.followed and own_clock else len(pictures)
    if first < 0 or first + len(times) > last:
      raise video.UnreadableError(
        f"{part.where}: {last - start} pictures for {rows} rows of which the first shows number "
        f"{first - start}"
      )
    picture_seconds.append(pictures[first : first + len(times)])
  return picture_seconds[0] - picture_seconds[0][0] + round(
    float(times[0]) * rate
  ) / fps, picture_seconds


def _picture_times(part: Stretch, times: np.ndarray, notes: list[str]) -> np.ndarray:
  """Seconds in the file of the picture of each row, float64 [T].

  It is the picture nearest in time or, when the file has one picture per row, that of its number.
  """
  seconds = part.start + times
  if part.file_before is None or part.file_pictures != part.file_rows:
    return seconds
  rows = part.file_before + np.arange(len(times))
  # A shared file is large, so the times of its pictures are not read when its rate is constant. A
  # file with one episode is small, so they are always read.
  if part.end is not None and part.even and np.abs(seconds * part.info.fps - rows).max() <= _HALF:
    return seconds
  pictures = video.timeline(part.path)
  if not len(pictures) == part.file_rows > 1:
    return seconds
  shown = nearest(pictures, seconds)
  bad = np.flatnonzero(shown != rows)
  if not len(bad):
    return seconds
  t = int(bad[0])
  notes.append(
    f"{part.where}: row {t} at {times[t]:.3f} s is nearest to picture {shown[t]}, so "
    f"are {len(bad)} of {len(times)} rows to another than their own; the file has a picture a row: "
    f"row {t} shows picture {rows[t]}, and so on"
  )
  return pictures[rows]


def _into_stretch(
  times: np.ndarray, stretches: Sequence[Stretch], rows: int, conflict: bool, notes: list[str]
) -> np.ndarray:
  """Moves the times to the origin of the video when they certainly have another origin."""
  if not stretches:
    return times

  def outside(part: Stretch, first: float, last: float) -> bool:
    # Up to two pictures may be missing at the end of a file. None may be missing before another
    # episode (its pictures would be shown), or when the first row is not the first picture (the
    # times may have another origin).
    interval = 1 / part.info.fps
    end = part.seconds + (1.6 if first <= 0.5 * interval and not part.followed else -0.5) * interval
    return first < -0.5 * interval or (part.seconds > 0 and last > end)

  first, last = float(times[0]), float(times[-1])
  out = [part for part in stretches if outside(part, first, last)]
  if not out:
    return times
  # With one picture per row at the same rate, the first row must be the first picture.
  if not conflict and all(
    part.pictures == rows and not outside(part, 0.0, last - first) for part in stretches
  ):
    notes.append(
      f"timestamps run from {first:.3f} to {last:.3f} s, the episode's video from 0 to "
      f"{out[0].seconds:.3f} s with as many pictures as rows: {first:.3f} s is taken as its "
      "beginning"
    )
    return times - times[0]
  raise video.UnreadableError(
    f"{out[0].where}: timestamps run from {first:.3f} to {last:.3f} s (column 'timestamp'), the "
    f"episode's video from 0 to {out[0].seconds:.3f} s with {out[0].pictures} pictures for {rows} "
    "rows: the video is too short, or the times have another origin"
  )
