"""How readable is the code, in numbers that can be counted?

python benchmarks/code_numbers.py [CHECKOUT ...]
    one column for each checkout (default: this one), to compare before and after

Counted in como_jax/: files over 300 lines, functions over 50 lines (body), functions with more than
7 parameters (*args and **kwargs count, self and cls do not), public docstrings, source files
without a test file of their own. Counted everywhere: lines over 100 columns, exemptions from lint
and type checks. Pairs of places that share lines are not counted here.
"""

import argparse
import ast
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks import common

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("como_jax", "configs", "launch", "benchmarks", "tests")
EXEMPTION = re.compile(r"#\s*(noqa|type: ignore|pyright: ignore|pragma|fmt: (skip|off))")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("checkouts", nargs="*", type=pathlib.Path, default=[ROOT])
  checkouts = parser.parse_args().checkouts
  columns = [numbers(path) for path in checkouts]
  rows = [(name, *(column[name] for column in columns)) for name in columns[0]]
  print(common.table(("number", *map(str, checkouts)), rows))


def numbers(root: pathlib.Path) -> dict[str, str]:
  """Every number of one checkout, by its name."""
  package = sorted((root / "como_jax").rglob("*.py"))
  trees = {path: ast.parse(path.read_text()) for path in package}
  functions = [
    node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, FUNCTIONS)
  ]
  public = [(node, doc) for path, tree in trees.items() for node, doc in documented(tree, path)]
  files = [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
  lines = [line for path in files for line in path.read_text().splitlines()]
  settings = (root / "pyproject.toml").read_text()
  described = sum(doc is not None for _, doc in public)
  return {
    "files in como_jax": str(len(package)),
    "files over 300 lines": str(sum(len(path.read_text().splitlines()) > 300 for path in package)),
    "functions over 50 lines": str(sum(length(node) > 50 for node in functions)),
    "functions with more than 7 parameters": str(sum(parameters(node) > 7 for node in functions)),
    "public names with a docstring": f"{described} of {len(public)}",
    "sources without a test file": str(sum(not tested(root, path) for path in package)),
    "lines over 100 columns": str(sum(len(line) > 100 for line in lines)),
    "exemptions in the code": str(sum(bool(EXEMPTION.search(line)) for line in lines)),
    "exemptions in pyproject.toml": str(len(exempted(settings))),
  }


def length(function: ast.AST) -> int:
  """Lines of the body, without the docstring."""
  body = function.body
  if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
    body = body[1:]
  return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def parameters(function: ast.AST) -> int:
  """Parameters that a caller can give."""
  args = function.args
  named = [*args.posonlyargs, *args.args, *args.kwonlyargs]
  count = len(named) + (args.vararg is not None) + (args.kwarg is not None)
  return count - bool(named and named[0].arg in ("self", "cls"))


def documented(tree: ast.Module, path: pathlib.Path) -> list[tuple[str, str | None]]:
  """(name, docstring or None) of the module and of its public functions, classes and methods."""
  found = [(path.name, ast.get_docstring(tree))]
  for node in tree.body:
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
      found.append((node.name, ast.get_docstring(node)))
      methods = node.body if isinstance(node, ast.ClassDef) else ()
      found += [
        (f"{node.name}.{method.name}", ast.get_docstring(method))
        for method in methods
        if isinstance(method, FUNCTIONS) and not method.name.startswith("_")
      ]
  return found


def tested(root: pathlib.Path, path: pathlib.Path) -> bool:
  """Whether tests/ holds a file named after a source file, in the same folder."""
  inside = path.relative_to(root / "como_jax")
  if path.name in ("__init__.py", "__main__.py"):
    return True
  folder = root / "tests" / inside.parent
  return any(folder.glob(f"test_{path.stem}.py")) or any(folder.glob(f"test_{path.stem}_*.py"))


def exempted(settings: str) -> list[str]:
  """Entries of lint's `ignore` and per-file-ignores in pyproject.toml."""
  start = settings.find("[tool.ruff.lint]")
  ignored = re.search(r"^ignore = \[(.*?)\]", settings[start:], re.S | re.M)
  codes = re.findall(r'"([A-Z]+\d*)"', ignored.group(1)) if ignored else []
  table = re.search(r"\[tool\.ruff\.lint\.per-file-ignores\]\n(.*?)(\n\[|\Z)", settings, re.S)
  return codes + (re.findall(r"^\"(.+?)\" = ", table.group(1), re.M) if table else [])


if __name__ == "__main__":
  main()
