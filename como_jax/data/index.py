"""The windows of a data set, and its split into training and validation episodes.

A window is K frames of one segment at times t, t + offset, ..., t + (K-1) * offset (`data.times`).
The windows are enumerated once, from the table of clips. The full list is never stored: window i is
computed from one row per run of first frames of a (segment, camera) and a running count.
"""

import dataclasses
import warnings
from collections.abc import Iterator

import numpy as np

from como_jax import errors
from como_jax.data import shards, times

SPLITS = ("train", "validation", "all")


@dataclasses.dataclass(frozen=True)
class Window:
  """The location of one sample: segment, camera id, first frame within the segment."""

  segment: int
  camera: int
  t: int


@dataclasses.dataclass(frozen=True)
class Windows:
  """All windows of a data set, in order of segment, camera, time.

  Legend: M groups, one for each range of first frames of a segment and camera.

  Attributes:
    frames: K.
    offset: seconds between two frames.
    segments: of the data set.
    segment: [M], the segment of each group.
    camera: [M], the camera id of each group.
    first: [M], the first t of each group.
    end: [M], the running count of windows, this group included.
    num_segments_without_window: number of segments that are too short for any window.
    left_out: number of windows that end within their segment but have no frame close enough to one
      of the target times.
  """

  frames: int
  offset: float
  segments: shards.Segments
  segment: np.ndarray
  camera: np.ndarray
  first: np.ndarray
  end: np.ndarray
  num_segments_without_window: int
  left_out: int

  def __len__(self) -> int:
    return int(self.end[-1])

  def __getitem__(self, i: int) -> Window:
    if not 0 <= i < len(self):
      raise IndexError(i)
    group = int(np.searchsorted(self.end, i, side="right"))
    before = int(self.end[group - 1]) if group else 0
    return Window(
      int(self.segment[group]), int(self.camera[group]), int(self.first[group]) + int(i) - before
    )


def offset_in_frames(
  table: shards.Table, offset_seconds: float, rows: np.ndarray | None = None
) -> list[int]:
  """The offset in frames, for each frame rate of the clips with uniform times.

  Args:
    table: the clips.
    offset_seconds: seconds between the frames of a window.
    rows: rows of the table to use, None = all.

  Returns:
    The different numbers of frames, sorted.
  """
  intervals = np.unique(np.round(table.interval[rows if rows is not None else slice(None)], 9))
  return sorted(
    {int(times.strides(seconds, offset_seconds, 2)[0][1]) for seconds in intervals if seconds > 0}
  )


def camera_ids(table: shards.Table, names: tuple[str, ...], *, name: str) -> list[int]:
  """Ids of cameras: their indices in `table.cameras`.

  Args:
    table: the clips.
    names: names of the cameras, () = all.
    name: the data set in messages.

  Raises:
    errors.UserError: a camera is unknown.
  """
  for camera in names:
    if camera not in table.cameras:
      raise errors.UserError(
        f"{name}: camera {camera!r} does not exist: {errors.nearest(camera, table.cameras)}"
      )
  return [i for i, camera in enumerate(table.cameras) if not names or camera in names]


