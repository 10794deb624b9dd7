"""Times of frames, and the rule that selects the frame at a given offset after another frame.

The partner of frame t at an offset is the frame nearest to the target time, time[t] + offset. When
two frames are equally near, it is the earlier one. The partner is valid when its distance from the
target time is at most half the local interval plus 1 ms, and at most a fifth of the offset. The
local interval is the gap between the two frames around the target time. Beyond the last frame it is
the last gap.

Legend: T frames of a segment (frames without a cut or a gap in storage between them), K frames of a
window.
"""

import dataclasses
import math

import numpy as np

from como_jax import errors

# Seconds. Times are uniform when they are this close to a line: many containers round to 1 ms.
UNIFORM_WITHIN = 0.75e-3
SLACK = 1e-3  # seconds; tolerance beyond half the local interval
FRACTION = 0.2  # of the offset; the largest tolerance
_ROUNDING = 1e-9  # seconds; tolerance for rounding of float64
_TIE = 1e-6  # intervals; two frames are equally near within this
_WHOLE = 1e-4  # seconds; how far a whole frame rate may move the last frame


@dataclasses.dataclass(frozen=True)
class FrameTimes:
  """Seconds of T frames, increasing.

  Attributes:
    first: seconds of frame 0.
    interval: seconds between two frames. The mean when the times are explicit.
    count: T.
    explicit: seconds of all frames, float64 [T]. None when frame t is at first + t * interval.
  """

  first: float
  interval: float
  count: int
  explicit: np.ndarray | None = None

  @classmethod
  def from_seconds(cls, seconds: np.ndarray) -> "FrameTimes":
    """Makes `FrameTimes` of the times of all frames.

    They become uniform when all are within `UNIFORM_WITHIN` of a line.

    Args:
      seconds: [T].

    Raises:
      ValueError: the times are not finite or not increasing. The message names the frame.
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
      # A whole number of frames per second is preferred when it fits as well.
      whole = 1 / max(1, round(1 / slope))
      return cls(first, whole if abs(whole - slope) * count < _WHOLE else slope, count)
    return cls(float(seconds[0]), float(interval), count, seconds)

  def __len__(self) -> int:
    return self.count

  def seconds_at(self, frames: np.ndarray | int) -> np.ndarray:
    """Seconds of frames, float64."""
    return (
      self.first + np.asarray(frames) * self.interval
      if self.explicit is None
      else self.explicit[frames]
    )

  def nearest(self, seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the frames nearest to some times; of two equally near frames, the earlier.

    Args:
      seconds: times, any shape.

    Returns:
      (frames, local intervals in seconds), each of the shape of `seconds`.
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
    """The frames at steps * offset seconds after some frames.

    Args:
      frames: int [...].
      offset: seconds, more than 0. A fifth of it is the largest tolerance.
      steps: number of offsets, may be negative.

    Returns:
      (frame numbers int64 [...], valid bool [...]).

    >>> ten_a_second = FrameTimes.from_seconds(np.arange(5) / 10)
    >>> found, valid = ten_a_second.partners(np.array([0, 1, 4]), 0.2)
    >>> found.tolist(), valid.tolist()
    ([2, 3, 4], [True, True, False])
    """
    frames = np.asarray(frames)
    target = self.seconds_at(frames) + steps * offset
    partner, gap = self.nearest(target)
    distance = np.abs(self.seconds_at(partner) - target)
    near = distance <= np.minimum(gap / 2 + SLACK, FRACTION * offset) + _ROUNDING
    return partner, near & (np.sign(partner - frames) == np.sign(steps))

  def valid_starts(self, offset: float, frames: int) -> tuple[np.ndarray, int]:
    """The first frames of the windows of K frames that are `offset` seconds apart.

    Args:
      offset: seconds between the frames of a window.
      frames: K.

    Returns:
      (first frames int64 [n], number of other frames whose window ends before the last frame but
      has no frame close enough to one of the target times).
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
    """Frame numbers int64 [K] of the window that begins at a valid start.

    Args:
      start: a frame of `valid_starts`.
      offset: seconds between the frames of a window.
      frames: K.
    """
    # Same result as `partners`. Scalars are faster than arrays of two or three values, and this
    # runs for every sample.
    if self.explicit is None:
      start_seconds = self.first + start * self.interval
      return np.array(
        [start, *(self._nearest(start_seconds + k * offset) for k in range(1, frames))], np.int64
      )
    return np.concatenate(
      [[start], self.partners(np.full(frames - 1, start), offset, steps=np.arange(1, frames))[0]]
    ).astype(np.int64)

  def _nearest(self, seconds: float) -> int:
    """The frame that `nearest` returns, for uniform times."""
    if not self.interval:
      return 0
    return min(
      max(math.ceil((seconds - self.first) / self.interval - 0.5 - _TIE), 0), self.count - 1
    )

  def slice(self, first: int, last: int) -> "FrameTimes":
    """Times of the frames first to last (exclusive)."""
    if self.explicit is None:
      return dataclasses.replace(self, first=self.first + first * self.interval, count=last - first)
    return FrameTimes.from_seconds(self.explicit[first:last])

  @property
  def rate(self) -> float:
    """Frames per second, for reports; 0 for a single frame."""
    if self.count < 2:
      return 0.0
    return 1 / (
      self.interval if self.explicit is None else float(np.median(np.diff(self.explicit)))
    )


