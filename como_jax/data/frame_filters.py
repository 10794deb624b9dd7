"""Which frames of an episode are worth learning motion from, decided from its `FrameMeasures`
alone.

Pure functions: measures and options to a mask with a reason for every frame, so that what was
dropped can be counted.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.data import frame_measures

_SMOOTH_SECONDS = 0.5  # motion is judged over so much time around a frame


class Reason(enum.IntEnum):
  """Why a frame is dropped; where several reasons hold, the first one in this order is given."""

  KEPT = 0
  DUPLICATE = 1
  STILL = 2
  REPEATED = 3
  CAMERA_MOTION = 4
  LITTLE_MOTION = 5
  SHORT_SHOT = 6


@dataclasses.dataclass(frozen=True)
class FilterOptions:
  """What is dropped. The defaults drop nothing.

  Attributes:
    drop_still: drop still stretches of at least `still_seconds`.
    still_seconds: also what the measurer must be given, which finds no shorter ones.
    drop_repeated: drop frames that repeat the one before them, outside of still stretches. The
      frames around them stay in one segment, because no picture is missing.
    crop_bars: cut constant bars off the picture (done by whoever reads the video; `crop` of the
      result says how much).
    max_global_motion: picture widths per second that the whole picture may move at its edge
      (translation, zoom and rotation together), averaged over half a second; 0 = any.
    min_motion: per cent of the picture's width per second that things must move besides, averaged
      over half a second.
    drop_duplicates: drop what `duplicates.find` finds in an earlier episode of the data set.
    min_shot_seconds: drop segments that are shorter, after everything else.
  """

  drop_still: bool = False
  still_seconds: float = frame_measures.STILL_SECONDS
  drop_repeated: bool = False
  crop_bars: bool = False
  max_global_motion: float = 0.0
  min_motion: float = 0.0
  drop_duplicates: bool = False
  min_shot_seconds: float = 0.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type is bool:
        if not isinstance(value, bool):
          raise errors.UserError(f"filter option {field.name}={value!r}, expected True or False")
      elif (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value < float("inf")
      ):
        raise errors.UserError(
          f"filter option {field.name}={value!r}, expected a number that is not negative"
        )


@dataclasses.dataclass(frozen=True)
class FilterResult:
  """What stays of an episode of T frames.

  Attributes:
    keep: [T] bool.
    reason: [T] uint8, `Reason` of every frame.
    segment: [T] int32, the number of the segment that a kept frame belongs to, from 0; -1 where it
      is dropped. A segment crosses neither a cut nor dropped frames, other than repeated ones.
    crop: (top, bottom, left, right) pixels to cut off, for every camera.
  """

  keep: np.ndarray
  reason: np.ndarray
  segment: np.ndarray
  crop: tuple[tuple[int, int, int, int], ...]

  @property
  def counts(self) -> dict[str, int]:
    """Frames by reason, {"kept": n, "still": n, ...}; those of 0 frames are left out but for
    "kept".
    """
    numbers = np.bincount(self.reason, minlength=len(Reason))
    return {
      reason.name.lower(): int(numbers[reason])
      for reason in Reason
      if numbers[reason] or reason == Reason.KEPT
    }


def check(settings: dict[str, Any]) -> FilterOptions:
  """Options from a config's section.

  Raises `errors.UserError` naming a key that is unknown or has a wrong value.
  """
  known = [field.name for field in dataclasses.fields(FilterOptions)]
  for key in settings:
    if key not in known:
      raise errors.UserError(f"filter option {key!r} does not exist: {errors.nearest(key, known)}")
  return FilterOptions(**settings)


def camera_speed(measures: frame_measures.FrameMeasures) -> np.ndarray:
  """[T], picture widths per second that the whole picture moves at the middle of its left and right
  edges.
  """
  x, y, zoom, rotation = measures.global_motion.T
  return np.hypot(x, y) + np.hypot(zoom, rotation) / 2


def filter_frames(
  cameras: Sequence[frame_measures.FrameMeasures],
  options: FilterOptions,
  duplicate: np.ndarray | None = None,
) -> FilterResult:
  """Decides about the frames of an episode.

  Args:
    cameras: measures of its cameras, frame by frame at the same times. A cut in one camera is a
      cut; still or repeated is what is so in all of them; the calmest camera counts for
      `max_global_motion`, the liveliest for `min_motion`.
    options: see there.
    duplicate: [T] bool, frames known from an earlier episode.

  Raises:
    ValueError: the cameras differ in the number of frames.
  """
  count = len(cameras[0])
  if any(len(one) != count for one in cameras):
    raise ValueError(f"cameras of {[len(one) for one in cameras]} frames in one episode")
  times = cameras[0].times
  cut = np.any([one.cut for one in cameras], axis=0)
  still = np.all([one.still for one in cameras], axis=0)
  repeated = np.all([one.repeated for one in cameras], axis=0) & ~still
  reason = np.zeros(count, np.uint8)

  def drop(mask: np.ndarray, why: Reason) -> None:
    reason[mask & (reason == Reason.KEPT)] = why

  if options.drop_duplicates and duplicate is not None:
    drop(duplicate, Reason.DUPLICATE)
  if options.drop_still:
    drop(_long_runs(still, cut, times, options.still_seconds), Reason.STILL)
  if options.drop_repeated:
    drop(repeated, Reason.REPEATED)
  if options.max_global_motion:
    speed = np.min([camera_speed(one) for one in cameras], axis=0)
    drop(_smooth(speed, times, cut) > options.max_global_motion, Reason.CAMERA_MOTION)
  if options.min_motion:
    motion = np.max([one.motion for one in cameras], axis=0)
    drop(_smooth(motion, times, cut) < options.min_motion, Reason.LITTLE_MOTION)
  segment = _segments(reason, cut)
  if options.min_shot_seconds:
    for number in range(segment.max(initial=-1) + 1):
      frames = np.flatnonzero(segment == number)
      if times[frames[-1]] - times[frames[0]] < options.min_shot_seconds - 1e-6:
        reason[frames] = Reason.SHORT_SHOT
    segment = _segments(reason, cut)
  crop = tuple(one.bars if options.crop_bars else (0, 0, 0, 0) for one in cameras)
  return FilterResult(reason == Reason.KEPT, reason, segment, crop)


def _segments(reason: np.ndarray, cut: np.ndarray) -> np.ndarray:
  """[T] int32, see `FilterResult.segment`."""
  gone = (reason != Reason.KEPT) & (reason != Reason.REPEATED)
  breaks = cut | gone
  part = np.cumsum(breaks)  # frames of one segment have one number
  keep = reason == Reason.KEPT
  segment = np.full(len(reason), -1, np.int32)
  segment[keep] = np.unique(part[keep], return_inverse=True)[1]
  return segment


def _long_runs(mask: np.ndarray, cut: np.ndarray, times: np.ndarray, seconds: float) -> np.ndarray:
  """The runs of a mask, ended by cuts, that last at least so long."""
  out = np.zeros(len(mask), bool)
  starts = mask & (cut | ~np.concatenate([[False], mask[:-1]]))
  ends = mask & ~np.concatenate([mask[1:] & ~cut[1:], [False]])
  for first, last in zip(np.flatnonzero(starts), np.flatnonzero(ends), strict=True):
    out[first : last + 1] = times[last] - times[first] >= seconds - 1e-6
  return out


def _smooth(values: np.ndarray, times: np.ndarray, cut: np.ndarray) -> np.ndarray:
  """Means over the changes within `_SMOOTH_SECONDS` around each frame and in its shot, whose first
  frame has none.
  """
  shot = np.cumsum(cut)
  first_of_shot = np.concatenate([[True], cut[1:]])
  first = np.searchsorted(times, times - _SMOOTH_SECONDS / 2)
  last = np.searchsorted(times, times + _SMOOTH_SECONDS / 2, side="right")
  begin = np.searchsorted(shot, shot)
  first, last = (
    np.maximum(first, begin),
    np.minimum(last, np.searchsorted(shot, shot, side="right")),
  )
  last = np.maximum(last, np.minimum(first + 2, np.searchsorted(shot, shot, side="right")))
  total = np.concatenate([[0], np.cumsum(np.where(first_of_shot, 0, values))])
  number = np.concatenate([[0], np.cumsum(~first_of_shot)])
  return (total[last] - total[first]) / np.maximum(number[last] - number[first], 1)
