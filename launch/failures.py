"""What an exit code of a run says, and so what the supervisor and the launchers do with it.

transient      the input is good and the program did not fail: a preemption, a process that came
               late or was lost, storage or a network that did not answer. Restarted without
               limit.
deterministic  a restart would end in the same way: bad input, a loss that is not finite.
               Never restarted.
unknown        anything else: a crash, an out-of-memory error, a full disk, death by a signal.
               Restarted, but not for ever.
"""

import signal
from collections.abc import Iterable

from common import errors

SIGNALED = 128 + signal.SIGTERM  # saved after a signal
# jax aborts a process of several that has lost another one
ABORTED = 128 + signal.SIGABRT
BAD_INPUT, DETERMINISTIC = errors.UserError.code, errors.NonFiniteError.code
TRANSIENT = errors.TransientError.code
FINAL = (BAD_INPUT, DETERMINISTIC)  # codes after which a restart cannot help


def is_transient(code: int, *, several: bool) -> bool:
  """Whether a run that ended with this code would have gone on elsewhere or later.

  Args:
    code: exit code; 128 + n for death by signal n.
    several: whether the process is one of several of a run.
  """
  return code in (SIGNALED, TRANSIENT) or (several and code == ABORTED)


def program_failed(code: int) -> bool:
  """Whether the program itself failed.

  This is false if a signal killed it (128 + n, as shells, srun and local_processes.py report it),
  or if it ended because another process was gone.
  """
  return code not in (0, TRANSIENT, *FINAL) and signal_name(code) == ""


def cause(codes: Iterable[int]) -> int:
  """The exit code that says most, of the processes of a run that ended together.

  Where one of them fails, the others end because they have lost it: a failure counts before what
  is transient.

  Args:
    codes: exit codes; 128 + n for death by signal n.
  """

  def weight(code: int) -> int:
    if code in FINAL:
      return 5
    if program_failed(code):
      return 4
    known = {ABORTED: 2, TRANSIENT: 1, SIGNALED: 1, 0: 0}
    return known.get(code, 3)

  return max(codes, key=weight, default=0)


def signal_name(code: int) -> str:
  """Name of the signal n of an exit code 128 + n; "" for any other code."""
  return signal.Signals(code - 128).name if code - 128 in set(signal.Signals) else ""


class History:
  """The ends of a run, and how far it got.

  Attributes:
    best: the largest step; None before the first one.
    last_step: of the last end.
    idle: ends by an unknown failure since `best` increased.
    fruitless: ends of any kind since `best` increased.
  """

  def __init__(self, *, several: bool):
    self.best: int | None = None
    self.last_step: int | None = None
    self.idle = self.fruitless = 0
    self._several, self._program_failed = several, False

  def add(self, step: int | None, code: int) -> bool:
    """Adds an end.

    Args:
      step: the last step that is logged or saved.
      code: exit code; 128 + n for death by signal n.

    Returns:
      Whether the program itself failed now and at the end before, at the same step.
    """
    failed = program_failed(code)
    repeated = failed and self._program_failed and step == self.last_step
    self._program_failed, self.last_step = failed, step
    if self.reached(step):
      return repeated
    self.fruitless += 1
    self.idle += not is_transient(code, several=self._several)
    return repeated

  def reached(self, step: int | None) -> bool:
    """Whether the run is further than ever; what came before then counts no more."""
    if step is None or (self.best is not None and step <= self.best):
      return False
    self.best, self.idle, self.fruitless = step, 0, 0
    return True
