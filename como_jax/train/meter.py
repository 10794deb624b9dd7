"""How fast a run is and what holds it up: throughput, the share of time spent waiting for data, and
a line that says so.
"""

import time
from collections.abc import Callable, Sequence

THRESHOLD = 0.2  # share of the time from which on waiting for data is worth a line
_SHORTEST = 1.0  # seconds a window must have: three steps of a debug run say nothing
_AGAIN = 600.0  # seconds before the line is said again


class Meter:
  """Throughput and the share of time spent waiting for data; the first step, which compiles, is
  left out.
  """

  def __init__(self, examples_per_step: int):
    self._examples, self._steps, self._wait, self._pause = examples_per_step, 0, 0.0, 0.0
    # when the first and the last step were finished; seconds of pauses since the last one
    self._begin = self._end = self._paused = None

  def waited(self, seconds: float) -> None:
    """Adds time in which the next batch was not there yet."""
    if self._begin is not None:
      self._wait += seconds

  def finished(self) -> None:
    """One more step is done."""
    if self._begin is None:
      self._begin = time.monotonic()
    else:
      self._steps += 1
      self._pause += self._paused
    self._end, self._paused = time.monotonic(), 0.0

  def paused(self) -> "_Pause":
    """Context of time that is not training time."""
    return _Pause(self)

  @property
  def seconds(self) -> float:
    """Training time so far."""
    return max(1e-9, self._end - self._begin - self._pause) if self._begin else 0.0

  @property
  def rate(self) -> float:
    """Examples a second."""
    return self._steps * self._examples / self.seconds if self._steps else 0.0

  @property
  def wait_share(self) -> float:
    """Share of the training time spent waiting for data."""
    return min(1.0, self._wait / self.seconds) if self._steps else 0.0


class _Pause:
  """Time that is not training time."""

  def __init__(self, meter: Meter):
    self._meter = meter

  def __enter__(self):
    self._begin = time.monotonic()

  def __exit__(self, *unused):
    if self._meter._begin is not None:
      self._meter._paused += time.monotonic() - self._begin


class Bottleneck:
  """Says that data is what the run waits for, once in a while.

  It looks at windows from one log line to the next. Where several processes train, one that waits
  holds up all the others, so the process that has waited longest counts, and is named.
  """

  def __init__(self, advice: str, *, clock: Callable[[], float] = time.monotonic):
    """`advice` ends the line: what to raise or to shrink."""
    self._advice, self._clock = advice, clock
    self._waits: list[float] = []
    # training time of the window; when the last step was read
    self._seconds, self._last = 0.0, None
    self._said: float | None = None

  def add(self, seconds: Sequence[float]) -> None:
    """Time that each process has waited for the batch of a step; the first step, which compiles,
    only starts the clock.
    """
    now = self._clock()
    if self._last is not None:
      self._seconds += now - self._last
      self._waits = [
        a + float(b) for a, b in zip(self._waits or [0.0] * len(seconds), seconds, strict=False)
      ]
    self._last = now

  def paused(self) -> None:
    """Evaluation comes in between: the time until the next step does not count."""
    self._last = None

  def line(self) -> str:
    """Ends a window; the line to say, or ""."""
    if self._seconds < _SHORTEST:  # a short window goes on
      return ""
    worst = max(range(len(self._waits)), key=self._waits.__getitem__)
    share, where = (
      min(1.0, self._waits[worst] / self._seconds),
      f" in process {worst}" if len(self._waits) > 1 else "",
    )
    self._seconds, self._waits = 0.0, []
    if share < THRESHOLD or (self._said is not None and self._clock() - self._said < _AGAIN):
      return ""
    self._said = self._clock()
    return f"waiting for data {share:.0%} of the time{where}: {self._advice}"


def advice(*, workers: int, threads: int, prefetch: int, host: str) -> str:
  """What to do about slow data, with the present settings."""
  return (
    f"raise config.data.workers (now {workers}; this process: {host}) or config.data.threads (now "
    f"{threads}), or shrink the work of a sample: shards of a smaller image size "
    f"(configs/ingest.py), fewer augmentations; prefetch is {prefetch}"
  )
