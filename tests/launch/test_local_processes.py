"""The launcher with processes that are no training: lines, exit codes, signals, and no process left
behind.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from tests import limits
from tests.launch import fake

LAUNCHER = pathlib.Path(__file__).parent.parent.parent / "launch" / "local_processes.py"


def start(count, code, *options):
  return subprocess.Popen(
    [sys.executable, str(LAUNCHER), *options, str(count), "--", sys.executable, "-c", code],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def run(count, code, *options):
  process = start(count, code, *options)
  text, _ = process.communicate(timeout=limits.SAFETY_NET)
  return process.returncode, text


def test_each_process_has_its_number_and_all_one_address():
  code, text = run(
    3,
    "import os; print(*(os.environ['COMO_JAX_' + n] for n in ('COORDINATOR', 'PROCESSES', "
    "'PROCESS_INDEX', 'CPU_DEVICES')))",
    "--devices=2",
  )
  assert code == 0
  said = [
    re.fullmatch(r"\[(\d)\] (localhost:\d+) 3 (\d) 2", line)
    for line in text.splitlines()
    if "started" not in line
  ]
  assert sorted(match[1] for match in said) == ["0", "1", "2"] and all(
    match[1] == match[3] for match in said
  )
  assert len({match[2] for match in said}) == 1


def test_the_first_failure_decides_and_the_rest_is_killed(monkeypatch):
  code = (
    "import os, sys, time; i = os.environ['COMO_JAX_PROCESS_INDEX']; sys.exit(5) if i == '1' "
    "else time.sleep(600)"
  )
  source = LAUNCHER.read_text().replace("GRACE, SAVING = 10.0, 120.0", "GRACE, SAVING = 0.5, 120.0")
  process = subprocess.Popen(
    [sys.executable, "-c", source, "2", "--", sys.executable, "-c", code],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": str(LAUNCHER.parent)},
  )
  text, _ = process.communicate(timeout=limits.SAFETY_NET)
  assert (
    process.returncode == 5 and "[1] ended with exit code 5" in text and "killing process 0" in text
  )
  for pid in re.findall(r"pid (\d+)", text):
    with pytest.raises(ProcessLookupError):
      os.kill(int(pid), 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_once(number):
  code = (
    "import signal, sys, time\ndef stop(n, frame): print('heard', n, flush=True); "
    "time.sleep(0.3); sys.exit(143)\nsignal.signal(signal.SIGTERM, stop); "
    "signal.signal(signal.SIGINT, stop); print('ready', flush=True)\n"
    # one long sleep would sleep on after a signal that comes just before it
    "for _ in range(600): time.sleep(0.1)"
  )
  process = start(2, code)
  ready = 0
  while ready < 2:
    ready += "ready" in process.stdout.readline()
  process.send_signal(number)
  text, _ = process.communicate(timeout=limits.SAFETY_NET)
  assert process.returncode == 143
  assert sorted(text.splitlines()) == [f"[0] heard {int(number)}", f"[1] heard {int(number)}"]


def test_a_killed_process_counts_as_128_and_its_signal():
  code, text = run(1, "import os; os.kill(os.getpid(), 9)")
  assert code == 137 and "signal SIGKILL" in text


def test_the_cause_of_several_failures_at_once_is_the_one_that_failed_by_itself():
  code = (
    "import sys; sys.path.insert(0, sys.argv[1]); import local_processes\n"
    "print([local_processes.cause(failed) for failed in ([(0, 75), (1, -9)], [(0, -6), (1, 75), "
    "(2, 1)], [(0, 75), (1, -6)])])"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, str(LAUNCHER.parent)], capture_output=True, text=True, check=True
  )
  assert done.stdout == "[(1, -9), (2, 1), (0, 75)]\n"


@pytest.mark.parametrize("ignores", ["", "trap '' TERM; "])
def test_data_workers_do_not_outlive_their_process(ignores):
  shell = ["sh", "-c", f"{ignores}echo worker $$; sleep 600 & wait"]
  code, text = run(
    1,
    f"import os, subprocess; worker = subprocess.Popen({shell}, stdout=subprocess.PIPE, "
    "text=True)\nprint(worker.stdout.readline(), flush=True); os.kill(os.getpid(), 9)",
  )
  assert code == 137, text
  assert not fake.lives(int(re.search(r"worker (\d+)", text)[1]))


def test_mistakes():
  assert subprocess.run([sys.executable, str(LAUNCHER), "2"], capture_output=True).returncode == 2
  assert (
    subprocess.run(
      [sys.executable, str(LAUNCHER), "2", "--", "no-such-command"], capture_output=True
    ).returncode
    == 2
  )
