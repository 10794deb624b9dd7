"""Where the time of a run goes: sections of the main thread, and what the devices do meanwhile.

A section is timed from its begin to its end, without the sections inside it. The devices are timed
from the dispatch of a step until its results are ready, which a thread waits for. Time in which the
devices work on a step is theirs alone: a batch that is fetched meanwhile has cost nothing. So each
second counts once; what is in no section, while the devices are idle, is not counted at all.
"""

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax

DATA, HOST, DEVICE, SAVE = "data_wait", "host", "device", "checkpoint"
EVALUATE, LOG, START, RESTORE = "evaluation", "logging", "starting", "restoring"
WINDOW = (DATA, HOST, DEVICE, SAVE, EVALUATE, LOG)  # the parts of the time behind the first step
_EARLY = (RESTORE, SAVE, EVALUATE)  # what is no part of `START` before the first step has ended


class _Step:
  """One step of the devices: its dispatch, and the time at which it was ready (None: not yet)."""

  __slots__ = ("begin", "end")

  def __init__(self, begin: float):
    self.begin = begin
    self.end: float | None = None


class Watcher:
  """Sets the end of steps, in a thread that waits for their results."""

  def __init__(self, clock: Callable[[], float]):
    self._clock = clock
    self._steps: queue.SimpleQueue[tuple[_Step, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=self._run, name="step clock", daemon=True).start()

  def watch(self, step: _Step, results: Any) -> None:
    """Sets the end of a step once its results are ready."""
    self._steps.put((step, results))

  def close(self) -> None:
    """Ends the thread after the steps that it has."""
    self._steps.put(None)

  def _run(self) -> None:
    while (item := self._steps.get()) is not None:
      step, results = item
      with contextlib.suppress(Exception):  # the main thread meets it too
        jax.block_until_ready(results)
      step.end = self._clock()
      del item, results


class StepClock:
  """Adds up the seconds of each section, and those of the devices.

  Until the first step has ended, all but restoring, saving and evaluating is `START`.

  Attributes:
    seconds: section -> seconds so far, up to the last begin or end of a section.
    started: whether the first step has ended.
    dispatched: the last step that was dispatched; its `end` is set once it is ready.
  """

  def __init__(
    self,
    *,
    age: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    watcher: Callable[[Callable[[], float]], Any] = Watcher,
  ):
    """Starts in the section `START`.

    Args:
      age: seconds that the run is old already (imports).
      clock: returns seconds.
      watcher: makes what waits for the devices; it is given the clock.
    """
    self._clock, self._make_watcher = clock, watcher
    self._watcher: Any = None
    self._begin = self._last = clock() - age
    self._stack, self._counted = [START], self._begin
    self._steps: deque[_Step] = deque()
    self.dispatched = _Step(self._begin)
    self.seconds: dict[str, float] = dict.fromkeys((*WINDOW, START, RESTORE), 0.0)
    self.started = False

  @contextlib.contextmanager
  def section(self, name: str) -> Iterator[None]:
    """Times what is done in the context."""
    self._cut()
    self._stack.append(name)
    try:
      yield
    finally:
      self._cut()
      self._stack.pop()

  @contextlib.contextmanager
  def device_step(self) -> Iterator[Callable[[Any], None]]:
    """Context of the dispatch of a step; call what it gives with the results."""
    if self._watcher is None:
      self._watcher = self._make_watcher(self._clock)
    step = self.dispatched = _Step(self._cut())
    self._steps.append(step)
    watcher, told = self._watcher, []

    def watch(results: Any) -> None:
      told.append(True)
      watcher.watch(step, results)

    try:
      yield watch
    finally:
      if not told:  # it was never dispatched
        step.end = self._clock()

  def begun(self) -> None:
    """The first step has ended."""
    if not self.started:
      self._cut()
      self.started = True
      self._stack.remove(START)

  def read(self) -> dict[str, float]:
    """Seconds of each section so far, and "wall": all seconds since the begin."""
    now = self._cut()
    return {**self.seconds, "wall": now - self._begin}

  def close(self) -> None:
    """Ends the thread."""
    if self._watcher is not None:
      self._watcher.close()
      self._watcher = None

  def _cut(self) -> float:
    """Gives the time since the last cut to the devices and the current section; returns the time.

    A step whose end is noticed late, after a cut, counts as the devices' up to that cut.
    """
    now = self._clock()
    busy = self._device_seconds(now)
    if self.started:
      self.seconds[DEVICE] += busy
      if self._stack:
        self.seconds[self._stack[-1]] += now - self._last - busy
    else:
      name = self._stack[-1]
      self.seconds[name if name in _EARLY else START] += now - self._last
    self._last = now
    return now

  def _device_seconds(self, now: float) -> float:
    """Seconds since the last cut in which the devices worked on steps."""
    busy = 0.0
    while self._steps:
      step = self._steps[0]
      end = step.end  # read once: the watcher sets it
      until, since = now if end is None else min(end, now), max(step.begin, self._counted)
      if until > since:
        busy, self._counted = busy + until - since, until
      if end is None:  # the later ones wait for it
        break
      self._steps.popleft()
    return busy


class Window:
  """The time from one line of the log to the next."""

  def __init__(self, clock: StepClock):
    self._clock, self._before = clock, clock.read()

  def restart(self) -> None:
    """Begins the window anew."""
    self._before = self._clock.read()

  def close(self) -> dict[str, float]:
    """Ends the window and begins the next one.

    Returns:
      Seconds as {"time/SECTION": ...}, "time/window" (all) and "time/unaccounted".
    """
    now = self._clock.read()
    parts = {name: now[name] - self._before[name] for name in WINDOW}
    whole = now["wall"] - self._before["wall"]
    self._before = now
    return {
      **{f"time/{name}": value for name, value in parts.items()},
      "time/window": whole,
      "time/unaccounted": whole - sum(parts.values()),
    }
