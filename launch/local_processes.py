#!/usr/bin/env python3
r"""Runs a command as N processes of one training run on this machine.

  launch/local_processes.py [--devices K] 2 -- python -m como_jax.main \
      --config=configs/motion.py:debug --workdir=runs/two

The processes find each other through a free port (COMO_JAX_COORDINATOR and so on, see
como_jax/parallel/startup.py). On CPUs they communicate through gloo, with K CPU devices each.
Every output line starts with the number of its process. SIGTERM and SIGINT are passed on: the run
saves, and all processes exit with 143. When a process fails, the others have a few seconds to end
and are then killed. The exit code is that of the first failure (128 + n for a process killed by
signal n). The data workers of a process end with it.
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

EXIT_SIGNALED = 143  # saved after a signal; the others also save, so they get more time
GRACE, SAVING = 10.0, 120.0  # seconds for the others to end after a failure; after a stop


def main() -> int:
  """Starts, monitors and ends the processes; returns the first failure's exit code, or 0."""
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
  """Waits until all have ended, or until the time limit after a failure."""
  first, deadline = 0, None
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
      deadline = time.monotonic() + wait
      if first != EXIT_SIGNALED:
        print(
          f"[{i}] ended with {_describe(code)}"
          + (f"; the others have {wait:g} s" if alive else ""),
          flush=True,
        )
    if not alive:
      return first
    if deadline and time.monotonic() > deadline:
      print(
        f"killing process {', '.join(alive)}: the run has lost one of its processes", flush=True
      )
      return first
    time.sleep(0.05)


def cause(failed: list[tuple[int, int]]) -> tuple[int, int]:
  """Chooses the process that failed first among several (index, exit code).

  Processes that have lost another process exit with 75, or jax aborts them. Others are preferred.
  """
  return min(failed, key=lambda pair: pair[1] in (-signal.SIGABRT, errors.TransientError.code))


def _describe(code: int) -> str:
  return f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"


def _copy(index: int, lines) -> None:
  """Prints the lines of a process with its number."""
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
  args = parser.parse_args()
  command = args.command[1:] if args.command[:1] == ["--"] else args.command
  if args.count < 1 or args.devices < 0 or not command:
    parser.error(
      "expected a number of processes and, after --, a command: local_processes.py 2 -- python "
      "-m como_jax.main --config=..."
    )
  return args.count, args.devices, command


if __name__ == "__main__":
  sys.exit(main())
