#!/usr/bin/env python3
r"""Supervises a run: restarts it after a crash or a preemption.

  launch/supervise.py [options] -- \
      python -m como_jax.main --config=configs/motion.py --workdir=runs/first
  launch/supervise.py --workdir runs/two -- \
      launch/local_processes.py 2 -- python -m como_jax.main ... --workdir=runs/two

It restarts the command, after a growing, random time, with --resume if the directory contains a
run. What it does depends on the exit code (failures.py, docs/scale.md):
  * transient (143, 75, and 134 of one process of several): restarted without limit;
  * deterministic (2, 3): never restarted; the code is passed on;
  * unknown (anything else, death by a signal too): restarted, but not after --stuck such ends
    without a new step, after the program itself failed twice in a row at the same last step, or
    after --restarts-per-hour restarts in an hour. The exit code is then 3.
SIGTERM and SIGINT are passed on, the run saves, and the supervisor ends with the run's code. After
SIGUSR1 it waits for the end of the command and restarts no more.
Where each host of a run has a supervisor (--start), the others end when one has given up.
Every start and end is a line of the ledger WORKDIR.supervise.jsonl. The ledger is beside the run
directory, because a run refuses a nonempty directory, and --overwrite would delete the ledger. (If
several hosts share the directory, it is WORKDIR.supervise-HOST.jsonl.) Last steps are read from the
run's metrics.jsonl and checkpoints.
"""

import contextlib
import json
import os
import pathlib
import random
import shlex
import signal
import sys
import time

import common
import failures
import ledger as ledger_lib
from common import errors

SUPERVISED = "COMO_JAX_SUPERVISED"  # tells the run that somebody starts it again
TAIL = 1 << 16  # bytes that are read at the end of metrics.jsonl: some hundred lines
# seconds within which a second signal counts as the same one, because schedulers send a signal to
# several processes
TWICE = 2.0


def main(argv) -> int:
  """Supervises the command until it must not be restarted; returns the exit code."""
  args, command = _arguments(argv)
  workdir = pathlib.Path(args.workdir)
  several = _is_multiprocess(command)
  path = (
    pathlib.Path(args.ledger) if args.ledger else ledger_lib.default_path(workdir, several=several)
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
      f"{args.stuck} without a new step\nledger: {path}"
    )
    return 0
  return Supervisor(args, run, ledger_lib.Ledger(path)).supervise(first)


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

  def __init__(self, args, run: Run, ledger: ledger_lib.Ledger):
    self.args, self.run, self.ledger = args, run, ledger
    self.given_up = ledger_lib.GivenUp(run.workdir, args.start)
    self.several = _is_multiprocess(run.original)
    self.history = failures.History(several=self.several)
    if args.go_on:
      for step, code in ledger.ends():
        self.history.add(step, code)
    self.history.reached(run.step())  # a supervisor that was killed wrote no end
    self.restarts: list[float] = []  # times of the restarts after an unknown failure
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
        if leave is None and (told := self.given_up.read()):
          reason, leave = told
        elif leave in failures.FINAL:
          self.given_up.write(leave, reason)
        pause = 0.0 if leave is not None else self._pause()
        self.ledger.write(
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
        if told := self.given_up.read():
          reason, code = told
          self.ledger.write("leave", code=code, reason=reason)
          return code
        command = self.run.command(again=True)
      name = signal.Signals(self.stop_signal).name
      self.ledger.write("leave", code=failures.SIGNALED, reason=f"{name} between two starts")
      return failures.SIGNALED
    finally:
      for number, handler in old.items():
        signal.signal(number, handler)

  def _run_once(self, command: list[str]) -> int:
    """Runs the command once; returns its exit code, 128 + n for death by signal n."""
    if self.args.codes:
      pathlib.Path(self.args.codes).mkdir(parents=True, exist_ok=True)
      for path in pathlib.Path(self.args.codes).iterdir():
        path.unlink(missing_ok=True)
    try:
      # The command inherits the ledger's lock. While it runs, no other supervisor can start a
      # command in the same directory.
      self.child = common.Child(
        command, pass_fds=(self.ledger.file.fileno(),), env={**os.environ, SUPERVISED: "1"}
      )
    except OSError as error:
      print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
      return failures.BAD_INPUT
    self.ledger.write("start", pid=self.child.pid, command=command, resume="--resume" in command)
    if self.stop_signal:  # the signal came before the child was started
      self.child.tell(self.stop_signal)
    self.child.wait()
    code = self.child.end()
    code = code if code >= 0 else 128 - code
    if not self.args.codes:
      return code
    texts = [path.read_text().strip() for path in pathlib.Path(self.args.codes).iterdir()]
    return failures.cause([code, *(int(text) for text in texts if text.isdecimal())])

  def _decide(self, code: int) -> tuple[str, int | None]:
    """Returns the reason of the end, and our exit code (None: restart the command)."""
    repeated = self.history.add(self.run.step(), code)
    what = f"signal {failures.signal_name(code)}"
    if code == failures.SIGNALED or not failures.signal_name(code):
      what = f"exit code {code}"
    if code == 0:
      return "done", 0
    if self.stop_signal:
      return f"{what} after {signal.Signals(self.stop_signal).name} was passed on", code
    if code == failures.BAD_INPUT:
      return "bad input", code
    if code == failures.DETERMINISTIC:
      return f"{what}, deterministic", code
    if repeated:
      at = self.history.last_step
      return f"{what}, deterministic: twice in a row at step {at}", failures.DETERMINISTIC
    if self.history.idle >= self.args.stuck:
      best = self.history.best
      return (
        f"{what}, {self.history.idle} ends without a step after {best}",
        failures.DETERMINISTIC,
      )
    if self.last or (code == failures.SIGNALED and self.args.leave_when_stopped):
      return f"{what}, not to be restarted", code
    if not self.args.restarts_per_hour:
      return f"{what}, no restarts allowed", code
    if failures.is_transient(code, several=self.several):
      return f"{what}, transient", None
    self.restarts = [moment for moment in self.restarts if time.time() - moment < 3600]
    if len(self.restarts) >= self.args.restarts_per_hour:
      return (
        f"{what}, restarted {len(self.restarts)} times within an hour",
        failures.DETERMINISTIC,
      )
    self.restarts.append(time.time())
    return what, None

  def _pause(self) -> float:
    """Seconds until the next start.

    The time is doubled while there is no new step. It is then multiplied by a random factor from
    0.5 to 1, so that many hosts do not start at the same moment.
    """
    # an exponent of some hundreds is no float
    doubled = self.args.first_pause * 2 ** min(40, max(0, self.history.fruitless - 1))
    full = min(self.args.longest_pause, doubled)
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


def _is_multiprocess(command: list[str]) -> bool:
  """Whether the command is one of several processes of a run, on this host or on others."""
  return (
    bool(os.environ.get("COMO_JAX_COORDINATOR"))
    or os.environ.get("COMO_JAX_DISTRIBUTED", "0") not in ("", "0")
    or "--distributed" in command
  )


def _arguments(argv):
  parser = common.Parser(prog="supervise.py", description=__doc__)
  parser.add_argument(
    "--workdir", default="", help="directory of the run (default: the command's --workdir)"
  )
  parser.add_argument("--ledger", default="", metavar="FILE")
  parser.add_argument(
    "--start", default="", metavar="ID", help="the same for the supervisors of one run's hosts"
  )
  parser.add_argument(
    "--codes",
    default="",
    metavar="DIR",
    help="where each process of the command leaves a file with its exit code; a failure counts "
    "before what is transient",
  )
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
