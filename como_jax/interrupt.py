"""Ctrl-C outside of the training loop, which saves: one line, never a traceback.

Imports nothing that takes time.
"""

import os
import signal
import sys

CODE = 128 + signal.SIGINT


class _Leave:
  """Handler while modules are loaded, when nothing has been written: an exception could come out of
  the middle of any of them.
  """

  line = "stopped by Ctrl-C"
  over = False  # whether the program has got beyond that

  def __call__(self, number: int, frame) -> None:
    sys.stdout.flush()
    os.write(2, f"\n{self.line}\n".encode())
    os._exit(CODE)


_LEAVE = _Leave()


def prepare(name: str) -> None:
  """To be called first by the program's own module, with its `__name__`.

  Ctrl-C reaches all processes of a terminal: worker processes, which import the module of their
  parent under another name, leave it to the parent, which ends them.
  """
  if name == "__main__":
    signal.signal(signal.SIGINT, _LEAVE)
  elif name == "__mp_main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def say(line: str) -> None:
  """What to print if it comes before `as_exception`."""
  _LEAVE.line = line


def as_exception() -> None:
  """From now on it is a KeyboardInterrupt, so that what has begun is put in order."""
  if signal.getsignal(signal.SIGINT) is _LEAVE:
    _LEAVE.over = True
    signal.signal(signal.SIGINT, signal.default_int_handler)


def done() -> None:
  """The line has been said: what comes now, while the process ends, is not another traceback."""
  if _LEAVE.over:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def leave(code: int) -> None:
  """Ends the program.

  After Ctrl-C at once: threads of a compiler or a data loader that are in the middle of something
  can crash an orderly exit (139 instead of 130).
  """
  if code == CODE:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)
