"""Selects the frames of an episode from which motion is learned, using only its `FrameMeasures`.

The functions are pure. They map measures and options to a reason for every frame, so that dropped
frames can be counted.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.data import frame_measures

_SMOOTH_SECONDS = 0.5  # motion is averaged over this time around a frame


class Reason(enum.IntEnum):
  """The reason why a frame is dropped. If there are several, it is the first in this order."""

  KEPT = 0
  DUPLICATE = 1
  STILL = 2
  REPEATED = 3
  CAMERA_MOTION = 4
  LITTLE_MOTION = 5
  SHORT_SHOT = 6


@dataclasses.dataclass(frozen=True)
class FilterOptions:
  """Options that select the frames to drop. The defaults drop nothing.

  Attributes:
    drop_still: drop still stretches of at least `still_seconds`.
    still_seconds: shortest still stretch. The `FrameMeasurer` must use the same value, because it
      does not find shorter ones.
    drop_repeated: drop frames that repeat the frame before, outside of still stretches. The frames
      around them stay in one segment, because no picture is missing.
    crop_bars: remove constant bars from the picture. The reader of the video does this; `crop` of
      the result is their size.
    max_global_motion: largest speed of the whole picture at its edge (translation, zoom and
      rotation together), in picture widths per second, averaged over half a second; 0 = no limit.
    min_motion: smallest motion besides the global motion, in percent of the picture's width per
      second, averaged over half a second.
    drop_duplicates: drop what `duplicates.find` finds in an earlier episode of the data set.
    min_shot_seconds: drop segments that are shorter, after all other filters.
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
  """The result of the filters for an episode of T frames.

  Attributes:
    keep: [T] bool, whether a frame is kept.
    reason: [T] uint8, `Reason` of every frame.
    segment: [T] int32, number of the segment of a kept frame, from 0; -1 for a dropped frame. A
      segment contains no cut and no dropped frames, except repeated ones.
    crop: (top, bottom, left, right), pixels to remove, for every camera.
  """

  keep: np.ndarray
  reason: np.ndarray
  segment: np.ndarray
  crop: tuple[tuple[int, int, int, int], ...]

  @property
  def counts(self) -> dict[str, int]:
    """Number of frames by reason, {"kept": n, "still": n, ...}.

    Reasons with 0 frames are left out, except "kept".
    """
    counts = np.bincount(self.reason, minlength=len(Reason))
    return {
      reason.name.lower(): int(counts[reason])
      for reason in Reason
      if counts[reason] or reason == Reason.KEPT
    }


def check(settings: dict[str, Any]) -> FilterOptions:
  """Makes options from a section of a config.

  Raises:
    errors.UserError: a key is unknown or has a wrong value. The message names it.
  """
  known = [field.name for field in dataclasses.fields(FilterOptions)]
  for key in settings:
    if key not in known:
      raise errors.UserError(f"filter option {key!r} does not exist: {errors.nearest(key, known)}")
  return FilterOptions(**settings)


def camera_speed(measures: frame_measures.FrameMeasures) -> np.ndarray:
  """Speed of the whole picture in picture widths per second, [T].

  It is measured at the middle of the left and right edges.
  """
  x, y, zoom, rotation = measures.global_motion.T
  return np.hypot(x, y) + np.hypot(zoom, rotation) / 2


