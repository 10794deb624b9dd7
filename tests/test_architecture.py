"""Who imports whom, file sizes, and imports without side effects."""

import ast
import graphlib
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "como_jax"

BASE = {"errors", "trees"}
# package part -> parts it may import, and third-party modules it must not
ARROWS = {
  "errors": set(),
  "storage": {"errors"},
  "trees": {"errors"},
  "weights": BASE | {"settings"},
  "model_presets": {"errors"},
  "settings": {"errors", "storage"},
  "config": {"errors", "settings", "storage"},
  "units": {"errors", "storage"},
  "data": BASE | {"observations", "storage", "units"},
  "models": BASE | {"model_presets"},
  "objectives": {"errors", "storage"},
  "exam": {"errors"},
  "evaluate": {"errors", "exam"},
  "parallel": BASE,
  "train": BASE
  | {"parallel", "weights", "config", "settings", "storage", "data", "models", "units"},
  "sim": {"chunks", "errors", "observations"},
  "convert": BASE | {"weights"},
  "report": {"errors"},
  "language": BASE | {"models", "weights", "convert", "storage"},
  "serve": BASE | {"models", "data", "train", "language", "observations", "settings", "weights"},
  "inference": BASE
  | {"data", "models", "evaluate", "exam", "parallel", "train", "serve", "sim", "units", "weights"},
  "assembly": BASE
  | {
    "storage",
    "config",
    "data",
    "inference",
    "language",
    "models",
    "objectives",
    "parallel",
    "serve",
    "settings",
    "sim",
    "train",
  },
  "quickstart": {"data", "errors", "language", "report", "serve", "sim", "stages", "train"},
  "chunks": {"errors"},
  "observations": set(),
  "commands": set(),
  "stages": set(),
  "main": {"commands", "errors", "interrupt", "config", "parallel", "tasks"},
  "cli": {"commands", "errors", "interrupt", "config", "main", "storage"},
  "__main__": {"interrupt", "cli"},
  "interrupt": set(),
  "tasks": BASE
  | {
    "assembly",
    "commands",
    "quickstart",
    "stages",
    "config",
    "model_presets",
    "settings",
    "interrupt",
    "data",
    "units",
    "models",
    "objectives",
    "evaluate",
    "parallel",
    "train",
    "sim",
    "report",
    "weights",
    "convert",
    "language",
    "serve",
    "inference",
    "chunks",
    "observations",
    "exam",
  },
}
FORBIDDEN = {
  "data": {"jax", "flax", "optax", "orbax"},
  "report": {"jax", "flax"},
  "sim": {"jax", "flax"},
  "evaluate": {"flax", "optax", "orbax"},
  "exam": {
    "jax",
    "flax",
    "optax",
    "orbax",
    "scipy",
    "av",
    "grain",
    "ml_collections",
    "pyarrow",
    "PIL",
  },
  "objectives": {"flax", "optax"},
  "models": {"optax", "orbax", "grain"},
  "convert": {"torch", "flax"},
  "trees": {"jax"},
  "config": {"jax"},
  "settings": {"jax"},
}
FLAX_ALLOWED = {"models", "parallel"}


def imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(path):
  first = path.relative_to(PACKAGE).parts[0]
  return first.removesuffix(".py")


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path):
  here = part(path)
  for name in imports(path):
    top, _, rest = name.partition(".")
    if top == "como_jax" and rest:
      target = rest.partition(".")[0]
      assert target == here or target in ARROWS[here] or target == "__version__", (
        f"{here} must not import {name}"
      )
    assert top not in FORBIDDEN.get(here, ()), f"{here} must not import {name}"
    assert top != "flax" or here in FLAX_ALLOWED, (
      f"only models and the activation rules import flax, not {path}"
    )
    assert top not in ("torch", "transformers", "tensorflow", "cv2"), (
      f"{name} is not a requirement of the product"
    )


def test_configs_import_only_what_holds_numbers():
  for path in (ROOT / "configs").glob("*.py"):
    for name in imports(path):
      assert name in ("como_jax.config", "como_jax.model_presets", "ml_collections"), (
        f"{path.name} imports {name}"
      )


def test_no_file_is_over_400_lines():
  every = [
    path
    for folder in ("como_jax", "configs", "tests", "benchmarks", "launch")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".sh")
  ]
  lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in every}
  over = {name: lines for name, lines in lengths.items() if lines > 400}
  assert len(lengths) > 60 and not over


def test_importing_the_package_touches_no_backend():
  code = (
    "import como_jax.data.pipeline, como_jax.data.evaluation, como_jax.tasks.motion, "
    "como_jax.tasks.probe\nfrom jax._src import xla_bridge\nassert not xla_bridge._backends, "
    "list(xla_bridge._backends)"
  )
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_pickle():
  for path in FILES:
    names = set(imports(path))
    if path.name != "torch_zip.py":  # the restricted reader of torch files
      assert "pickle" not in names, path


def test_a_simulator_has_type_stubs():
  """launch/lint.sh installs no simulator: without stubs the types would need one."""
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  required = {re.split(r"[^\w-]", one)[0].replace("-", "_") for one in project["dependencies"]}
  for path in (PACKAGE / "sim").glob("*.py"):
    for name in {each.partition(".")[0] for each in imports(path)}:
      known = name in sys.stdlib_module_names or name == "como_jax" or name in required
      assert known or (ROOT / "typings" / name / "__init__.pyi").exists(), f"{path.name}: {name}"


def test_arrows_run_in_one_direction():
  order = list(graphlib.TopologicalSorter(ARROWS).static_order())  # raises where they form a circle
  assert order.index("data") < order.index("inference") < order.index("assembly")
