"""The text of --help: all configs, or the keys of one.

Beside each key stand its default and the comment of its line.
"""

import ast
import io
import pathlib
import tokenize
from typing import Any

from como_jax.settings import limits

COMMAND = (
  "python -m como_jax --config=NAME[:VARIANT] [--config.key=value ...] [--workdir=DIR] "
  "[--resume | --overwrite]"
)
FLAGS = (
  ("--config=NAME[:VARIANT]", "a config below, or a file: --config=configs/motion.py:small"),
  (
    "--config.KEY=VALUE",
    "another value of one key; a section takes a dict and keeps its other keys",
  ),
  ("--workdir=DIR", "folder of the run (default: runs/NAME-VARIANT)"),
  ("--resume", "go on with the run in the workdir"),
  ("--overwrite", "delete the run in the workdir and start anew"),
  ("--distributed", "one of several processes of a TPU pod or Slurm job"),
  ("--expect=KIND[:N]", "refuse other devices: gpu, gpu:8 (of all processes), tpu, cpu"),
  ("--help", "this text; with --config its keys"),
)
CODES = (
  "Exit codes: 0 done, 2 bad input (one line, nothing written), 130 Ctrl-C before there was "
  "something to save, 143 stopped by SIGTERM or Ctrl-C after saving, 75 other processes did not "
  "come or were lost, the network failed or a step did not end, 3 a loss that is not finite, 1 "
  "anything else."
)


def overview(folder: pathlib.Path) -> str:
  """All configs of a folder, each with the first line of its docstring."""
  lines = (
    [COMMAND, ""]
    + [f"  {flag:<26}{words}" for flag, words in FLAGS]
    + ["", "Configs (--config=NAME --help shows variants and keys):"]
  )
  for path in sorted(folder.glob("*.py")):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    lines.append(f"  {path.stem:<12}{text.partition(chr(10))[0]}")
  return "\n".join([*lines, "", CODES])


def of_config(path: pathlib.Path, config: Any, shared: pathlib.Path) -> str:
  """The docstring of a config file and every key of what it resolves to.

  Args:
    path: of the file.
    config: resolved, of the variant that was asked for.
    shared: the source of the sections that several configs share (functions named like the
      section), for their comments.
  """
  source = path.read_text(encoding="utf-8")
  tree = ast.parse(source)
  lines = [COMMAND, "", ast.get_docstring(tree) or "", ""]
  variants = [
    ast.get_docstring(node)
    for node in tree.body
    if isinstance(node, ast.FunctionDef) and node.name == "get_config"
  ]
  lines += [variants[0] or "", ""] if variants else []
  notes = {**_shared(shared), **comments(source)}
  rows = [
    (f"--config.{key}={_shown(section[name])}", notes.get(key, ""))
    for section, name, key in limits.leaves(config)
  ]
  width = min(56, max(len(first) for first, _ in rows))
  lines += [f"{first:<{width}}  # {note}" if note else first for first, note in rows]
  return "\n".join(lines)


def comments(source: str, function: str = "") -> dict[str, str]:
  """Dotted key -> the comment at the end of its line.

  The keys are the keyword arguments and nested ConfigDict(dict(...)) of a Python file.

  Args:
    source: of the file.
    function: only inside this function; "" = everywhere.
  """
  at_line = {
    token.start[0]: token.string.lstrip("# ")
    for token in tokenize.generate_tokens(io.StringIO(source).readline)
    if token.type == tokenize.COMMENT
  }
  notes: dict[str, str] = {}

  def walk(node: ast.AST, prefix: str) -> None:
    for child in ast.iter_child_nodes(node):
      if isinstance(child, ast.keyword) and child.arg:
        key = prefix + child.arg
        section = isinstance(child.value, ast.Call)
        line = child.value.lineno if section else child.value.end_lineno
        if line in at_line and not (section and isinstance(node, ast.Call) and notes.get(key)):
          notes.setdefault(key, at_line[line])
        walk(child.value, key + ".")
      else:
        walk(child, prefix)

  tree = ast.parse(source)
  roots = (
    [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == function]
    if function
    else [tree]
  )
  for root in roots:
    walk(root, "")
  return notes


def _shared(path: pathlib.Path) -> dict[str, str]:
  source = path.read_text(encoding="utf-8")
  return {
    f"{name}.{key}": text
    for name in ("data", "train")
    for key, text in comments(source, name).items()
  }


def _shown(value: Any) -> str:
  return value if isinstance(value, str) and value else repr(value)
