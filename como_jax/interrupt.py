"""Handles Ctrl-C outside the training loop, and output that nobody reads: never a traceback.

The training loop handles Ctrl-C itself and saves a checkpoint. This module imports only modules
that load quickly.
"""

import os
import select
import signal
import sys
from typing import NoReturn

CODE = 128 + signal.SIGINT
PIPE_CODE = 128 + signal.SIGPIPE  # what a shell reports of other programs after `| head`


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


def is_unread(error: BaseException) -> bool:
  """Whether an error says that nobody reads stdout or stderr any more, as after `| head`.

  Other pipes and sockets that break (of a worker, of a client) are faults, and are not meant.
  """
  return isinstance(error, BrokenPipeError) and any(map(_has_no_reader, (1, 2)))


def exit_with(code: int) -> NoReturn:
  """Ends the program with an exit code; with `PIPE_CODE` where the last output has no reader.

  After Ctrl-C it ends at once, without cleanup: threads of a compiler or a data loader may still be
  at work, and can crash a normal exit (exit code 139 instead of 130).

  Args:
    code: the exit code.
  """
  for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed by the caller
    try:
      stream.flush()
    except BrokenPipeError:
      code = code or PIPE_CODE
    except OSError:
      pass  # Python tries again at its end, and says so
  for number in (1, 2):
    if _has_no_reader(number):  # else Python complains about the rest of its buffer at the end
      os.dup2(os.open(os.devnull, os.O_WRONLY), number)
  if code == CODE:
    os._exit(code)
  sys.exit(code)


def _has_no_reader(number: int) -> bool:
  """Whether a file descriptor is a pipe or a socket whose other end is closed."""
  poll = select.poll()
  poll.register(number, 0)
  return any(event & select.POLLERR for _, event in poll.poll(0))
