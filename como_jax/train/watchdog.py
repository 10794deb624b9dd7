"""Notices a run that stands still and ends it as a transient failure.

A collective whose peer hangs, or a read from storage that does not answer, blocks the main thread
for ever: no signal of another process, no exception. A thread of its own watches the steps. It
touches no storage, which may be what hangs; a second one exchanges what the processes are at.
"""

import contextlib
import faulthandler
import json
import os
import pathlib
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from como_jax import errors

FACTOR = 3.0  # times the median step
SECONDS = 8.0  # more than that, where the config leaves it open
SUPERVISED = "COMO_JAX_SUPERVISED"  # set by launch/supervise.py, which starts an ended run again
_WARMUP = 20  # steps before it watches: the first ones compile and fill buffers
_HISTORY = 200  # steps of the median
_SILENCE = 30.0  # seconds after which a process that says nothing is not believed to be paused
_STEP = "step"  # the phase in which a process waits for its devices


def patience(seconds: float, *, count: int) -> float:
  """Seconds above 3 x the median step; 0 = no watchdog.

  Args:
    seconds: config.train.stall_seconds; -1: `SECONDS` where somebody starts the run again (it has
      several processes, or a supervisor), else 0.
    count: number of processes.
  """
  if seconds >= 0:
    return seconds
  return SECONDS if count > 1 or os.environ.get(SUPERVISED) else 0.0


