#!/usr/bin/env python3
r"""Supervises a run: restarts it after a crash or a preemption.

  launch/supervise.py [options] -- \
      python -m como_jax.main --config=configs/motion.py --workdir=runs/first
  launch/supervise.py --workdir runs/two -- \
      launch/local_processes.py 2 -- python -m como_jax.main ... --workdir=runs/two

It restarts the command after exit code 143, 75 (other processes did not join or were lost), 134
(jax aborts a process that has lost another), death by a signal and any other failure. It adds
--resume if the directory contains a run, and waits for a growing, random time. It stops, with a
reason,
  * after exit code 0 (done) or 2 (bad input), with the same code;
  * after a signal: SIGTERM and SIGINT are passed on, the run saves, and the exit code is 143. After
    SIGUSR1 it waits for the end of the command;
  * with exit code 3 after a deterministic crash (the same last step twice in a row, without a
    signal), after --stuck ends of any kind without a new step, or after --restarts-per-hour
    restarts in an hour.
Every start and end is a line of the ledger WORKDIR.supervise.jsonl. The ledger is beside the run
directory, because a run refuses a nonempty directory, and --overwrite would delete the ledger. (If
several hosts share the directory, it is WORKDIR.supervise-HOST.jsonl.) Last steps are read from the
run's metrics.jsonl and checkpoints.
"""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import random
import shlex
import signal
import socket
import sys
import time

import common
from common import errors

EXIT_SIGNALED, GAVE_UP = 143, 3
BAD_INPUT, TRANSIENT = errors.UserError.code, errors.TransientError.code
TAIL = 1 << 16  # bytes that are read at the end of metrics.jsonl: some hundred lines
# seconds within which a second signal counts as the same one, because schedulers send a signal to
# several processes
TWICE = 2.0


def main(argv) -> int:
  """Supervises the command until it must not be restarted; returns the exit code."""
  args, command = _arguments(argv)
  workdir = pathlib.Path(args.workdir)
  ledger = (
    pathlib.Path(args.ledger)
    if args.ledger
    else _ledger(workdir, several=_is_multiprocess(command))
  )
  run = Run(workdir, command)
  first = run.command(again=args.go_on)
  if args.dry_run:
    print(
      f"would start: {shlex.join(first)}\nafter a failure: {shlex.join([*run.plain, '--resume'])}"
    )
    print(
      f"pauses {args.first_pause:g} s, doubled up to {args.longest_pause:g} s without a new "
      f"step, at least {args.settle:g} s; at most {args.restarts_per_hour} restarts an hour, "
      f"{args.stuck} without a new step\nledger: {ledger}"
    )
    return 0
  ledger.parent.mkdir(parents=True, exist_ok=True)
  with ledger.open("a") as file:
    _lock(file, ledger)
    return Supervisor(args, run, ledger, file).supervise(first)


class Run:
  """The run of a command: the state of its directory, and the command to start or resume it."""

  def __init__(self, workdir: pathlib.Path, command: list[str]):
    self.workdir, self.original = workdir, command
    self.plain = [word for word in command if word not in ("--overwrite", "--resume")]
    # The old run, which --overwrite deletes. If the command dies before it has deleted the old run,
    # the next start must not resume it.
    self.before = self._stamp() if "--overwrite" in command else None

  def _stamp(self) -> tuple | None:
    """Identifies the run in the directory; None without one."""
    if (self.workdir / "versions.json").exists() and (self.workdir / "config.json").exists():
      status = (self.workdir / "config.json").stat()
      return status.st_mtime_ns, status.st_ino
    return None

  def command(self, *, again: bool) -> list[str]:
    """Returns the command to start.

    Args:
      again: whether to resume a run that exists in the directory.
    """
    current = self._stamp()
    resume = again and current and current != self.before
    return [*self.plain, "--resume"] if resume else self.original

  def step(self) -> int | None:
    """Returns the last step that the run has logged or saved; None before the first one."""
    steps = [int(path.name) for path in self.workdir.glob("checkpoints/*") if path.name.isdecimal()]
    with contextlib.suppress(OSError), (self.workdir / "metrics.jsonl").open("rb") as file:
      file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
      for line in file.read().splitlines():
        # the seek may cut the first line, and a crash the last one
        with contextlib.suppress(ValueError, TypeError, KeyError):
          steps.append(int(json.loads(line)["step"]))
    return max(steps, default=None)


