"""Code shared by the launchers: argument parsing, checks of the program, and running of commands.

Errors of arguments suggest the nearest valid word. A dry run only prints the commands. This module
uses the standard library only, because the launchers run on laptops and login nodes without jax.
"""

import argparse
import contextlib
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from como_jax import errors

ROOT = pathlib.Path(__file__).resolve().parent.parent

CACHE = (
  "folder of compiled programs that all hosts share: a host that restarts does not compile again"
)

# seconds for data workers to end, and for Python's resource tracker to free their shared memory
TIDY = 3.0
# seconds without a heartbeat after which jax considers a process dead (COMO_JAX_HEARTBEAT_SECONDS)
HEARTBEAT = 45


class Parser(argparse.ArgumentParser):
  """An argument parser whose errors are one line with the nearest valid word; exit code 2."""

  def __init__(self, **kwargs):
    super().__init__(
      **{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **kwargs}
    )

  def error(self, message: str):
    """Raises `errors.UserError` instead of exiting."""
    raise errors.UserError(re.sub(r"\s+", " ", message))

  def read(self, argv: Sequence[str]) -> argparse.Namespace:
    """Parses the arguments before "--"; those after it are returned unparsed as `.program`.

    Raises:
      errors.UserError: an unknown or invalid argument.
    """
    argv = list(argv)
    end = argv.index("--") if "--" in argv else len(argv)
    own, program = argv[:end], argv[end + 1 :]
    commands = next(
      (
        list(action.choices)
        for action in self._actions
        if isinstance(action, argparse._SubParsersAction)
      ),
      [],
    )
    if commands and own and not own[0].startswith("-") and own[0] not in commands:
      raise errors.UserError(
        f"subcommand {own[0]!r} is unknown: {errors.nearest(own[0], commands)}"
      )
    args, rest = self.parse_known_args(own)
    if rest:
      parser = self._subparser(args)
      flags = [
        flag
        for action in parser._actions
        for flag in action.option_strings
        if flag.startswith("--")
      ]
      raise errors.UserError(
        f"argument {rest[0]!r} is unknown: {errors.nearest(rest[0].partition('=')[0], flags)}"
      )
    args.program = program
    return args

  def _subparser(self, args: argparse.Namespace) -> argparse.ArgumentParser:
    """The parser of the chosen subcommand; this parser when there are no subcommands."""
    for action in self._actions:
      if isinstance(action, argparse._SubParsersAction):
        return action.choices[getattr(args, action.dest)]
    return self


def main(function: Callable[[Sequence[str]], int]) -> int:
  """Runs a launcher's main function; for bad input, prints one line and returns 2."""
  try:
    return function(sys.argv[1:])
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2


def name(text: str, *, what: str, longest: int = 40) -> str:
  """Checks a name of a cloud resource: lower-case letters, digits and hyphens.

  Args:
    text: the name.
    what: what the name is for, for the message.
    longest: maximum number of characters.

  Returns:
    The name.

  Raises:
    errors.UserError: suggests a similar valid name.
  """
  if not re.fullmatch(rf"[a-z]([-a-z0-9]{{0,{longest - 2}}}[a-z0-9])?", text):
    valid = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:longest].strip("-")
    valid = valid if valid[:1].isalpha() else f"run-{valid}".strip("-")
    raise errors.UserError(
      f"{what} {text!r}: expected at most {longest} lower-case letters, digits and hyphens, for "
      f"example {valid!r}"
    )
  return text


def program(argv: Sequence[str], *, hosts: int, expect: str) -> list[str]:
  """Checks the arguments of como_jax.main before any machine is rented.

  Args:
    argv: the words after "--": --config=FILE[:ARG] [--config.key=value ...] --workdir=DIR.
    hosts: number of machines; several machines need a shared directory.
    expect: the devices that the program must find there, "gpu:16" or "tpu".

  Returns:
    The arguments without --resume, and with --expect.

  Raises:
    errors.UserError: names the flag or file.
  """
  argv = list(argv)
  config, workdir = value(argv, "config"), value(argv, "workdir")
  if not config:
    raise errors.UserError(
      "expected the program's arguments after --, for example: -- --config=configs/motion.py "
      "--workdir=/mnt/runs/first"
    )
  file = config.partition(":")[0]
  if not (ROOT / file).is_file():
    configs = [str(path.relative_to(ROOT)) for path in (ROOT / "configs").glob("*.py")]
    raise errors.UserError(
      f"config file {file!r} is not in this checkout: {errors.nearest(file, configs)}"
    )
  if not workdir:
    raise errors.UserError(
      "--workdir is missing: the machines may restart, and the run goes on in a directory that "
      "is named"
    )
  if "://" in workdir:
    raise errors.UserError(
      f"--workdir={workdir}: expected a directory; mount the bucket and give the path below the "
      "mount (launch/README.md)"
    )
  if hosts > 1 and not workdir.startswith("/"):
    raise errors.UserError(
      f"--workdir={workdir}: {hosts} hosts need one directory on a shared file system, as an "
      "absolute path"
    )
  if "--overwrite" in argv:
    raise errors.UserError(
      "--overwrite: a launcher may start the run again and would delete it; delete the "
      "directory yourself or choose another"
    )
  # the supervisor adds --resume where the directory contains a run
  words = [word for word in argv if word != "--resume"]
  return words if value(argv, "expect") else [*words, f"--expect={expect}"]