class Watchdog:
  """Watches the steps of one process; its limit is 3 x the median step + a patience.

  Time within `paused` (compiling, saving, evaluating) does not count, here or in any other process
  of the run: each process says every few seconds in a file what it is at, and who waits in a
  collective for one that saves does not stand still. Time in which the whole process slept (a
  laptop's lid, Ctrl-Z) does not count either.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    *,
    patience: float,
    process: int = 0,
    count: int = 1,
    interval: float = 2.0,
    end: Callable[[str], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Starts nothing yet; use it as a context.

    Args:
      workdir: of the run; all processes see it. The stacks are written to WORKDIR/stall-N.txt,
        what a process is at to WORKDIR/heartbeats/N.json.
      patience: seconds above 3 x the median step; 0 = no watchdog.
      process: index of this process.
      count: number of processes.
      interval: seconds from look to look.
      end: called with the message in the place of ending the process with exit code 75.
      clock: returns seconds.
    """
    self._workdir, self._patience, self._interval = workdir, patience, interval
    self._process, self._count, self._end, self._clock = process, count, end or _end, clock
    self._lock, self._stopped = threading.Lock(), threading.Event()
    self._steps: deque[float] = deque(maxlen=_HISTORY)  # seconds of each
    self._step, self._phase, self._pauses = 0, _STEP, 0
    # of the step that is under way, up to the time of the second number
    self._seconds, self._until = 0.0, clock()
    self._beats: list[dict] = []  # what all processes were at when it was last read
    self._thread: threading.Thread | None = None

  def __enter__(self) -> "Watchdog":
    if self._patience:
      self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
      self._thread.start()
      if self._count > 1:
        threading.Thread(target=self._keep_exchanging, name="heartbeat", daemon=True).start()
    return self

  def __exit__(self, *unused: object) -> None:
    self._stopped.set()
    if self._thread:
      self._thread.join()  # it waits for nothing but its clock

  def finished(self, step: int) -> None:
    """Counts a finished step."""
    self._count_time()
    with self._lock:
      self._steps.append(self._seconds)
      self._step, self._seconds = step, 0.0

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """Says what the process is at, for the message; its time counts."""
    before, self._phase = self._phase, name
    try:
      yield
    finally:
      self._phase = before

  @contextlib.contextmanager
  def paused(self, name: str) -> Iterator[None]:
    """Context whose time does not count, however long it takes."""
    with self.phase(name):
      self._count_time()
      self._pauses += 1
      try:
        yield
      finally:
        self._count_time()
        self._pauses -= 1

  @property
  def limit(self) -> float | None:
    """Seconds after which a step counts as stuck; None in the first steps."""
    with self._lock:
      if len(self._steps) < _WARMUP:
        return None
      return FACTOR * statistics.median(self._steps) + self._patience

  def look(self) -> str:
    """Looks once, at nothing but the clock and what the other processes were last heard to be at.

    Returns:
      The message if the run stands still, else "".
    """
    limit = self.limit
    self._count_time()
    with self._lock:
      if any(beat["paused"] for beat in self._beats):
        self._seconds = 0.0
      seconds = self._seconds
    if self._pauses or limit is None or seconds <= limit:
      return ""
    return (
      f"no step for {seconds:.0f} s after step {self._step} (the limit is {limit:.1f} s, "
      f"{FACTOR:g} x the median step + {self._patience:g} s){self._slowest()}; "
      f"the stacks of all threads are above and in {self._stacks}; start it again with --resume"
    )

  def exchange(self) -> None:
    """Writes what this process is at; reads the others once a step takes suspiciously long."""
    folder = self._workdir / "heartbeats"
    beat = {"step": self._step, "phase": self._phase, "paused": bool(self._pauses)}
    mine, beats = folder / f"{self._process}.json", []
    with contextlib.suppress(OSError):  # storage that fails for a moment is no stall
      folder.mkdir(exist_ok=True)
      new = folder / f".{self._process}.new"
      new.write_text(json.dumps(beat))
      new.replace(mine)
      limit = self.limit
      if limit is not None and self._seconds > limit / 2:
        beats = self._read(folder, now=mine.stat().st_mtime)  # of the storage's clock
    with self._lock:
      self._beats = beats

  def _count_time(self) -> None:
    """Adds the time since the last call to that of the step, unless it is paused.

    The watchdog's thread calls it every interval: in a longer gap, this process slept as a whole.
    """
    with self._lock:
      now = self._clock()
      if not self._pauses:
        self._seconds += min(now - self._until, 2 * self._interval)
      self._until = now

  def _read(self, folder: pathlib.Path, *, now: float) -> list[dict]:
    beats = []
    for i in range(self._count):
      with contextlib.suppress(OSError, ValueError, KeyError):
        path = folder / f"{i}.json"
        age = now - path.stat().st_mtime
        beat = json.loads(path.read_text())
        paused = beat["paused"] and age < max(_SILENCE, 10 * self._interval)
        beats.append({**beat, "process": i, "age": age, "paused": paused})
    return beats

  def _slowest(self) -> str:
    """Names the process that the others wait for, as far as it can be told."""
    beats = self._beats
    if not beats:
      return f": it is at {self._phase}"
    late = min(beat["step"] for beat in beats)
    behind = [beat for beat in beats if beat["step"] == late]
    # those that wait in a collective have ended their own part of the step
    suspects = [beat for beat in behind if beat["phase"] != _STEP] or behind
    worst = max(suspects, key=lambda beat: beat["age"])
    if len(suspects) == len(beats) and worst["age"] < 1.5 * self._interval:
      return ": all processes are at " + ", ".join(sorted({beat["phase"] for beat in beats}))
    return (
      f": the slowest is process {worst['process']} of {len(beats)}, at {worst['phase']} after "
      f"step {worst['step']}, last heard of {worst['age']:.0f} s ago"
    )

  @property
  def _stacks(self) -> pathlib.Path:
    return self._workdir / f"stall-{self._process}.txt"

  def _keep_exchanging(self) -> None:
    while not self._stopped.is_set():
      self.exchange()
      self._stopped.wait(self._interval)

  def _watch(self) -> None:
    while not self._stopped.wait(self._interval):
      message = self.look()
      if message:
        faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr)
        writer = threading.Thread(target=self._write_stacks, daemon=True)
        writer.start()
        writer.join(timeout=5.0)  # the storage may be what hangs
        self._end(message)
        return

  def _write_stacks(self) -> None:
    with contextlib.suppress(OSError), self._stacks.open("w") as file:
      faulthandler.dump_traceback(file=file)


def _end(message: str) -> None:
  """Ends the process: its main thread cannot be woken."""
  print(f"error: {message}", file=sys.stderr, flush=True)
  os._exit(errors.TransientError.code)


OFF = Watchdog(pathlib.Path(), patience=0.0)  # watches nothing