class Supervisor:
  """Starts the command, waits for its end, and decides whether to restart it."""

  def __init__(self, args, run: Run, ledger: pathlib.Path, file):
    self.args, self.run, self.file = args, run, file
    # the last end: its step, and whether the program itself failed
    self.ends = _ends(ledger)[-1:] if args.go_on else []
    self.best, self.idle = run.step(), 0  # largest step; number of ends since it increased
    self.restarts: list[float] = []
    self.child: common.Child | None = None
    # the signal to stop; its time; whether to stop after the current end
    self.stop_signal, self.stop_time, self.last = 0, 0.0, False

  def supervise(self, command: list[str]) -> int:
    """Runs the command until it must not be restarted; returns the exit code."""
    old = {
      number: signal.signal(number, self._on_signal)
      for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    }
    try:
      while not self.stop_signal:
        started = time.monotonic()
        code = self._run_once(command)
        reason, leave = self._decide(code)
        pause = 0.0 if leave is not None else self._pause()
        self._write(
          "end",
          code=code,
          step=self.run.step(),
          seconds=round(time.monotonic() - started, 1),
          reason=reason,
          next=f"restart in {pause:.1f} s" if leave is None else f"leave with {leave}",
        )
        if leave is not None:
          return leave
        self._wait(pause)
        command = self.run.command(again=True)
      name = signal.Signals(self.stop_signal).name
      self._write("leave", code=EXIT_SIGNALED, reason=f"{name} between two starts")
      return EXIT_SIGNALED
    finally:
      for number, handler in old.items():
        signal.signal(number, handler)

  def _run_once(self, command: list[str]) -> int:
    """Runs the command once; returns its exit code, 128 + n for death by signal n."""
    try:
      # The command inherits the ledger's lock. While it runs, no other supervisor can start a
      # command in the same directory.
      self.child = common.Child(command, pass_fds=(self.file.fileno(),))
    except OSError as error:
      print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
      return BAD_INPUT
    self._write("start", pid=self.child.pid, command=command, resume="--resume" in command)
    if self.stop_signal:  # the signal came before the child was started
      self.child.tell(self.stop_signal)
    self.child.wait()
    code = self.child.end()
    return code if code >= 0 else 128 - code

  def _decide(self, code: int) -> tuple[str, int | None]:
    """Returns the reason of the end, and our exit code (None: restart the command)."""
    step = self.run.step()
    advanced = step is not None and (self.best is None or step > self.best)
    self.best, self.idle = (step, 0) if advanced else (self.best, self.idle + 1)
    program_failed = _program_failed(code)
    previous, self.ends = self.ends[-1:], [(step, program_failed)]
    killed = code != EXIT_SIGNALED and code - 128 in set(signal.Signals)
    what = f"signal {signal.Signals(code - 128).name}" if killed else f"exit code {code}"
    if code == 0:
      return "done", 0
    if self.stop_signal:
      return f"{what} after {signal.Signals(self.stop_signal).name} was passed on", code
    if code == BAD_INPUT:
      return "bad input", BAD_INPUT
    if program_failed and previous == [(step, True)]:
      return f"{what}, deterministic: twice in a row at step {step}", GAVE_UP
    if self.last or (code == EXIT_SIGNALED and self.args.leave_when_stopped):
      return f"{what}, not to be restarted", code
    self.restarts = [moment for moment in self.restarts if time.time() - moment < 3600]
    if not self.args.restarts_per_hour:
      return f"{what}, no restarts allowed", code
    if len(self.restarts) >= self.args.restarts_per_hour:
      return f"{what}, restarted {len(self.restarts)} times within an hour", GAVE_UP
    if self.idle >= self.args.stuck:
      return f"{what}, {self.idle} ends without a step after {self.best}", GAVE_UP
    self.restarts.append(time.time())
    return what, None

  def _pause(self) -> float:
    """Seconds until the next start.

    The time is doubled while there is no new step. It is then multiplied by a random factor from
    0.5 to 1, so that many hosts do not start at the same moment.
    """
    full = min(self.args.longest_pause, self.args.first_pause * 2 ** max(0, self.idle - 1))
    return max(self.args.settle, full * random.uniform(0.5, 1.0))

  def _wait(self, seconds: float) -> None:
    """Waits, or returns early after a signal."""
    deadline = time.monotonic() + seconds
    while not (self.stop_signal or self.last) and time.monotonic() < deadline:
      time.sleep(min(0.2, max(0.0, deadline - time.monotonic())))
    self.stop_signal = self.stop_signal or (signal.SIGUSR1 if self.last else 0)

  def _on_signal(self, number, frame) -> None:
    """Handles SIGTERM, SIGINT and SIGUSR1."""
    self.last, now = True, time.monotonic()
    if number == signal.SIGUSR1:
      return
    if self.stop_signal and now - self.stop_time < TWICE:
      return
    self.stop_signal, self.stop_time = number, now
    if self.child is not None:
      self.child.tell(number)

  def _write(self, event: str, **values) -> None:
    """Writes one line to the ledger and one to stderr."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = {"time": now, "event": event, **values}
    self.file.write(json.dumps(line) + "\n")
    self.file.flush()
    text = ", ".join(
      f"{key} {shlex.join(value) if isinstance(value, list) else value}"
      for key, value in values.items()
    )
    print(f"supervise: {event}: {text}", file=sys.stderr, flush=True)


def _ends(ledger: pathlib.Path) -> list[tuple[int | None, bool]]:
  """Reads (step, whether the program failed) of the ends before the scheduler restarted us."""
  ends = []
  for line in ledger.read_text().splitlines():
    with contextlib.suppress(ValueError, KeyError):
      entry = json.loads(line)
      if entry["event"] == "end":
        ends.append((entry["step"], _program_failed(entry["code"])))
  return ends


def _program_failed(code: int) -> bool:
  """Whether the program itself failed.

  This is false if a signal killed it (128 + n, as shells, srun and local_processes.py report it),
  or if it ended because another process was gone.
  """
  expected = code in (0, BAD_INPUT, EXIT_SIGNALED, TRANSIENT)
  return not expected and code - 128 not in set(signal.Signals)


def _is_multiprocess(command: list[str]) -> bool:
  """Whether the command is one of several processes of a run, on this host or on others."""
  return (
    bool(os.environ.get("COMO_JAX_COORDINATOR"))
    or os.environ.get("COMO_JAX_DISTRIBUTED", "0") not in ("", "0")
    or "--distributed" in command
  )


def _ledger(workdir: pathlib.Path, *, several: bool) -> pathlib.Path:
  """Path of the ledger; with the host's name if there are several processes."""
  path = pathlib.Path(os.path.abspath(workdir))
  host = f"-{socket.gethostname()}" if several else ""
  return path.with_name(f"{path.name}.supervise{host}.jsonl")