def windows(
  table: shards.Table,
  *,
  frames: int,
  offset_seconds: float,
  clip_mask: np.ndarray | None = None,
  cameras: tuple[str, ...] = (),
  name: str = "data set",
  warn: bool = True,
) -> Windows:
  """Enumerates the windows.

  Args:
    table: the clips.
    frames: K. With K = 1 every frame is a window.
    offset_seconds: seconds between the frames of a window.
    clip_mask: bool [R], None = all clips.
    cameras: names to use, empty = all. Ids are indices into `table.cameras`.
    name: the data set in messages.
    warn: whether to warn about segments without a window and about windows left out.

  Raises:
    errors.UserError: a camera is unknown, the offset is not valid, or no window fits.
  """
  ids = camera_ids(table, cameras, name=name)
  times.check_offset(offset_seconds, name)
  if frames < 1:
    raise errors.UserError(f"{name}: a window needs at least 1 frame, got {frames}")
  all_segments = shards.segments(table, clip_mask)
  if not len(all_segments):
    raise errors.UserError(
      f"{name}: no episode in this split (validation needs at least 2 episodes)"
    )
  segment, first, count, left_out = start_ranges(all_segments, frames=frames, offset=offset_seconds)
  if not len(segment):
    _refuse(all_segments, frames, offset_seconds, left_out, name)
  without = len(all_segments) - len(np.unique(segment))
  if warn and without:
    warnings.warn(
      f"{name}: {without} of {len(all_segments)} segments have no window ({frames} frames, "
      f"{offset_seconds} s apart) and are not used",
      stacklevel=2,
    )
  if warn and left_out:
    warnings.warn(
      f"{name}: {left_out} of {left_out + int(count.sum())} windows are left out: no frame is "
      f"near enough to {offset_seconds} s after another (rates that vary or do not fit, gaps)",
      stacklevel=2,
    )
  order = np.lexsort(
    (np.tile(first, len(ids)), np.repeat(ids, len(segment)), np.tile(segment, len(ids)))
  )
  return Windows(
    frames,
    offset_seconds,
    all_segments,
    np.tile(segment, len(ids))[order],
    np.repeat(ids, len(segment))[order],
    np.tile(first, len(ids))[order],
    np.cumsum(np.tile(count, len(ids))[order]),
    without,
    left_out,
  )


