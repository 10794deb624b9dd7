"""Times of a LeRobot table's rows, and where they lie in its videos.

The column timestamp counts seconds on the clock of the episode's video; in v3 the videos of many
episodes share a file, and the episode begins at `from_timestamp` of it. Tables and videos found in
public break this in every way: here each is read rightly or refused.

Legend: T rows of an episode.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from como_jax.data import video
from como_jax.data.sources.options import SourceOptions

_RATE_WITHIN = 0.02  # relative difference of two rates that are one rate
_HALF = 0.499  # pictures: what is less away is the nearest
_UNITS = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}


@dataclasses.dataclass(frozen=True)
class Stretch:
  """Where the pictures of one camera of one episode lie.

  Attributes:
    where: camera and file, for messages.
    path: of the video file.
    begin: seconds in the file of the episode's time 0.
    end: seconds in the file where the episode ends, None = at the end of the file.
    followed: another episode begins in the file at `end`.
    file_rows, file_end: of all episodes of the file: number of rows, and the latest end in seconds
      (0 = not known).
    file_before: rows of the episodes before this one in the file; None where borders do not fit the
      numbers of rows.
    info: of the file.
  """

  where: str
  path: str
  begin: float
  end: float | None
  followed: bool
  file_rows: int
  file_end: float
  file_before: int | None
  info: video.Info

  @property
  def file_pictures(self) -> int:
    """Number of pictures in the file, 0 = not known."""
    return self.info.frames or round(self.info.duration * self.info.fps)

  @property
  def seconds(self) -> float:
    """Length of the episode in the file, 0 = not known."""
    return max(0.0, self._end(pauses=True) - self.begin)

  @property
  def pictures(self) -> int:
    return round(max(0.0, self._end(pauses=False) - self.begin) * self.info.fps)

  @property
  def misplaced(self) -> bool:
    """Whether the episode's beginning is that of another picture than the one with its number: each
    row of the file's episodes has a picture, and those before have another number of them.
    """
    return (
      self.file_before is not None
      and self.file_pictures == self.file_rows
      and self.first_picture != self.file_before
    )

  @property
  def first_picture(self) -> int:
    """The number in the file of the picture nearest to the episode's beginning."""
    place = self.begin * self.info.fps
    if self.even and abs(place - round(place)) <= 0.4:
      return round(place)
    pictures = video.timeline(self.path)
    return int(nearest(pictures, self.begin)) if len(pictures) > 1 else round(place)

  @property
  def even(self) -> bool:
    """Whether the file is as long as its pictures are at one rate: none is late."""
    return abs(self.info.duration * self.info.fps - self.file_pictures) < 0.4

  def _end(self, *, pauses: bool) -> float:
    """Seconds of the end in the file; without `pauses` as if no picture were late."""
    counted = self.file_pictures / self.info.fps
    if self.end is not None or not pauses or self.info.duration < counted + 1.5 / self.info.fps:
      return counted if self.end is None else self.end
    times = video.timeline(self.path)
    return max(counted, float(times[-1]) + 1 / self.info.fps) if len(times) else counted


def row_times(
  columns: Mapping[str, np.ndarray], fps: float, options: SourceOptions, notes: list[str]
) -> np.ndarray:
  """Seconds of the rows, float64 [T], finite and increasing.

  Raises:
    video.Unreadable: they are not, or the column asked for is missing.
  """
  stamps, frames = columns.get("timestamp"), columns.get("frame_index")
  if options.timestamps == "frame_index":
    if frames is None:
      raise video.Unreadable(
        "source option timestamps = 'frame_index', but the table has no column 'frame_index'"
      )
    times = frames / fps
    if stamps is not None:
      with np.errstate(invalid="ignore"):
        other = int(np.sum(~(np.abs(stamps[:, 0] - times) <= 0.5 / fps)))
      if other:
        notes.append(
          f"times are frame_index / {fps:g}: {other} of {len(times)} timestamps are not finite or "
          "further than half a frame from that"
        )
    return _increasing(times, "frame_index", "")
  if stamps is None:
    if frames is None:
      frames = np.arange(len(next(iter(columns.values()))))
    notes.append(f"no column 'timestamp': times are frame_index / {fps:g}")
    return _increasing(frames / fps, "frame_index", "")
  if stamps.shape[1] != 1:
    raise video.Unreadable(f"column 'timestamp' has {stamps.shape[1]} numbers a row, expected 1")
  return _increasing(
    stamps[:, 0], "timestamp", "; source option timestamps = 'frame_index' takes frame_index / fps"
  )