def filter_frames(
  cameras: Sequence[frame_measures.FrameMeasures],
  options: FilterOptions,
  duplicate: np.ndarray | None = None,
) -> FilterResult:
  """Applies the filters to the frames of an episode.

  Args:
    cameras: measures of its cameras, with the same times. A cut in one camera is a cut. A frame is
      still or repeated when it is so in all cameras. The camera with the smallest speed counts for
      `max_global_motion`, the camera with the largest motion for `min_motion`.
    options: the filters.
    duplicate: [T] bool, frames that an earlier episode shows; None = none.

  Raises:
    ValueError: the cameras have different numbers of frames.
  """
  count = len(cameras[0])
  if any(len(camera) != count for camera in cameras):
    raise ValueError(f"cameras of {[len(camera) for camera in cameras]} frames in one episode")
  times = cameras[0].times
  cut = np.any([camera.cut for camera in cameras], axis=0)
  still = np.all([camera.still for camera in cameras], axis=0)
  repeated = np.all([camera.repeated for camera in cameras], axis=0) & ~still
  reason = np.zeros(count, np.uint8)

  def drop(mask: np.ndarray, new: Reason) -> None:
    reason[mask & (reason == Reason.KEPT)] = new

  if options.drop_duplicates and duplicate is not None:
    drop(duplicate, Reason.DUPLICATE)
  if options.drop_still:
    drop(_long_runs(still, cut, times, options.still_seconds), Reason.STILL)
  if options.drop_repeated:
    drop(repeated, Reason.REPEATED)
  if options.max_global_motion:
    speed = np.min([camera_speed(camera) for camera in cameras], axis=0)
    drop(_smooth(speed, times, cut) > options.max_global_motion, Reason.CAMERA_MOTION)
  if options.min_motion:
    motion = np.max([camera.motion for camera in cameras], axis=0)
    drop(_smooth(motion, times, cut) < options.min_motion, Reason.LITTLE_MOTION)
  segment = _segments(reason, cut)
  if options.min_shot_seconds:
    for number in range(segment.max(initial=-1) + 1):
      frames = np.flatnonzero(segment == number)
      if times[frames[-1]] - times[frames[0]] < options.min_shot_seconds - 1e-6:
        reason[frames] = Reason.SHORT_SHOT
    segment = _segments(reason, cut)
  crop = tuple(camera.bars if options.crop_bars else (0, 0, 0, 0) for camera in cameras)
  return FilterResult(reason == Reason.KEPT, reason, segment, crop)


def _segments(reason: np.ndarray, cut: np.ndarray) -> np.ndarray:
  """[T] int32, see `FilterResult.segment`."""
  dropped = (reason != Reason.KEPT) & (reason != Reason.REPEATED)
  breaks = cut | dropped
  part = np.cumsum(breaks)  # the same number for all frames of a segment
  keep = reason == Reason.KEPT
  segment = np.full(len(reason), -1, np.int32)
  segment[keep] = np.unique(part[keep], return_inverse=True)[1]
  return segment


def _long_runs(mask: np.ndarray, cut: np.ndarray, times: np.ndarray, seconds: float) -> np.ndarray:
  """The runs of a mask, ended by cuts, that last at least `seconds`, bool [T]."""
  out = np.zeros(len(mask), bool)
  starts = mask & (cut | ~np.concatenate([[False], mask[:-1]]))
  ends = mask & ~np.concatenate([mask[1:] & ~cut[1:], [False]])
  for first, last in zip(np.flatnonzero(starts), np.flatnonzero(ends), strict=True):
    out[first : last + 1] = times[last] - times[first] >= seconds - 1e-6
  return out


def _smooth(values: np.ndarray, times: np.ndarray, cut: np.ndarray) -> np.ndarray:
  """Means of values within `_SMOOTH_SECONDS` around each frame and within its shot, [T].

  A value belongs to the change from the frame before, so the first frame of a shot has none.
  """
  shot = np.cumsum(cut)
  first_of_shot = np.concatenate([[True], cut[1:]])
  first = np.searchsorted(times, times - _SMOOTH_SECONDS / 2)
  last = np.searchsorted(times, times + _SMOOTH_SECONDS / 2, side="right")
  start = np.searchsorted(shot, shot)
  first, last = (
    np.maximum(first, start),
    np.minimum(last, np.searchsorted(shot, shot, side="right")),
  )
  last = np.maximum(last, np.minimum(first + 2, np.searchsorted(shot, shot, side="right")))
  total = np.concatenate([[0], np.cumsum(np.where(first_of_shot, 0, values))])
  number = np.concatenate([[0], np.cumsum(~first_of_shot)])
  return (total[last] - total[first]) / np.maximum(number[last] - number[first], 1)
