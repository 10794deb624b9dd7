"""Ctrl-C before the training loop handles it."""

import signal
import subprocess
import sys

from como_jax import interrupt
from tests.end_to_end import program


def test_ctrl_c_while_modules_are_loaded():
  """There an exception could come out of any line of any library: the handler says its line and
  leaves.
  """
  code = (
    "from como_jax import interrupt\ninterrupt.prepare('__main__')\ninterrupt.set_message("
    "'stopped by Ctrl-C: again')\nimport os, signal\ntry:\n  os.kill(os.getpid(), "
    "signal.SIGINT)\nfinally:\n  print('reached')"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=program.ROOT, capture_output=True, text=True
  )
  assert (done.returncode, done.stderr.strip(), done.stdout) == (
    130,
    "stopped by Ctrl-C: again",
    "",
  )


def test_workers_leave_ctrl_c_to_their_parent_and_tasks_get_an_exception():
  before = signal.getsignal(signal.SIGINT)
  try:
    interrupt.prepare("como_jax.main")
    assert signal.getsignal(signal.SIGINT) is before, "an import changes nothing"
    interrupt.prepare("__mp_main__")
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    interrupt.prepare("__main__")
    interrupt.as_exception()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  finally:
    signal.signal(signal.SIGINT, before)
    interrupt._HANDLER.over = False
