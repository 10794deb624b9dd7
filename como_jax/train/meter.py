"""Speed of a run: throughput, the share of time spent waiting for data, and a warning about it."""

import time
from collections.abc import Callable, Sequence

import numpy as np

THRESHOLD = 0.2  # minimum share of the time spent waiting for data that causes a warning
_MIN_SECONDS = 1.0  # minimum length of a window; a few steps of a debug run are not representative
_REPEAT_SECONDS = 600.0  # minimum time between two warnings


class Meter:
  """Throughput and the share of time spent waiting for data.

  The first step is not counted, because it includes compilation.
  """

  def __init__(self, examples_per_step: int):
    self._examples, self._steps, self._wait, self._pause = examples_per_step, 0, 0.0, 0.0
    self._begin: float | None = None  # time of the first finished step
    self._ready = 0.0  # time at which the last finished step was ready
    self._window = 0, 0.0, 0.0  # steps, this time and pauses where the window began
    # time of the last finished step; seconds of pauses since
    self._end, self._paused = 0.0, 0.0

  def waited(self, seconds: float) -> None:
    """Adds time spent waiting for the next batch."""
    if self._begin is not None:
      self._wait += seconds

  def finished(self, ready: float | None = None) -> None:
    """Counts a finished step.

    Args:
      ready: time at which the devices had done it, which may be long before it is read; None: now.
    """
    self._ready = time.monotonic() if ready is None else ready
    if self._begin is None:
      self._begin, self._window = time.monotonic(), (0, self._ready, 0.0)
    else:
      self._steps += 1
      self._pause += self._paused
    self._end, self._paused = time.monotonic(), 0.0

  def paused(self) -> "_Pause":
    """Returns a context whose time does not count as training time."""
    return _Pause(self)

  @property
  def seconds(self) -> float:
    """Training time so far."""
    return max(1e-9, self._end - self._begin - self._pause) if self._begin else 0.0

  @property
  def rate(self) -> float:
    """Examples per second since the start."""
    return self._steps * self._examples / self.seconds if self._steps else 0.0

  def window(self) -> float:
    """Ends a window and begins the next one; returns its examples per second."""
    (steps, begin, pause), self._window = self._window, (self._steps, self._ready, self._pause)
    steps, seconds = self._steps - steps, self._ready - begin - (self._pause - pause)
    return steps * self._examples / max(1e-9, seconds) if steps else 0.0

  @property
  def wait_share(self) -> float:
    """Share of the training time spent waiting for data."""
    return min(1.0, self._wait / self.seconds) if self._steps else 0.0


class _Pause:
  """Context whose time does not count as training time."""

  def __init__(self, meter: Meter):
    self._meter = meter

  def __enter__(self):
    self._begin = time.monotonic()

  def __exit__(self, *unused):
    if self._meter._begin is not None:
      self._meter._paused += time.monotonic() - self._begin


class Bottleneck:
  """Warns now and then when the run waits for data.

  It measures windows from one log line to the next. With several processes, a process that waits
  delays all others. The process that has waited longest therefore counts, and the warning names it.
  """

  def __init__(self, advice: str, *, clock: Callable[[], float] = time.monotonic):
    """Starts the first window.

    Args:
      advice: end of the warning: the settings to change.
      clock: returns seconds.
    """
    self._advice, self._clock = advice, clock
    self._waits: list[float] = []
    self._seconds = 0.0  # training time of the window
    self._last: float | None = None  # time of the last step
    self._warned: float | None = None

  def add(self, seconds: Sequence[float] | np.ndarray) -> None:
    """Adds the waiting times of a step.

    The first step only starts the clock, because it includes compilation.

    Args:
      seconds: for each process, the time it waited for the batch.
    """
    now = self._clock()
    if self._last is not None:
      self._seconds += now - self._last
      self._waits = [
        a + float(b) for a, b in zip(self._waits or [0.0] * len(seconds), seconds, strict=False)
      ]
    self._last = now

  def paused(self) -> None:
    """Excludes the time until the next step, for example during an evaluation."""
    self._last = None

  def line(self) -> str:
    """Ends a window; returns the warning, or ""."""
    if self._seconds < _MIN_SECONDS:  # a short window continues
      return ""
    slowest = max(range(len(self._waits)), key=self._waits.__getitem__)
    share = min(1.0, self._waits[slowest] / self._seconds)
    where = f" in process {slowest}" if len(self._waits) > 1 else ""
    self._seconds, self._waits = 0.0, []
    if share < THRESHOLD:
      return ""
    if self._warned is not None and self._clock() - self._warned < _REPEAT_SECONDS:
      return ""
    self._warned = self._clock()
    return f"waiting for data {share:.0%} of the time{where}: {self._advice}"


def advice(*, workers: int, threads: int, prefetch: int, host: str) -> str:
  """Advice for slow data, with the current settings."""
  return (
    f"raise config.data.workers (now {workers}; this process: {host}) or config.data.threads (now "
    f"{threads}), or shrink the work of a sample: shards of a smaller image size "
    f"(configs/ingest.py), fewer augmentations; prefetch is {prefetch}"
  )