def start_ranges(
  segments: shards.Segments, *, frames: int, offset: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
  """Finds the ranges of consecutive frames that are first frames of windows.

  Args:
    segments: of a data set.
    frames: K.
    offset: seconds between the frames of a window.

  Returns:
    (segment, first t, count), int64 [n] each, one entry per range, in order; and the number of
    windows left out (see `Windows`).
  """
  table = segments.table
  parts, left_out = [], 0
  uniform = np.flatnonzero(segments.uniform)
  steps, near = times.strides(table.interval[segments.first_row[uniform]], offset, frames)
  count = np.maximum(segments.count[uniform] - steps[:, -1], 0)
  lost = times.ends_in_time(
    table.interval[segments.first_row[uniform]], segments.count[uniform], (frames - 1) * offset
  )
  left_out += int(lost[~near].sum())
  usable = near & (count > 0)
  parts.append((uniform[usable], np.zeros(int(usable.sum()), np.int64), count[usable]))
  for s, seconds in _varying_times(segments):
    starts, lost = seconds.valid_starts(offset, frames)
    left_out += lost
    if len(starts):
      range_starts = np.flatnonzero(np.concatenate([[True], np.diff(starts) > 1]))
      count = np.diff(np.concatenate([range_starts, [len(starts)]]))
      parts.append((np.full(len(range_starts), s), starts[range_starts], count))
  segment, first, count = (
    np.concatenate([part[i] for part in parts]).astype(np.int64) for i in range(3)
  )
  order = np.lexsort((first, segment))
  return segment[order], first[order], count[order], left_out


def _varying_times(segments: shards.Segments) -> Iterator[tuple[int, times.FrameTimes]]:
  """Yields (segment, its times) for each segment whose times are not uniform, in order.

  Only a few clips are in memory at a time when the table has the order of its file.
  """
  table, varying = segments.table, np.flatnonzero(~segments.uniform)
  rows = shards.concatenate_ranges(segments.first_row[varying], segments.last_row[varying])
  explicit: dict[int, np.ndarray] = {}
  parts = table.explicit_parts(rows[~table.uniform[rows]])
  for s in varying.tolist():
    varying_rows = [row for row in segments.rows(s) if not table.uniform[row]]
    while any(row not in explicit for row in varying_rows):
      explicit |= next(parts)
    yield s, segment_times(segments, s, explicit)
    for row in varying_rows:
      del explicit[row]


def segment_times(
  segments: shards.Segments, segment: int, explicit: dict[int, np.ndarray]
) -> times.FrameTimes:
  """Times of all frames of a segment.

  Args:
    segments: of a data set.
    segment: index of the segment.
    explicit: row of the table -> seconds, as `Table.explicit_times` returns them.
  """
  table, uniform = segments.table, segments.uniform_times(segment)
  if uniform is not None:
    return uniform
  parts = [
    explicit[row] if row in explicit else table.times(row).seconds_at(np.arange(table.length[row]))
    for row in segments.rows(segment)
  ]
  return times.FrameTimes.from_seconds(np.concatenate(parts))


def _refuse(
  segments: shards.Segments, frames: int, offset: float, left_out: int, name: str
) -> None:
  """Raises the `errors.UserError` that says why no window fits."""
  table = segments.table
  longest = int(segments.count.argmax())
  interval = float(table.interval[segments.first_row[longest]])
  detail = f"the longest segment has {segments.count[longest]} frames" + (
    f" at {1 / interval:.6g} frames a second" if interval else ""
  )
  if left_out:
    nearest = max(interval, round(offset / interval) * interval)
    raise errors.UserError(
      f"{name}: no frame is near enough to {offset} s after another: {detail}. Set the offset to a "
      f"multiple of the frames' interval, {nearest:.4g} s say"
    )
  raise errors.UserError(
    f"{name}: no window fits: {frames} frames {offset} s apart, {detail}. Lower the offset"
  )


def split(table: shards.Table, fraction: float) -> np.ndarray:
  """Splits the clips of a table: bool [R], True = validation.

  The split depends on the split key: a hash of the episode, or of the group of episodes that show
  one motion. So all cameras, clips and scenes of a motion stay on one side.

  Within each task the keys are sorted, and the first ceil(fraction * n) are for validation. Tasks
  with a single episode (internet video, where every caption differs) are pooled and treated as one
  task. When there is only one episode, it is for training.

  Args:
    table: the clips.
    fraction: share of the episodes of a task that are for validation, at least 0 and less than 1.

  Raises:
    errors.UserError: the fraction is out of range.
  """
  if not 0 <= fraction < 1:
    raise errors.UserError(
      f"validation_fraction is {fraction}, expected at least 0 and less than 1"
    )
  if fraction == 0:
    return np.zeros(len(table), bool)
  # The task of an episode is its first instruction.
  _, rows = np.unique(table.episode, return_index=True)
  # The result is sorted by task, then by key.
  tasks, keys = np.unique(
    np.stack([table.task[rows].astype(np.int64), table.split_key[rows]]), axis=1
  )
  starts = np.flatnonzero(np.concatenate([[True], np.diff(tasks) > 0]))
  count = np.diff(starts, append=len(keys))
  chosen = keys[
    np.arange(len(keys)) - np.repeat(starts, count) < np.repeat(_held_out(count, fraction), count)
  ]
  pool = np.unique(keys[np.repeat(count == 1, count)])
  return np.isin(
    table.split_key, np.concatenate([chosen, pool[: int(_held_out(len(pool), fraction))]])
  )


def _held_out(count: np.ndarray | int, fraction: float) -> np.ndarray:
  """Number of keys for validation, out of `count`; at least one key is for training."""
  return np.maximum(
    np.minimum(np.ceil(fraction * np.asarray(count)).astype(np.int64), np.asarray(count) - 1), 0
  )


def select(table: shards.Table, split_name: str, fraction: float) -> np.ndarray:
  """The clips of a part of the split, bool [R].

  Args:
    table: the clips.
    split_name: "train", "validation" or "all".
    fraction: share of the episodes that are for validation.

  Raises:
    errors.UserError: `split_name` is unknown, or the fraction is out of range.
  """
  if split_name not in SPLITS:
    raise errors.UserError(f"unknown split {split_name!r}: {errors.nearest(split_name, SPLITS)}")
  if split_name == "all":
    return np.ones(len(table), bool)
  validation = split(table, fraction)
  return validation if split_name == "validation" else ~validation
