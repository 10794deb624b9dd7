"""The robot's side as a package of its own: made from como_jax's files, without jax, for 3.8."""

import ast
import json
import os
import pathlib
import re
import runpy
import subprocess
import sys
import tomllib

import pytest

import como_jax
from tests.end_to_end import program
from tests.serve import fake

CLIENT = program.ROOT / "client"
TALK = """
import sys
import numpy as np
from como_jax_client import __version__, client, player
observation = {
  "observation/image": np.full((8, 8, 3), 100, np.uint8),
  "observation/wrist_image": np.zeros((8, 8, 3), np.uint8),
  "observation/state": np.ones(8),
  "prompt": "pick up the cup",
}
with client.Client("127.0.0.1", int(sys.argv[1])) as policy:
  chunk = policy.infer(observation)["actions"]
  play = player.Player(policy, player.ChunkQueue(policy.metadata["chunk"]))
  action = play(observation)
  play.close()
import json
print(json.dumps([chunk.shape, chunk.tolist(), action.tolist(), __version__]))
assert not {"jax", "como_jax", "flax"} & set(sys.modules)
"""


@pytest.fixture(name="package", scope="module")
def _package(tmp_path_factory):
  """The package's folder as it is installed."""
  folder = tmp_path_factory.mktemp("installed") / "como_jax_client"
  folder.mkdir()
  text = (CLIENT / "src" / "como_jax_client" / "__init__.py").read_text()
  (folder / "__init__.py").write_text(text)
  runpy.run_path(str(CLIENT / "setup.py"))["copy_modules"](folder)
  return folder


def test_a_chunk_comes_without_como_jax(package):
  policy = fake.Policy()
  env = {**os.environ, "PYTHONPATH": str(package.parent)}
  with fake.serving(policy) as (port, _, _):
    done = subprocess.run(
      [sys.executable, "-c", TALK, str(port)],
      env=env,
      cwd=package.parent,
      capture_output=True,
      text=True,
    )
  assert done.returncode == 0, done.stderr
  shape, chunk, action, version = json.loads(done.stdout)
  assert shape == [4, 7] and version == como_jax.__version__
  # fake.Policy: state + 10 * frames + 100 * oldest state + image / 1000 + element
  assert chunk[2] == pytest.approx([1 + 10 + 100 + 0.1 * 8 * 8 * 3 * 100 / 19200 + 2] * 7)
  assert action == pytest.approx(chunk[0])


def test_its_modules_are_python_3_8_and_import_what_is_declared(package):
  paths = sorted(package.glob("*.py"))
  assert [path.name for path in paths] == [
    "__init__.py",
    "chunks.py",
    "client.py",
    "codec.py",
    "errors.py",
    "player.py",
    "version.py",
  ]
  project = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
  declared = {re.match(r"[a-z]+", one)[0] for one in project["dependencies"]}
  used = set()
  for path in paths:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
      if isinstance(node, ast.Import):
        used |= {alias.name.partition(".")[0] for alias in node.names}
      elif isinstance(node, ast.ImportFrom):
        used.add(node.module.partition(".")[0])
    later = "from __future__ import annotations" in path.read_text()
    # what 3.8 cannot evaluate
    assert later or not re.search(r": .*(\w\[|\|)", path.read_text()), path.name
  assert used - set(sys.stdlib_module_names) == declared | {"como_jax_client"}
  assert project["requires-python"] == ">=3.8"


def test_git_holds_no_second_copy():
  ignored = [
    f"client/src/como_jax_client/{name}"
    for name in ("chunks.py", "client.py", "codec.py", "errors.py", "player.py", "version.py")
  ]
  if not (program.ROOT / ".git").exists():
    pytest.skip("no checkout")
  held = subprocess.run(
    ["git", "ls-files", "client"], cwd=program.ROOT, capture_output=True, text=True, check=True
  ).stdout.split()
  assert not set(ignored) & set(held)
  rules = (pathlib.Path(program.ROOT) / ".gitignore").read_text().splitlines()
  assert "/client/src/como_jax_client/*.py" in rules
