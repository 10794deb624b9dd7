"""What the launchers share: arguments with nearest suggestions, checks of what is to be run, and commands that a dry run only prints.

Standard library only: the launchers run on a laptop or a login node that has no jax.
"""

import argparse
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from como_jax import errors  # noqa: E402  (the checkout need not be installed)

HEARTBEAT = 100  # seconds after which jax takes a silent process for dead (COMO_JAX_HEARTBEAT_SECONDS)


class Parser(argparse.ArgumentParser):
  """An argument parser whose errors are one line with the nearest valid word, exit code 2."""

  def __init__(self, **kwargs):
    super().__init__(**{"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter, **kwargs})

  def error(self, message: str):
    raise errors.UserError(re.sub(r"\s+", " ", message))

  def read(self, words: Sequence[str]) -> argparse.Namespace:
    """Parses; what follows a lone "--" is the program's and comes back as `.program`, unread."""
    words = list(words)
    cut = words.index("--") if "--" in words else len(words)
    own, program = words[:cut], words[cut + 1:]
    commands = next((list(action.choices) for action in self._actions if isinstance(action, argparse._SubParsersAction)), [])
    if commands and own and not own[0].startswith("-") and own[0] not in commands:
      raise errors.UserError(f"subcommand {own[0]!r} is unknown: {errors.nearest(own[0], commands)}")
    given, rest = self.parse_known_args(own)
    if rest:
      parser = self._chosen(given)
      flags = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
      raise errors.UserError(f"argument {rest[0]!r} is unknown: {errors.nearest(rest[0].partition('=')[0], flags)}")
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
    raise errors.UserError(f"{what} {text!r}: expected at most {longest} lower-case letters, digits and hyphens, for example {near!r}")
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
    raise errors.UserError("expected the program's arguments after --, for example: -- --config=configs/motion.py --workdir=/mnt/runs/first")
  file = config.partition(":")[0]
  if not (ROOT / file).is_file():
    near = [str(path.relative_to(ROOT)) for path in (ROOT / "configs").glob("*.py")]
    raise errors.UserError(f"config file {file!r} is not in this checkout: {errors.nearest(file, near)}")
  if not workdir:
    raise errors.UserError("--workdir is missing: the machines may restart, and the run goes on in a directory that is named")
  if "://" in workdir:
    raise errors.UserError(f"--workdir={workdir}: expected a directory; mount the bucket and give the path below the mount (launch/README.md)")
  if hosts > 1 and not workdir.startswith("/"):
    raise errors.UserError(f"--workdir={workdir}: {hosts} hosts need one directory on a shared file system, as an absolute path")
  if "--overwrite" in words:
    raise errors.UserError("--overwrite: a launcher may start the run again and would delete it; delete the directory yourself or choose another")
  return [word for word in words if word != "--resume"]  # the supervisor adds it where there is a run


def value(words: Sequence[str], flag: str) -> str:
  """The value of --flag=VALUE or --flag VALUE, the last one given; "" without it."""
  found = ""
  for i, word in enumerate(words):
    if word.startswith(f"--{flag}="):
      found = word.partition("=")[2]
    elif word == f"--{flag}" and i + 1 < len(words):
      found = words[i + 1]
  return found


class Runner:
  """Runs commands, or prints them only. What is printed can be pasted into a shell."""

  def __init__(self, dry: bool):
    self.dry = dry

  def run(self, command: Sequence[str], *, check: bool = True) -> int:
    """Runs one command with this terminal; returns its exit code.

    Raises:
      errors.UserError: it is not installed, or (with `check`) it failed.
    """
    command = [str(word) for word in command]
    print(("" if self.dry else "+ ") + shlex.join(command), flush=True)
    if self.dry:
      return 0
    try:
      code = subprocess.run(command).returncode
    except FileNotFoundError as error:
      raise errors.UserError(f"{command[0]!r} is not installed here; --dry-run prints what it would be asked") from error
    if check and code:
      raise errors.UserError(f"{' '.join(command[:5])} ... ended with exit code {code}: nothing further was done")
    return code

  def read(self, command: Sequence[str]) -> str:
    """What a command prints; "" in a dry run and where it fails."""
    if self.dry:
      print(shlex.join(command), flush=True)
      return ""
    try:
      done = subprocess.run(list(command), stdout=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
      raise errors.UserError(f"{command[0]!r} is not installed here; --dry-run prints what it would be asked") from error
    return done.stdout.strip() if done.returncode == 0 else ""