def cache(folder: str) -> None:
  """Refuses a folder of compiled programs (--cache) that hosts cannot share.

  Raises:
    errors.UserError: it is no absolute path.
  """
  if folder and ("://" in folder or not folder.startswith("/")):
    raise errors.UserError(
      f"--cache={folder}: expected an absolute path that all hosts share; mount a bucket and give "
      "the path below the mount"
    )


def value(argv: Sequence[str], flag: str) -> str:
  """Returns the value of --flag=VALUE or --flag VALUE, the last one if repeated; "" without it."""
  result = ""
  for i, word in enumerate(argv):
    if word.startswith(f"--{flag}="):
      result = word.partition("=")[2]
    elif word == f"--{flag}" and i + 1 < len(argv):
      result = argv[i + 1]
  return result


class Child(subprocess.Popen):
  """A command in its own session.

  A signal to our process group does not reach it directly. It receives the signal once, by `tell`;
  a second signal would end a run at once.
  """

  def __init__(self, command: Sequence[str], **settings):
    super().__init__(command, start_new_session=True, **settings)
    self._cleaned_up = False

  def tell(self, number: int) -> None:
    """Sends a signal to the command while it runs.

    srun kills its tasks when it receives a signal. There, scancel sends the signal to the tasks.
    """
    if self.poll() is not None:
      return
    if pathlib.PurePath(self.args[0]).name == "srun" and "SLURM_JOB_ID" in os.environ:
      subprocess.run(
        [
          "scancel",
          f"--signal={signal.Signals(number).name.removeprefix('SIG')}",
          os.environ["SLURM_JOB_ID"],
        ]
      )
    else:
      self.send_signal(number)

  def end(self) -> int:
    """Kills the command if it runs, ends its remaining data workers, and returns its exit code.

    Call this as soon as the command has ended.
    """
    self.kill()
    code = self.wait()
    if not self._cleaned_up:  # only once, because the system may reuse the process group's number
      self._cleaned_up, deadline = True, time.monotonic() + TIDY
      # no process is left; on macOS: only zombies are left
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(self.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
          os.killpg(self.pid, 0)
          time.sleep(0.02)
        os.killpg(self.pid, signal.SIGKILL)
    return code


class Runner:
  """Runs commands, or only prints them, in a form that can be pasted into a shell."""

  def __init__(self, dry: bool):
    self.dry = dry

  def run(self, *commands: Sequence[str], check: bool = True) -> int:
    """Runs commands in parallel in this terminal; returns the last nonzero exit code, or 0.

    Args:
      *commands: to run.
      check: whether to raise an error when a command fails.

    Raises:
      errors.UserError: a command is not installed, or (with `check`) a command failed.
    """
    for command in commands:
      print(("" if self.dry else "+ ") + shlex.join(command), flush=True)
    started: list[subprocess.Popen] = []
    try:
      for command in () if self.dry else commands:
        # Only a single command may read the terminal.
        started.append(
          subprocess.Popen(command, stdin=subprocess.DEVNULL if len(commands) > 1 else None)
        )
      failed = [(child.args, child.returncode) for child in started if child.wait()]
    except FileNotFoundError as error:
      raise errors.UserError(
        f"{command[0]!r} is not installed here; --dry-run prints what it would be asked"
      ) from error
    finally:
      for child in started:
        child.kill()  # no effect on a command that has ended
    if check and failed:
      raise errors.UserError(
        f"{' '.join(failed[0][0][:6])} ... ended with exit code {failed[0][1]}: nothing further "
        "was done"
      )
    return failed[-1][1] if failed else 0

  def read(self, command: Sequence[str]) -> str:
    """Returns the output of a command; "" in a dry run, and when it fails.

    Raises:
      errors.UserError: the command is not installed.
    """
    if self.dry:
      print(shlex.join(command), flush=True)
      return ""
    try:
      result = subprocess.run(list(command), stdout=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
      raise errors.UserError(
        f"{command[0]!r} is not installed here; --dry-run prints what it would be asked"
      ) from error
    return result.stdout.strip() if result.returncode == 0 else ""
