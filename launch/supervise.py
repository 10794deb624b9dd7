#!/usr/bin/env python3
r"""Keeps a run going: starts it again after a crash or a preemption.

  launch/supervise.py [options] -- \
      python -m como_jax.main --config=configs/motion.py --workdir=runs/first
  launch/supervise.py --workdir runs/two -- \
      launch/local_processes.py 2 -- python -m como_jax.main ... --workdir=runs/two

It restarts the command with --resume (once its directory holds a run) after exit code 143, 75 (the
other processes did not come or were lost), 134 (jax aborts one that has lost another), death by a
signal and any other failure, with a growing, random pause. It stops, saying why,
  * on 0 (done) and on 2 (bad input): the command's own code;
  * when it was told to: SIGTERM and SIGINT are passed on, the run saves, the exit code is 143.
    SIGUSR1: let it end, then leave;
  * on a deterministic crash, the same last step twice in a row without a signal in play, after
    --stuck ends of any kind without a new step, or --restarts-per-hour restarts in an hour: 3.
Every start and end is a line of WORKDIR.supervise.jsonl, beside the directory: a run refuses a
directory that is not empty, and --overwrite would delete the record. (Where several hosts share it,
WORKDIR.supervise-HOST.jsonl.) Last steps are read from the run's metrics.jsonl and checkpoints.
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

EXIT_SIGNALED, BAD_INPUT, TRANSIENT, GAVE_UP = 143, errors.UserError.code, errors.Transient.code, 3
TAIL = 1 << 16  # bytes of metrics.jsonl that are read: some hundred lines
# seconds within which a second signal counts as the same one: schedulers send it to everyone they
# find
TWICE = 2.0


def main(words) -> int:
  """Supervises until there is nothing more to do; returns the exit code."""
  given, command = _arguments(words)
  workdir = pathlib.Path(given.workdir)
  ledger = (
    pathlib.Path(given.ledger) if given.ledger else _ledger(workdir, several=_several(command))
  )
  run = Run(workdir, command)
  first = run.command(again=given.go_on)
  if given.dry_run:
    print(
      f"would start: {shlex.join(first)}\nafter a failure: {shlex.join([*run.plain, '--resume'])}"
    )
    print(
      f"pauses {given.first_pause:g} s, doubled up to {given.longest_pause:g} s without a new "
      f"step, at least {given.settle:g} s; at most {given.restarts_per_hour} restarts an hour, "
      f"{given.stuck} without a new step\nledger: {ledger}"
    )
    return 0
  ledger.parent.mkdir(parents=True, exist_ok=True)
  with ledger.open("a") as file:
    _lock(file, ledger)
    return Supervisor(given, run, ledger, file).supervise(first)


class Run:
  """The directory of the run that a command makes: what it holds, and the command that goes on with
  it.
  """

  def __init__(self, workdir: pathlib.Path, command: list[str]):
    self.workdir, self.given = workdir, command
    self.plain = [word for word in command if word not in ("--overwrite", "--resume")]
    # What --overwrite is to delete is not the run to go on with, should the command die before it
    # has deleted it.
    self.before = self._stamp() if "--overwrite" in command else None

  def _stamp(self) -> tuple | None:
    if (self.workdir / "versions.json").exists() and (self.workdir / "config.json").exists():
      status = (self.workdir / "config.json").stat()
      return status.st_mtime_ns, status.st_ino
    return None

  def command(self, *, again: bool) -> list[str]:
    """The command to start: as it was given, or `again`, with --resume where there is a run."""
    now = self._stamp()
    return [*self.plain, "--resume"] if again and now and now != self.before else self.given

  def step(self) -> int | None:
    """The last step that the run has logged or saved; None before there is one."""
    steps = [int(path.name) for path in self.workdir.glob("checkpoints/*") if path.name.isdecimal()]
    with contextlib.suppress(OSError), (self.workdir / "metrics.jsonl").open("rb") as file:
      file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
      for line in file.read().splitlines():
        # the first may be cut by the seek, the last by the crash
        with contextlib.suppress(ValueError, TypeError, KeyError):
          steps.append(int(json.loads(line)["step"]))
    return max(steps, default=None)


class Supervisor:
  """Starts, waits, judges, pauses."""

  def __init__(self, given, run: Run, ledger: pathlib.Path, file):
    self.given, self.run, self.file = given, run, file
    # the last end: its step, and whether the program itself failed
    self.ends = _ends(ledger)[-1:] if given.go_on else []
    self.best, self.idle = run.step(), 0  # furthest step; ends since it moved
    self.restarts: list[float] = []
    self.child: common.Child | None = None
    # the signal to stop; when it came; whether to leave after this end
    self.told, self.told_at, self.last = 0, 0.0, False

  def supervise(self, command: list[str]) -> int:
    """Until the run is done or restarting it is of no use."""
    old = {
      number: signal.signal(number, self._heard)
      for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    }
    try:
      while not self.told:
        started = time.monotonic()
        code = self._once(command)
        reason, leave = self._judge(code)
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
      self._write(
        "leave", code=EXIT_SIGNALED, reason=f"{signal.Signals(self.told).name} between two starts"
      )
      return EXIT_SIGNALED
    finally:
      for number, handler in old.items():
        signal.signal(number, handler)

  def _once(self, command: list[str]) -> int:
    """One start of the command; its exit code, 128 + n for death by signal n."""
    try:
      # The ledger's lock goes with it: while the command lives no second supervisor starts another
      # one in the same directory.
      self.child = common.Child(command, pass_fds=(self.file.fileno(),))
    except OSError as error:
      print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
      return BAD_INPUT
    self._write("start", pid=self.child.pid, command=command, resume="--resume" in command)
    if self.told:  # it came before there was a child to pass it on to
      self.child.tell(self.told)
    self.child.wait()
    code = self.child.end()
    return code if code >= 0 else 128 - code

  def _judge(self, code: int) -> tuple[str, int | None]:
    """Why it ended, and the exit code to leave with (None: start it again)."""
    step = self.run.step()
    moved = step is not None and (self.best is None or step > self.best)
    self.best, self.idle = (step, 0) if moved else (self.best, self.idle + 1)
    own = _own(code)
    before, self.ends = self.ends[-1:], [(step, own)]
    what = (
      f"signal {signal.Signals(code - 128).name}"
      if code != EXIT_SIGNALED and code - 128 in set(signal.Signals)
      else f"exit code {code}"
    )
    if code == 0:
      return "done", 0
    if self.told:
      return f"{what} after {signal.Signals(self.told).name} was passed on", code
    if code == BAD_INPUT:
      return "bad input", BAD_INPUT
    if own and before == [(step, True)]:
      return f"{what}, deterministic: twice in a row at step {step}", GAVE_UP
    if self.last or (code == EXIT_SIGNALED and self.given.leave_when_stopped):
      return f"{what}, not to be restarted", code
    self.restarts = [moment for moment in self.restarts if time.time() - moment < 3600]
    if not self.given.restarts_per_hour:
      return f"{what}, no restarts allowed", code
    if len(self.restarts) >= self.given.restarts_per_hour:
      return f"{what}, restarted {len(self.restarts)} times within an hour", GAVE_UP
    if self.idle >= self.given.stuck:
      return f"{what}, {self.idle} ends without a step after {self.best}", GAVE_UP
    self.restarts.append(time.time())
    return what, None

  def _pause(self) -> float:
    """Seconds: doubled while no new step comes, between half and all of it, so that many hosts do
    not come at one moment.
    """
    full = min(self.given.longest_pause, self.given.first_pause * 2 ** max(0, self.idle - 1))
    return max(self.given.settle, full * random.uniform(0.5, 1.0))

  def _wait(self, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not (self.told or self.last) and time.monotonic() < until:
      time.sleep(min(0.2, max(0.0, until - time.monotonic())))
    self.told = self.told or (signal.SIGUSR1 if self.last else 0)

  def _heard(self, number, frame) -> None:
    self.last, now = True, time.monotonic()
    if number == signal.SIGUSR1:
      return
    if self.told and now - self.told_at < TWICE:
      return
    self.told, self.told_at = number, now
    if self.child is not None:
      self.child.tell(number)

  def _write(self, event: str, **values) -> None:
    """One line in the ledger and one on stderr."""
    line = {
      "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
      "event": event,
      **values,
    }
    self.file.write(json.dumps(line) + "\n")
    self.file.flush()
    words = ", ".join(
      f"{key} {shlex.join(value) if isinstance(value, list) else value}"
      for key, value in values.items()
    )
    print(f"supervise: {event}: {words}", file=sys.stderr, flush=True)


def _ends(ledger: pathlib.Path) -> list[tuple[int | None, bool]]:
  """How the starts before ours ended: the scheduler has started us again."""
  found = []
  for line in ledger.read_text().splitlines():
    with contextlib.suppress(ValueError, KeyError):
      entry = json.loads(line)
      if entry["event"] == "end":
        found.append((entry["step"], _own(entry["code"])))
  return found


def _own(code: int) -> bool:
  """Whether the program itself failed: no signal killed it (128 + n, as shells, srun and
  local_processes.py say it), and it did not leave because another process was gone.
  """
  return code not in (0, BAD_INPUT, EXIT_SIGNALED, TRANSIENT) and code - 128 not in set(
    signal.Signals
  )


def _several(command: list[str]) -> bool:
  """Whether the command is one of several processes of a run, on this host or on others."""
  return (
    bool(os.environ.get("COMO_JAX_COORDINATOR"))
    or os.environ.get("COMO_JAX_DISTRIBUTED", "0") not in ("", "0")
    or "--distributed" in command
  )


def _ledger(workdir: pathlib.Path, *, several: bool) -> pathlib.Path:
  where = pathlib.Path(os.path.abspath(workdir))
  return where.with_name(
    f"{where.name}.supervise{'-' + socket.gethostname() if several else ''}.jsonl"
  )


def _lock(file, ledger: pathlib.Path) -> None:
  with contextlib.suppress(OSError):  # a file system without locks
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise errors.UserError(
        f"{ledger} is in use: a supervisor, or a command that one has left behind, is at work there"
      ) from error


def _arguments(words):
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
  given = parser.read(words)
  if not (command := given.program):
    raise errors.UserError(
      "expected a command after --: supervise.py -- python -m como_jax.main --config=... "
      "--workdir=..."
    )
  given.workdir = given.workdir or common.value(command, "workdir")
  if not given.workdir or (given.go_on and "--overwrite" in command):
    raise errors.UserError(
      "--go-on and the command's --overwrite exclude each other"
      if given.workdir
      else "--workdir is missing: without it nobody can tell progress from a crash at the same step"
    )
  if given.settle is None:
    given.settle = (
      float(os.environ.get("COMO_JAX_HEARTBEAT_SECONDS") or common.HEARTBEAT) + 20
      if _several(command)
      else 0.0
    )
  return given, command


if __name__ == "__main__":
  sys.exit(common.main(main))
