"""Handles Ctrl-C outside the training loop: prints one line, never a traceback.

The training loop handles Ctrl-C itself and saves a checkpoint. This module imports only modules
that load quickly.
"""

import os
import signal
import sys
from typing import NoReturn

CODE = 128 + signal.SIGINT


class _ExitAtOnce:
  """Signal handler for the time in which modules are imported and nothing has been written.

  It ends the process at once, because an exception could be raised in the middle of any import.
  """

  line = "stopped by Ctrl-C"
  over = False  # True once `as_exception` has replaced this handler

  def __call__(self, number: int, frame) -> None:
    sys.stdout.flush()
    os.write(2, f"\n{self.line}\n".encode())
    os._exit(CODE)


_HANDLER = _ExitAtOnce()


def prepare(name: str) -> None:
  """Installs the handler; the main module calls this first.

  Ctrl-C is sent to all processes of a terminal. Worker processes import the main module of their
  parent under another name. They ignore Ctrl-C, because the parent ends them.

  Args:
    name: `__name__` of the main module.
  """
  if name == "__main__":
    signal.signal(signal.SIGINT, _HANDLER)
  elif name == "__mp_main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def set_message(line: str) -> None:
  """Sets the line to print if Ctrl-C comes before `as_exception` is called."""
  _HANDLER.line = line


def as_exception() -> None:
  """Makes Ctrl-C raise KeyboardInterrupt from now on, so that open work is cleaned up."""
  if signal.getsignal(signal.SIGINT) is _HANDLER:
    _HANDLER.over = True
    signal.signal(signal.SIGINT, signal.default_int_handler)


def restore() -> None:
  """Restores the default signal handler once the line is printed.

  A second Ctrl-C, while the process ends, then prints no traceback.
  """
  if _HANDLER.over:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def exit_with(code: int) -> NoReturn:
  """Ends the program with an exit code.

  After Ctrl-C it ends at once, without cleanup: threads of a compiler or a data loader may still be
  at work, and can crash a normal exit (exit code 139 instead of 130).

  Args:
    code: the exit code.
  """
  if code == CODE:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)
