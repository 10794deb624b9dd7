"""Times of frames, and the one rule by which a frame is chosen that lies a given time after
another.

The partner of frame t at an offset is the frame nearest to time[t] + offset, of two equally near
ones the earlier. It is valid when it is at most half the local interval plus 1 ms, and at most a
fifth of the offset, away from the wanted time. The local interval is the gap between the two frames
around the wanted time; beyond the last frame it is the last gap.

Legend: T frames of a segment (frames without a cut or a gap in storage between them), K frames of a
window.
"""

import dataclasses
import math

import numpy as np

from como_jax import errors

# seconds that times may lie from a line and still count as uniform: many containers round to 1 ms
UNIFORM_WITHIN = 0.75e-3
SLACK = 1e-3  # seconds beyond half the local interval
FRACTION = 0.2  # of the offset
_ROUNDING = 1e-9  # seconds
_TIE = 1e-6  # intervals
_WHOLE = 1e-4  # seconds that the last of uniform frames may be moved


@dataclasses.dataclass(frozen=True)
class FrameTimes:
  """Seconds of T frames, increasing.

  Attributes:
    first: of frame 0.
    interval: between two frames; where they are explicit, the mean.
    count: T.
    explicit: float64 [T], or None where frame t lies at first + t * interval.
  """

  first: float
  interval: float
  count: int
  explicit: np.ndarray | None = None

  @classmethod
  def of(cls, seconds: np.ndarray) -> "FrameTimes":
    """From the times of all frames [T]; uniform where they are within `UNIFORM_WITHIN` of a line.

    Raises:
      ValueError: not finite or not increasing; the text says where.
    """
    seconds = np.asarray(seconds, np.float64)
    check_increasing(seconds)
    count = len(seconds)
    if count < 2:
      return cls(float(seconds[0]) if count else 0.0, 0.0, count)
    interval = (seconds[-1] - seconds[0]) / (count - 1)
    frames = np.arange(count)
    centered = frames - (count - 1) / 2
    slope = float(centered @ seconds / (centered @ centered))
    rest = seconds - frames * slope
    first = float(rest.max() + rest.min()) / 2
    if np.abs(rest - first).max() <= min(UNIFORM_WITHIN, 0.25 * slope):
      # a whole number of frames a second, where that is as good
      whole = 1 / max(1, round(1 / slope))
      return cls(first, whole if abs(whole - slope) * count < _WHOLE else slope, count)
    return cls(float(seconds[0]), float(interval), count, seconds)

  def __len__(self) -> int:
    return self.count

  def at(self, frames: np.ndarray | int) -> np.ndarray:
    """Seconds of frames, float64."""
    return (
      self.first + np.asarray(frames) * self.interval
      if self.explicit is None
      else self.explicit[frames]
    )

  def nearest(self, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(frames nearest to some seconds, the earlier of two equally near; the local interval there in
    seconds).
    """
    seconds = np.asarray(seconds, np.float64)
    if self.explicit is None:
      if not self.interval:
        return np.zeros(seconds.shape, np.int64), np.zeros(seconds.shape)
      frames = np.ceil((seconds - self.first) / self.interval - 0.5 - _TIE).astype(np.int64)
      return np.clip(frames, 0, self.count - 1), np.full(seconds.shape, self.interval)
    after = np.clip(np.searchsorted(self.explicit, seconds), 1, self.count - 1)
    before = after - 1
    gap = self.explicit[after] - self.explicit[before]
    later = (self.explicit[after] - seconds) < (seconds - self.explicit[before]) - _TIE * gap
    return np.where(later, after, before), gap

  def partners(
    self, frames: np.ndarray, offset: float, *, steps: int | np.ndarray = 1
  ) -> tuple[np.ndarray, np.ndarray]:
    """The frames that lie steps * offset seconds after some frames.

    Args:
      frames: int [...].
      offset: seconds, more than 0; a fifth of it is the tolerance.
      steps: how many offsets away, may be negative.

    Returns:
      (frame numbers int64 [...], valid bool [...]).
    """
    frames = np.asarray(frames)
    wanted = self.at(frames) + steps * offset
    found, gap = self.nearest(wanted)
    away = np.abs(self.at(found) - wanted)
    near = away <= np.minimum(gap / 2 + SLACK, FRACTION * offset) + _ROUNDING
    return found, near & (np.sign(found - frames) == np.sign(steps))

  def valid_starts(self, offset: float, frames: int) -> tuple[np.ndarray, int]:
    """The first frames of windows of K frames that are `offset` seconds apart.

    Returns:
      (int64 [n], number of further frames whose window would end in time but lacks a frame at one
      of the wanted times).
    """
    if self.explicit is None:
      steps, near = strides(self.interval, offset, frames)
      if near:
        return np.arange(max(0, self.count - int(steps[-1]))), 0
      return np.zeros(0, np.int64), int(
        ends_in_time(self.interval, self.count, (frames - 1) * offset)
      )
    starts = np.arange(self.count)
    good = np.ones(self.count, bool)
    for k in range(1, frames):
      good &= self.partners(starts, offset, steps=k)[1]
    in_time = self.explicit + (frames - 1) * offset <= self.explicit[-1] + _ROUNDING
    return starts[good], int(np.sum(in_time & ~good))

  def window(self, start: int, offset: float, frames: int) -> np.ndarray:
    """Frame numbers int64 [K] of the window that begins at a valid start."""
    # as `partners` has it, without the cost of arrays of two or three numbers: every sample comes
    # here
    if self.explicit is None:
      begin = self.first + start * self.interval
      return np.array(
        [start, *(self._nearest(begin + k * offset) for k in range(1, frames))], np.int64
      )
    return np.concatenate(
      [[start], self.partners(np.full(frames - 1, start), offset, steps=np.arange(1, frames))[0]]
    ).astype(np.int64)

  def _nearest(self, seconds: float) -> int:
    """Of uniform frames the one that `nearest` gives."""
    if not self.interval:
      return 0
    return min(
      max(math.ceil((seconds - self.first) / self.interval - 0.5 - _TIE), 0), self.count - 1
    )

  def slice(self, first: int, last: int) -> "FrameTimes":
    """Of frames first to last (exclusive)."""
    if self.explicit is None:
      return dataclasses.replace(self, first=self.first + first * self.interval, count=last - first)
    return FrameTimes.of(self.explicit[first:last])

  @property
  def rate(self) -> float:
    """Frames a second, for people; 0 for a single frame."""
    if self.count < 2:
      return 0.0
    return 1 / (
      self.interval if self.explicit is None else float(np.median(np.diff(self.explicit)))
    )


def strides(
  interval: float | np.ndarray, offset: float, frames: int
) -> tuple[np.ndarray, np.ndarray]:
  """Windows over frames at a constant rate.

  Args:
    interval: seconds between two frames, any shape; 0 = there is only one.
    offset: seconds between the frames of a window.
    frames: K.

  Returns:
    (frames from the first of a window to each of its frames, int64 [..., K]; bool [...], whether
    all of them exist and are near enough to the wanted times).
  """
  interval = np.asarray(interval, np.float64)[..., None]
  steps = np.arange(frames)
  moving = interval > 0
  found = np.ceil(steps * offset / np.where(moving, interval, 1.0) - 0.5 - _TIE).astype(np.int64)
  away = np.abs(found * interval - steps * offset)
  near = away <= np.minimum(interval / 2 + SLACK, FRACTION * offset) + _ROUNDING
  good = near.all(-1) & (np.diff(found) > 0).all(-1) & (moving[..., 0] | (frames == 1))
  return np.where(moving, found, steps), good


def ends_in_time(
  interval: float | np.ndarray, count: int | np.ndarray, seconds: float
) -> np.ndarray:
  """How many of `count` frames at a constant rate have a later frame at least `seconds` away."""
  interval = np.asarray(interval, np.float64)
  reach = np.floor(np.asarray(count) - seconds / np.where(interval > 0, interval, 1.0) + _TIE)
  return np.where(interval > 0, np.maximum(reach, 0), 0).astype(np.int64)


def check_increasing(seconds: np.ndarray) -> None:
  """Raises ValueError naming the first frame whose time is not finite or not after the one
  before.
  """
  bad = np.flatnonzero(~np.isfinite(seconds))
  if len(bad):
    raise ValueError(
      f"the time of frame {bad[0]} is {seconds[bad[0]]}, expected a finite number of seconds"
    )
  bad = np.flatnonzero(np.diff(seconds) <= 0)
  if len(bad):
    t = int(bad[0])
    raise ValueError(
      f"time does not go on: frame {t} at {seconds[t]:.6f} s, frame {t + 1} at "
      f"{seconds[t + 1]:.6f} s"
    )


def check_offset(offset: float, name: str) -> None:
  """Raises `errors.UserError` where an offset is not a positive number of seconds."""
  if not (np.isfinite(offset) and offset > 0):
    raise errors.UserError(f"{name}: the offset is {offset} s, expected more than 0")


def draw_jittered(
  times: FrameTimes, start: int, partner: int, offset: float, rng: np.random.Generator
) -> int:
  """A frame beside the partner: a time is drawn evenly within a fifth of the offset around
  time[start] + offset, and the nearest other frame in there is taken; the partner itself where
  there is no other.
  """
  wanted, reach = float(times.at(start)) + offset, FRACTION * offset + _ROUNDING
  drawn = wanted + rng.uniform(-1.0, 1.0) * FRACTION * offset
  if times.explicit is None:  # a few frames, and every sample comes here
    first, interval = times.first, times.interval
    low, high = times._nearest(wanted - reach), times._nearest(wanted + reach)
    beside = [
      t
      for t in range(max(low, start + 1), high + 1)
      if t != partner and abs(first + t * interval - wanted) <= reach
    ]
    return min(beside, key=lambda t: abs(first + t * interval - drawn), default=int(partner))
  low, high = times.nearest(np.array([wanted - reach, wanted + reach]))[0]
  candidates = np.arange(max(low, start + 1), high + 1)
  candidates = candidates[
    (candidates != partner) & (np.abs(times.at(candidates) - wanted) <= reach)
  ]
  if not len(candidates):
    return int(partner)
  return int(candidates[np.argmin(np.abs(times.at(candidates) - drawn))])
