"""What the launchers share: arguments with nearest suggestions, checks of what is to be run, and
commands that a dry run only prints.

Standard library only: the launchers run on a laptop or a login node that has no jax.
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

# seconds that data workers have to leave, and Python's resource tracker to free their shared memory
TIDY = 3.0
# seconds after which jax takes a silent process for dead (COMO_JAX_HEARTBEAT_SECONDS)
HEARTBEAT = 100


class Parser(argparse.ArgumentParser):
  """An argument parser whose errors are one line with the nearest valid word, exit code 2."""

  def __init__(self, **kwargs):
    super().__init__(
      **{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **kwargs}
    )

  def error(self, message: str):
    raise errors.UserError(re.sub(r"\s+", " ", message))

  def read(self, words: Sequence[str]) -> argparse.Namespace:
    """Parses; what follows a lone "--" is the program's and comes back as `.program`, unread."""
    words = list(words)
    cut = words.index("--") if "--" in words else len(words)
    own, program = words[:cut], words[cut + 1 :]
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
    given, rest = self.parse_known_args(own)
    if rest:
      parser = self._chosen(given)
      flags = [
        flag
        for action in parser._actions
        for flag in action.option_strings
        if flag.startswith("--")
      ]
      raise errors.UserError(
        f"argument {rest[0]!r} is unknown: {errors.nearest(rest[0].partition('=')[0], flags)}"
      )
    given.program = program
    return given

  def _chosen(self, given: argparse.Namespace) -> argparse.ArgumentParser:
    for action in self._actions:
      if isinstance(action, argparse._SubParsersAction):
        return action.choices[getattr(given, action.dest)]
    return self


def main(function: Callable[[Sequence[str]], int]) -> int:
  """Runs a launcher's main function; bad input is one line and exit code 2."""
  try:
    return function(sys.argv[1:])
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2


def name(text: str, *, what: str, longest: int = 40) -> str:
  """Checks a name of the cloud's kind: lower-case letters, digits and hyphens.

  Raises:
    errors.UserError: with the nearest name that would do.
  """
  if not re.fullmatch(rf"[a-z]([-a-z0-9]{{0,{longest - 2}}}[a-z0-9])?", text):
    near = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:longest].strip("-")
    near = near if near[:1].isalpha() else f"run-{near}".strip("-")
    raise errors.UserError(
      f"{what} {text!r}: expected at most {longest} lower-case letters, digits and hyphens, for "
      f"example {near!r}"
    )
  return text


def program(words: Sequence[str], *, hosts: int) -> list[str]:
  """Checks the arguments of como_jax.main before anything is rented for them; returns them.

  Args:
    words: what follows "--": --config=FILE[:ARG] [--config.key=value ...] --workdir=DIR.
    hosts: machines that will run it; several need a directory that all of them see.

  Raises:
    errors.UserError: naming the flag or file.
  """
  words = list(words)
  config, workdir = value(words, "config"), value(words, "workdir")
  if not config:
    raise errors.UserError(
      "expected the program's arguments after --, for example: -- --config=configs/motion.py "
      "--workdir=/mnt/runs/first"
    )
  file = config.partition(":")[0]
  if not (ROOT / file).is_file():
    near = [str(path.relative_to(ROOT)) for path in (ROOT / "configs").glob("*.py")]
    raise errors.UserError(
      f"config file {file!r} is not in this checkout: {errors.nearest(file, near)}"
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
  if "--overwrite" in words:
    raise errors.UserError(
      "--overwrite: a launcher may start the run again and would delete it; delete the "
      "directory yourself or choose another"
    )
  # the supervisor adds it where there is a run
  return [word for word in words if word != "--resume"]


def value(words: Sequence[str], flag: str) -> str:
  """The value of --flag=VALUE or --flag VALUE, the last one given; "" without it."""
  found = ""
  for i, word in enumerate(words):
    if word.startswith(f"--{flag}="):
      found = word.partition("=")[2]
    elif word == f"--{flag}" and i + 1 < len(words):
      found = words[i + 1]
  return found


class Child(subprocess.Popen):
  """A command in a session of its own: what is sent to our group reaches it once, through `tell`.

  (A second signal ends a run at once.)
  """

  def __init__(self, command: Sequence[str], **settings):
    super().__init__(command, start_new_session=True, **settings)
    self._swept = False

  def tell(self, number: int) -> None:
    """Passes a signal on while it lives. srun kills its tasks when it gets one itself: there the
    tasks get it from scancel.
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
    """Kills it, if it lives, and ends what it leaves behind (data workers).

    To be called as soon as it has ended; returns its exit code.
    """
    self.kill()
    code = self.wait()
    if not self._swept:  # later the number may be another's
      self._swept, until = True, time.monotonic() + TIDY
      # all gone; macOS: none but zombies
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(self.pid, signal.SIGTERM)
        while time.monotonic() < until:
          os.killpg(self.pid, 0)
          time.sleep(0.02)
        os.killpg(self.pid, signal.SIGKILL)
    return code


class Runner:
  """Runs commands, or prints them only. What is printed can be pasted into a shell."""

  def __init__(self, dry: bool):
    self.dry = dry

  def run(self, *commands: Sequence[str], check: bool = True) -> int:
    """Runs commands at the same time with this terminal; returns the last exit code that is not 0.

    Raises:
      errors.UserError: one is not installed, or (with `check`) one failed.
    """
    for command in commands:
      print(("" if self.dry else "+ ") + shlex.join(command), flush=True)
    started: list[subprocess.Popen] = []
    try:
      for command in () if self.dry else commands:
        # Only a single one can ask something.
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
        child.kill()  # nothing, to one that has ended
    if check and failed:
      raise errors.UserError(
        f"{' '.join(failed[0][0][:6])} ... ended with exit code {failed[0][1]}: nothing further "
        "was done"
      )
    return failed[-1][1] if failed else 0

  def read(self, command: Sequence[str]) -> str:
    """What a command prints; "" in a dry run and where it fails."""
    if self.dry:
      print(shlex.join(command), flush=True)
      return ""
    try:
      done = subprocess.run(list(command), stdout=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
      raise errors.UserError(
        f"{command[0]!r} is not installed here; --dry-run prints what it would be asked"
      ) from error
    return done.stdout.strip() if done.returncode == 0 else ""