def _increasing(times: np.ndarray, column: str, hint: str) -> np.ndarray:
  bad = np.flatnonzero(~np.isfinite(times))
  if len(bad):
    raise video.Unreadable(
      f"column {column!r} is not finite: {times[bad[0]]} at frame {bad[0]}, "
      f"{len(bad)} of {len(times)} rows{hint}"
    )
  bad = np.flatnonzero(np.diff(times) <= 0)
  if len(bad):
    t = int(bad[0])
    raise video.Unreadable(
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
  """Compares frame_index with the times where it leaves numbers out: rows were taken out and the
  times written anew?

  Raises:
    video.Unreadable: they disagree, and the videos have more or fewer pictures than rows: those of
      the times, or those of frame_index?
  """
  frames = columns.get("frame_index")
  if frames is None or len(times) < 3 or "timestamp" not in columns:
    return
  steps, gaps = np.diff(frames), np.diff(times)
  if steps.min() < 1:  # it does not count
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
  other = next((one for one in stretches if one.pictures != rows), None)
  if other:
    raise video.Unreadable(
      f"{text}; {other.where} has {other.pictures} pictures for {rows} rows: which of them a row "
      "shows is not known; source option timestamps = 'frame_index' takes frame_index / fps"
    )
  notes.append(f"{text}: the timestamps are used")


def place(
  times: np.ndarray,
  stretches: Sequence[Stretch],
  *,
  rows: int,
  fps: float,
  options: SourceOptions,
  notes: list[str],
) -> tuple[np.ndarray, list[np.ndarray]]:
  """Where each row's picture lies in the video of each camera.

  Args:
    times: of the rows, float64 [T].
    stretches: of the cameras that are videos.
    rows: of the whole episode, T or more.
    fps: as meta/info.json says.

  Returns:
    (seconds of the rows, float64 [T], shared by all cameras; for each stretch the seconds in its
    file, float64 [T]).

  Raises:
    video.Unreadable: the clocks do not agree, or rows lie outside of the episode's stretch of the
      file.
  """
  rates = table_rates(times)
  conflicts = [
    one for one in stretches if rates and not _same_clock(times, rates, one, rows, notes)
  ]
  if conflicts:
    text = "; ".join(f"{one.where} has {one.info.fps:.4g} pictures a second" for one in conflicts)
    text += (
      f", its table {rates[0]:.4g} rows a second (column 'timestamp'; meta/info.json: fps {fps:g})"
    )
    if options.rate_conflict == "refuse":
      factor = conflicts[0].info.fps / rates[0]
      unit = next(
        (name for name, one in _UNITS.items() if abs(factor / one - 1) < _RATE_WITHIN), ""
      )
      unit = f", as if it counted {unit}" if unit else ""
      raise video.Unreadable(
        f"the rates disagree: {text}{unit}; source option rate_conflict = 'table' or 'video' "
        "says which to believe"
      )
    notes.append(f"the rates disagree: {text}; the {options.rate_conflict} is believed")
    if options.rate_conflict == "video":
      return _picture_by_picture(times, rates[0], stretches, rows)
  elif rates and not _near(rates, fps):
    text = (
      f"the table has {rates[0]:.4g} rows a second (column 'timestamp'), meta/info.json says "
      f"fps {fps:g}"
    )
    # Without a video there is nothing else to tell a wrong unit by.
    if not stretches and options.rate_conflict != "table" and not 0.5 < rates[0] / fps < 2:
      raise video.Unreadable(
        f"{text}; source option rate_conflict = 'table' takes the table's times"
      )
    notes.append(f"{text}; the table is used")
  lost = [] if conflicts else [one for one in stretches if one.misplaced]
  if lost:
    text = "; ".join(
      f"{one.where}: the episode begins at {one.begin:.3f} s (column 'from_timestamp' of "
      f"meta/episodes), nearest to picture {one.first_picture}; those before it have "
      f"{one.file_before} rows (column 'length')"
      for one in lost
    )
    text += ", and the file has a picture a row"
    if options.rate_conflict == "refuse":
      raise video.Unreadable(
        f"{text}; source option rate_conflict = 'table' or 'video' says which to believe"
      )
    notes.append(f"{text}; the {options.rate_conflict} is believed")
    if options.rate_conflict == "video":
      return _picture_by_picture(times, rates[0] if rates else fps, stretches, rows)
  times = _into_stretch(times, stretches, rows, bool(conflicts), notes)
  for one in stretches:
    if one.pictures and one.pictures != rows:
      notes.append(f"{one.where}: {one.pictures} pictures for {rows} rows")
    elif one.end is not None and one.file_pictures < one.file_rows:
      notes.append(
        f"{one.where}: {one.file_pictures} pictures in the file for {one.file_rows} rows of its "
        "episodes"
      )
    elif (
      one.end is not None
      and not conflicts
      and one.file_pictures > (ends := round(one.file_end * one.info.fps))
    ):
      notes.append(
        f"{one.where}: {one.file_pictures} pictures in the file, its episodes end after {ends}"
      )
  if conflicts or lost:
    return times, [one.begin + times for one in stretches]
  return times, [_in_order(one, times, notes) for one in stretches]


def nearest(pictures: np.ndarray, seconds: np.ndarray | float) -> np.ndarray:
  """Numbers of the pictures (two or more, seconds increasing) nearest in time, of two equally near
  ones the earlier.
  """
  after = np.clip(np.searchsorted(pictures, seconds), 1, len(pictures) - 1)
  return after - (seconds - pictures[after - 1] <= pictures[after] - seconds)


def table_rates(times: np.ndarray) -> tuple[float, float] | None:
  """(typical, mean) rows a second: they differ where rows were left out; None for a single row."""
  if len(times) < 2:
    return None
  gaps = np.diff(times)
  mean = len(gaps) / float(times[-1] - times[0])
  typical = mean if gaps.max() <= 1.5 * np.median(gaps) else 1 / float(np.median(gaps))
  return typical, mean


def _near(rates: tuple[float, float], rate: float) -> bool:
  return any(abs(rate / one - 1) <= _RATE_WITHIN for one in rates)


def _same_clock(
  times: np.ndarray, rates: tuple[float, float], one: Stretch, rows: int, notes: list[str]
) -> bool:
  """Whether a second of the table is a second of the video."""
  fps = one.info.fps
  drift = min(abs(fps / rate - 1) for rate in rates) * (len(times) - 1)  # pictures, at the last row
  # of few rows with jitter the rate is not known better
  if drift <= 0.5 or (_near(rates, fps) and drift < 1):
    return True
  # A table may keep every third row, or a camera be slower than the table: then both take equally
  # long, whatever their numbers of pictures. As many pictures as rows, on the other hand, are the
  # same moments: two clocks.
  slower = max(1 / fps, 1 / rates[0])
  span = float(times[-1] - times[0]) + 1 / rates[0] if len(times) == rows else one.seconds
  lasts = one.file_end if one.end is not None else float(times[-1]) + 1 / rates[0]
  agree = (
    one.file_pictures != one.file_rows
    and one.file_pictures
    and (abs(span - one.seconds) < 2 * slower and abs(lasts - one.file_pictures / fps) < 2 * slower)
  )
  if agree:
    notes.append(
      f"{one.where} has {fps:.4g} pictures a second, its table {rates[0]:.4g} rows: the nearest "
      "in time is taken"
    )
  return bool(agree)


def _picture_by_picture(
  times: np.ndarray, rate: float, stretches: Sequence[Stretch], rows: int
) -> tuple[np.ndarray, list[np.ndarray]]:
  """Row k shows picture k of the episode, at the time that the first camera's video gives it."""
  fps = stretches[0].info.fps
  other = next((one for one in stretches if abs(one.info.fps / fps - 1) > 1e-3), None)
  if other:
    raise video.Unreadable(
      f"{stretches[0].where} has {fps:.4g} pictures a second, {other.where} {other.info.fps:.4g}: "
      "there is no one rate to believe (source option rate_conflict)"
    )
  places = []
  for one in stretches:
    pictures = video.timeline(one.path)
    # Borders in a shared file are on the video's clock where the last one is the file's end, else
    # on the table's.
    end = len(pictures) / fps
    own_clock = one.end is None or abs(one.file_end - end) < abs(one.file_end * rate / fps - end)
    begin = (
      int(np.searchsorted(pictures, one.begin - 0.5 / fps))
      if own_clock
      else round(one.begin * rate)
    )
    begin = one.file_before if one.misplaced else begin
    first = begin + round(float(times[0]) * rate)
    last = begin + one.pictures if one.followed and own_clock else len(pictures)
    if first < 0 or first + len(times) > last:
      raise video.Unreadable(
        f"{one.where}: {last - begin} pictures for {rows} rows of which the first shows number "
        f"{first - begin}"
      )
    places.append(pictures[first : first + len(times)])
  return places[0] - places[0][0] + round(float(times[0]) * rate) / fps, places


def _in_order(one: Stretch, times: np.ndarray, notes: list[str]) -> np.ndarray:
  """Where the rows' pictures lie: the nearest in time, but where each row has a picture, that of
  its number.
  """
  place = one.begin + times
  if one.file_before is None or one.file_pictures != one.file_rows:
    return place
  numbers = one.file_before + np.arange(len(times))
  # A file of its own is small enough to ask for the times of all its pictures; a shared one's are
  # at one rate.
  if one.end is not None and one.even and np.abs(place * one.info.fps - numbers).max() <= _HALF:
    return place
  pictures = video.timeline(one.path)
  if not len(pictures) == one.file_rows > 1:
    return place
  found = nearest(pictures, place)
  bad = np.flatnonzero(found != numbers)
  if not len(bad):
    return place
  t = int(bad[0])
  notes.append(
    f"{one.where}: row {t} at {times[t]:.3f} s is nearest to picture {found[t]}, so are "
    f"{len(bad)} of {len(times)} rows to another than their own; the file has a picture a row: "
    f"row {t} shows picture {numbers[t]}, and so on"
  )
  return pictures[numbers]


def _into_stretch(
  times: np.ndarray, stretches: Sequence[Stretch], rows: int, conflict: bool, notes: list[str]
) -> np.ndarray:
  """The times, moved to the video's origin where they are certainly counted from another one."""
  if not stretches:
    return times

  def outside(one: Stretch, first: float, last: float) -> bool:
    # Up to two pictures missing at the end of a file are forgiven; before another episode, whose
    # would be shown, none, nor where the first row is not the first picture: then the times may
    # have another origin.
    interval = 1 / one.info.fps
    late = one.seconds + (1.6 if first <= 0.5 * interval and not one.followed else -0.5) * interval
    return first < -0.5 * interval or (one.seconds > 0 and last > late)

  first, last = float(times[0]), float(times[-1])
  out = [one for one in stretches if outside(one, first, last)]
  if not out:
    return times
  # One picture a row, at the same rate: the first row can only be the first picture.
  if not conflict and all(
    one.pictures == rows and not outside(one, 0.0, last - first) for one in stretches
  ):
    notes.append(
      f"timestamps run from {first:.3f} to {last:.3f} s, the episode's video from 0 to "
      f"{out[0].seconds:.3f} s with as many pictures as rows: {first:.3f} s is taken as its "
      "beginning"
    )
    return times - times[0]
  raise video.Unreadable(
    f"{out[0].where}: timestamps run from {first:.3f} to {last:.3f} s (column 'timestamp'), the "
    f"episode's video from 0 to {out[0].seconds:.3f} s with {out[0].pictures} pictures for {rows} "
    "rows: the video is too short, or the times have another origin"
  )
