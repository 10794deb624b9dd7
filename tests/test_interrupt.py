"""Ctrl-C before the training loop handles it."""

import os
import signal
import subprocess
import sys

import pytest

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


def through_closed_pipe(*words, **changes):
  """(exit code, stderr) of a program whose stdout is a pipe that nobody reads."""
  read, write = os.pipe()
  os.close(read)
  try:
    done = subprocess.run(
      [sys.executable, *words],
      cwd=program.ROOT,
      env=program.environment(**changes),
      stdout=write,
      stderr=subprocess.PIPE,
      text=True,
    )
  finally:
    os.close(write)
  return done.returncode, done.stderr


@pytest.mark.parametrize("words", [("list",), ("--help",), ("motion:debug", "--help")])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads_ends_in_silence(words, unbuffered):
  """Unbuffered, `print` fails; else what is left in the buffer at the end."""
  found = through_closed_pipe("-m", "como_jax", *words, PYTHONUNBUFFERED=unbuffered)
  assert found == (141, "")


def test_a_pipe_into_a_program_that_ends_first():
  done = subprocess.run(
    ["bash", "-c", f"set -o pipefail; {sys.executable} -um como_jax list | head -n 0"],
    cwd=program.ROOT,
    env=program.environment(),
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stdout, done.stderr) == (141, "", "")


def test_another_broken_pipe_is_a_fault():
  code = (
    "import os\nfrom como_jax import interrupt\nread, write = os.pipe()\nos.close(read)\ntry:\n"
    "  os.write(write, b'x')\nexcept OSError as error:\n  assert not interrupt.is_unread(error)\n"
    "else:\n  raise AssertionError('it was written')"
  )
  done = subprocess.run([sys.executable, "-c", code], cwd=program.ROOT, capture_output=True)
  assert done.returncode == 0, done.stderr


def test_stdout_that_is_closed_is_no_error():
  done = subprocess.run(
    ["bash", "-c", f"{sys.executable} -m como_jax list >&-"], cwd=program.ROOT, capture_output=True
  )
  assert (done.returncode, done.stderr) == (0, b"")


def test_an_error_keeps_its_code_where_nobody_reads():
  code, text = through_closed_pipe("-m", "como_jax", "lits")
  assert code == 2 and text.startswith("error: task 'lits' is unknown")