def strides(
  interval: float | np.ndarray, offset: float, frames: int
) -> tuple[np.ndarray, np.ndarray]:
  """Windows over frames at a constant rate, in numbers of frames.

  Args:
    interval: seconds between two frames, any shape. 0 = there is only one frame.
    offset: seconds between the frames of a window.
    frames: K.

  Returns:
    (number of frames from the first frame of a window to each of its frames, int64 [..., K];
    bool [...], whether all of them exist and are close enough to the target times).
  """
  interval = np.asarray(interval, np.float64)[..., None]
  steps = np.arange(frames)
  moving = interval > 0
  stride = np.ceil(steps * offset / np.where(moving, interval, 1.0) - 0.5 - _TIE).astype(np.int64)
  distance = np.abs(stride * interval - steps * offset)
  near = distance <= np.minimum(interval / 2 + SLACK, FRACTION * offset) + _ROUNDING
  good = near.all(-1) & (np.diff(stride) > 0).all(-1) & (moving[..., 0] | (frames == 1))
  return np.where(moving, stride, steps), good


def ends_in_time(
  interval: float | np.ndarray, count: int | np.ndarray, seconds: float
) -> np.ndarray:
  """Number of frames that have a later frame at least `seconds` away, at a constant rate.

  Args:
    interval: seconds between two frames, any shape.
    count: number of all frames, of the same shape.
    seconds: the distance.

  Returns:
    int64, of the shape of `interval`.
  """
  interval = np.asarray(interval, np.float64)
  reach = np.floor(np.asarray(count) - seconds / np.where(interval > 0, interval, 1.0) + _TIE)
  return np.where(interval > 0, np.maximum(reach, 0), 0).astype(np.int64)


def check_increasing(seconds: np.ndarray) -> None:
  """Checks that times are finite and increasing.

  Raises:
    ValueError: they are not. The message names the first such frame.
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
  """Checks that an offset is a positive number of seconds.

  Args:
    offset: seconds.
    name: the data set in messages.

  Raises:
    errors.UserError: it is not.
  """
  if not (np.isfinite(offset) and offset > 0):
    raise errors.UserError(f"{name}: the offset is {offset} s, expected more than 0")


def draw_jittered(
  times: FrameTimes, start: int, partner: int, offset: float, rng: np.random.Generator
) -> int:
  """Draws a random frame near the partner of a frame.

  A time is drawn uniformly within a fifth of the offset around time[start] + offset. The result is
  the frame within this range that is nearest to the drawn time, the partner excluded. Where there
  is no such frame, the result is the partner.

  Args:
    times: of the segment.
    start: the first frame of the pair.
    partner: the second frame of the pair.
    offset: seconds.
    rng: source of randomness.
  """
  target, reach = float(times.seconds_at(start)) + offset, FRACTION * offset + _ROUNDING
  drawn = target + rng.uniform(-1.0, 1.0) * FRACTION * offset
  if times.explicit is None:  # few frames: scalars are faster, and this runs for every sample
    first, interval = times.first, times.interval
    low, high = times._nearest(target - reach), times._nearest(target + reach)
    nearby = [
      t
      for t in range(max(low, start + 1), high + 1)
      if t != partner and abs(first + t * interval - target) <= reach
    ]
    return min(nearby, key=lambda t: abs(first + t * interval - drawn), default=int(partner))
  low, high = times.nearest(np.array([target - reach, target + reach]))[0]
  candidates = np.arange(max(low, start + 1), high + 1)
  candidates = candidates[
    (candidates != partner) & (np.abs(times.seconds_at(candidates) - target) <= reach)
  ]
  if not len(candidates):
    return int(partner)
  return int(candidates[np.argmin(np.abs(times.seconds_at(candidates) - drawn))])