def _lock(file, ledger: pathlib.Path) -> None:
  """Locks the ledger, so that only one supervisor uses it."""
  with contextlib.suppress(OSError):  # some file systems have no locks
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise errors.UserError(
        f"{ledger} is in use: a supervisor, or a command that one has left behind, is at work there"
      ) from error


def _arguments(argv):
  parser = common.Parser(prog="supervise.py", description=__doc__)
  parser.add_argument(
    "--workdir", default="", help="directory of the run (default: the command's --workdir)"
  )
  parser.add_argument("--ledger", default="", metavar="FILE")
  for flag, purpose in (
    (
      "--go-on",
      "the first start, too, goes on with a run in the directory (a scheduler starts us again)",
    ),
    ("--leave-when-stopped", "leave on exit code 143"),
    ("--dry-run", "print what would be started"),
  ):
    parser.add_argument(flag, action="store_true", help=purpose)
  for flag, default in (
    ("--restarts-per-hour", 10),
    ("--stuck", 5),
    ("--first-pause", 2.0),
    ("--longest-pause", 300.0),
  ):
    parser.add_argument(
      flag,
      type=type(default),
      default=default,
      metavar="S" if "pause" in flag else "N",
      help=f"default {default}",
    )
  parser.add_argument(
    "--settle",
    type=float,
    metavar="S",
    help="least pause (default: 0; one process of several: until the others have noticed)",
  )
  args = parser.read(argv)
  if not (command := args.program):
    raise errors.UserError(
      "expected a command after --: supervise.py -- python -m como_jax.main --config=... "
      "--workdir=..."
    )
  args.workdir = args.workdir or common.value(command, "workdir")
  if not args.workdir or (args.go_on and "--overwrite" in command):
    raise errors.UserError(
      "--go-on and the command's --overwrite exclude each other"
      if args.workdir
      else "--workdir is missing: without it nobody can tell progress from a crash at the same step"
    )
  if args.settle is None:
    args.settle = (
      float(os.environ.get("COMO_JAX_HEARTBEAT_SECONDS") or common.HEARTBEAT) + 20
      if _is_multiprocess(command)
      else 0.0
    )
  return args, command


if __name__ == "__main__":
  sys.exit(common.main(main))
