"""The command `como-jax`, and `python -m como_jax`: a word first, then the flags of main.py.

como-jax motion:small --workdir=DIR
    runs a task with the config of its name, here in the variant "small"
como-jax motion --config=FILE.py:VARIANT
    with another config of that task
como-jax list
    the tasks, and the configs that ship with their variants
como-jax cache list | size | limit [SIZE] | clear [PART]
    the caches of this machine

Without a word it is `python -m como_jax.main`. The words are in commands.py.
"""

import ast
import multiprocessing
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from como_jax import commands, errors, interrupt
from como_jax import main as main_lib

HELP = """\
como-jax TASK[:VARIANT] [--config.key=value ...] [--workdir=DIR] [--resume | --overwrite]
como-jax TASK --config=FILE.py[:VARIANT] ...
como-jax list
como-jax cache list | size | limit [SIZE] | clear [PART]
"""

# A worker process imports the script of its parent, and has its own name before that.
if multiprocessing.current_process().name != "MainProcess":
  interrupt.prepare("__mp_main__")


def command() -> NoReturn:
  """What the installed script `como-jax` calls."""
  interrupt.prepare("__main__")
  interrupt.exit_with(main(sys.argv, program=("como-jax",)))


def main(argv: Sequence[str], *, program: Sequence[str] = main_lib.PROGRAM) -> int:
  """Answers a command, or hands the words of a task over to main.py; returns the exit code.

  Args:
    argv: the program's name and its words.
    program: how it was called, for the line that says how to go on.
  """
  words = list(argv[1:])
  try:
    if words and words[0] == "list":
      if words[1:]:
        raise errors.UserError(f"list takes no arguments, {words[1]!r} was given")
      print(listing())
      return 0
    if words and words[0] == "cache":
      from como_jax.storage import cache_command

      print(cache_command.run(words[1:]))
      return 0
    task, words = for_task(words)
    if words in (["--help"], ["-help"]):
      print(HELP)
  except errors.UserError as error:
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return error.code
  except BrokenPipeError as error:
    if not interrupt.is_unread(error):
      raise
    return interrupt.PIPE_CODE
  return main_lib.main([argv[0], *words], task=task, program=program)


def for_task(words: Sequence[str]) -> tuple[str, list[str]]:
  """(task that the first word names, or "" without one; the words as flags alone).

  Raises:
    errors.UserError: the word is no task, is not built yet, or says what --config says too.
  """
  if not words or words[0].startswith("-"):
    return "", list(words)
  word, rest = words[0], list(words[1:])
  name, colon, _ = word.partition(":")
  kind = commands.COMMANDS[name].kind if name in commands.COMMANDS else ""
  if kind == "reserved":
    raise errors.UserError(
      f"{name} ({commands.COMMANDS[name].says}) is not built yet: como-jax list shows what there is"
    )
  if kind != "task":
    valid = [*commands.named("task"), *commands.named("own")]
    raise errors.UserError(f"task {name!r} is unknown: {errors.nearest(name, valid)}")
  config = any(flag.lstrip("-").partition("=")[0] == "config" for flag in rest)
  if config and colon:
    raise errors.UserError(
      f"{word} and --config both name a variant: give {name} --config=FILE:VARIANT, or {word} alone"
    )
  return name, rest if config else [f"--config={word}", *rest]


def listing() -> str:
  """Tasks with a line each, and the configs that ship with their variants."""
  from como_jax import config as config_lib

  texts = {path.stem: _texts(path) for path in sorted(config_lib.CONFIGS.glob("*.py"))}
  lines = ["Tasks: como-jax TASK[:VARIANT] [--config.key=value ...] [--workdir=DIR]", ""]
  lines += [f"  {name:<12}{texts[name][0]}" for name in commands.named("task")]
  lines += ["", f"Configs in {config_lib.CONFIGS}: --config=NAME[:VARIANT]", ""]
  lines += [f"  {name + '.py':<15}{variants}" for name, (_, variants) in texts.items()]
  return "\n".join([*lines, "", "como-jax TASK[:VARIANT] --help shows every key of a config."])


def _texts(path: pathlib.Path) -> tuple[str, str]:
  """(what a config is for, its variants) from the docstrings of its file."""
  tree = ast.parse(path.read_text(encoding="utf-8"))
  variants = [
    ast.get_docstring(node) or ""
    for node in tree.body
    if isinstance(node, ast.FunctionDef) and node.name == "get_config"
  ]
  first = (ast.get_docstring(tree) or "").partition("\n")[0]
  return first, variants[0].partition("\n")[0].removeprefix("Variants: ").rstrip(".")
