"""Signals that stop a run after the step it is at."""

import signal
from typing import Any

# what process 0 tells the others in the place of a signal when it cannot write its log
NO_LOG = int(signal.SIGXFSZ)


class Signals:
  """Turns SIGTERM and SIGINT into a request to stop after the step; a second one acts as usual."""

  def __enter__(self) -> "Signals":
    self.number = 0
    self._old: dict[signal.Signals, Any] = {}
    try:
      for number in (signal.SIGTERM, signal.SIGINT):
        # None: set by a library, not by Python
        self._old[number] = signal.signal(number, self._handle) or signal.SIG_DFL
    except ValueError:  # not in the main thread: the caller keeps the signals
      self._old = {}
    return self

  def _handle(self, number: int, frame: Any) -> None:
    self.number = number
    signal.signal(number, self._old[signal.Signals(number)])

  def __exit__(self, *unused: object) -> None:
    for number, handler in self._old.items():
      signal.signal(number, handler)


def name(number: int) -> str:
  """The signal's name such as "SIGTERM", or "" for 0."""
  return signal.Signals(number).name if number else ""
