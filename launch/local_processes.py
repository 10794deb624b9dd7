#!/usr/bin/env python3
r"""Runs a command as N processes of one training run on this machine.

  launch/local_processes.py [--devices K] 2 -- python -m como_jax.main \
      --config=configs/motion.py:debug --workdir=runs/two

The processes find each other through a free port (COMO_JAX_COORDINATOR and so on, see
como_jax/parallel/distributed.py); on CPUs they talk through gloo, with K CPU devices each. Their
lines are printed with their number in front. SIGTERM and SIGINT are passed on: the run saves and
all processes exit with 143. When one fails, the others get a few seconds to end by themselves and
are then killed; the exit code is that of the first failure (128 + n for a process killed by signal
n). The data workers of a process end with it.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import common
from common import errors

EXIT_SIGNALED = 143  # saved after a signal: the others are saving too and get more time
GRACE, SAVING = 10.0, 120.0  # seconds for the others to end after a failure; after a stop


def main() -> int:
  """Starts, watches and ends the processes; returns the first failure's exit code, or 0."""
  count, devices, command = _arguments()
  environment = {
    **os.environ,
    "COMO_JAX_COORDINATOR": f"localhost:{_free_port()}",
    "COMO_JAX_PROCESSES": str(count),
    "PYTHONUNBUFFERED": "1",
  }
  if devices:
    environment["COMO_JAX_CPU_DEVICES"] = str(devices)
  processes, readers = [], []

  def forward(number, frame):
    for process in processes:
      process.tell(number)

  old = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    for i in range(count):
      process = common.Child(
        command,
        env={**environment, "COMO_JAX_PROCESS_INDEX": str(i)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
      )
      processes.append(process)
      print(f"[{i}] started: pid {process.pid}", flush=True)
      readers.append(threading.Thread(target=_copy, args=(i, process.stdout), daemon=True))
      readers[-1].start()
    return _watch(processes)
  except FileNotFoundError as error:
    print(f"error: {error.filename}: command not found", file=sys.stderr)
    return 2
  finally:
    for process in processes:
      process.end()
    for reader in readers:
      reader.join(timeout=5)
    for number, handler in old.items():
      signal.signal(number, handler)


def _watch(processes: list[common.Child]) -> int:
  """Waits until all have ended, or one has failed and the others had their time."""
  first, until = 0, None
  while True:
    for process in processes:
      if process.poll() is not None:
        process.end()
    alive = [str(i) for i, process in enumerate(processes) if process.poll() is None]
    failed = [(i, process.returncode) for i, process in enumerate(processes) if process.returncode]
    if failed and not first:
      i, code = cause(failed)
      first = code if code > 0 else 128 - code
      wait = SAVING if first == EXIT_SIGNALED else GRACE
      until = time.monotonic() + wait
      if first != EXIT_SIGNALED:
        print(
          f"[{i}] ended with {_words(code)}" + (f"; the others have {wait:g} s" if alive else ""),
          flush=True,
        )
    if not alive:
      return first
    if until and time.monotonic() > until:
      print(
        f"killing process {', '.join(alive)}: the run has lost one of its processes", flush=True
      )
      return first
    time.sleep(0.05)


def cause(failed: list[tuple[int, int]]) -> tuple[int, int]:
  """Of several (index, exit code) at once, one that failed by itself: those that have lost another
  leave with 75, or jax aborts them.
  """
  return min(failed, key=lambda pair: pair[1] in (-signal.SIGABRT, errors.Transient.code))


def _words(code: int) -> str:
  return f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"


def _copy(index: int, lines) -> None:
  """Prints a process's lines with its number."""
  for line in lines:
    sys.stdout.write(f"[{index}] {line}" if line.endswith("\n") else f"[{index}] {line}\n")
    sys.stdout.flush()


def _free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    return probe.getsockname()[1]


def _arguments() -> tuple[int, int, list[str]]:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--devices", type=int, default=0, metavar="K", help="CPU devices of each process (default: one)"
  )
  parser.add_argument("count", type=int, metavar="N", help="number of processes")
  parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command")
  given = parser.parse_args()
  command = given.command[1:] if given.command[:1] == ["--"] else given.command
  if given.count < 1 or given.devices < 0 or not command:
    parser.error(
      "expected a number of processes and, after --, a command: local_processes.py 2 -- python "
      "-m como_jax.main --config=..."
    )
  return given.count, given.devices, command


if __name__ == "__main__":
  sys.exit(main())
