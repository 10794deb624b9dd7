"""Signals that stop a run after the step it is at, and one that asks for a profile."""

import contextlib
import signal
from typing import Any

# what process 0 tells the others in the place of a signal when it cannot write its log
NO_LOG = int(signal.SIGXFSZ)
# asks for a profile; SIGUSR1 is that of launch/supervise.py and Slurm
PROFILE = signal.SIGUSR2


class Signals:
  """Turns SIGTERM and SIGINT into a request to stop after the step; a second one acts as usual.

  Attributes:
    number: of the signal to stop for; 0 without one.
    profile: whether `PROFILE` came; whoever makes the profile sets it back.
  """

  def __enter__(self) -> "Signals":
    self.number, self.profile = 0, False
    self._old: dict[signal.Signals, Any] = {}
    try:
      for number in (signal.SIGTERM, signal.SIGINT):
        # None: set by a library, not by Python
        self._old[number] = signal.signal(number, self._handle) or signal.SIG_DFL
      self._old[PROFILE] = signal.signal(PROFILE, self._ask) or signal.SIG_DFL
    except ValueError:  # not in the main thread: the caller keeps the signals
      self._old = {}
    return self

  def _handle(self, number: int, frame: Any) -> None:
    self.number = number
    signal.signal(number, self._old[signal.Signals(number)])

  def _ask(self, number: int, frame: Any) -> None:
    self.profile = True

  def __exit__(self, *unused: object) -> None:
    for number, handler in self._old.items():
      signal.signal(number, handler)


def ignore_profile() -> None:
  """Ignores `PROFILE`, which would end the process, outside of `Signals`."""
  with contextlib.suppress(ValueError):  # not in the main thread
    signal.signal(PROFILE, signal.SIG_IGN)


def name(number: int) -> str:
  """The signal's name such as "SIGTERM", or "" for 0."""
  return signal.Signals(number).name if number else ""
