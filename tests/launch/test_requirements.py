"""Requirements files and locks say what pyproject.toml says."""

import importlib.util
import re
import tomllib

import pytest
from packaging import specifiers, version

from tests.end_to_end import program

_SPEC = importlib.util.spec_from_file_location(
  "launch_requirements", program.ROOT / "launch" / "requirements.py"
)
requirements = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(requirements)

LOCKS = sorted(path.name for path in requirements.LOCKS.glob("*.txt"))


def test_every_python_and_accelerator_has_a_lock():
  wanted = {
    f"py{python}-{name}.txt"
    for python in ("311", "312", "313")
    for name in ("cpu", "gpu-cuda12", "gpu-cuda13", "tpu")
  }
  assert set(LOCKS) == wanted | {"py311-extras.txt", "py311-text.txt"}


def test_requirements_files_are_what_is_made_of_pyproject_and_locks(capsys):
  found = {path.name for path in program.ROOT.glob("requirements*.txt")}
  assert found == set(requirements.FILES)
  assert requirements.main(["--check"]) == 0, capsys.readouterr().err


def test_a_file_that_was_changed_by_hand_is_named(capsys, monkeypatch, tmp_path):
  for name in requirements.FILES:
    (tmp_path / name).write_text((program.ROOT / name).read_text())
  (tmp_path / "pyproject.toml").write_text((program.ROOT / "pyproject.toml").read_text())
  monkeypatch.setattr(requirements, "ROOT", tmp_path)
  text = (tmp_path / "requirements-sim.txt").read_text()
  (tmp_path / "requirements-sim.txt").write_text(text.replace("mujoco==3.3.0", "mujoco==3.3.1"))
  assert requirements.main(["--check"]) == 1
  assert capsys.readouterr().err == (
    "error: requirements-sim.txt is not what pyproject.toml and locks/ say\n"
  )
  assert requirements.main([]) == 0 and capsys.readouterr().out == "wrote requirements-sim.txt\n"
  assert (tmp_path / "requirements-sim.txt").read_text() == text


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_every_dependency_within_its_range(name):
  pins = requirements.locked(requirements.LOCKS / name)
  extras = {"extras": requirements.EXTRAS, "text": ("text",), "cpu": ()}
  part = name.partition("-")[2].removesuffix(".txt")
  wanted = [
    one for extra in ("", *extras.get(part, (part,))) for one in requirements.declared(extra)
  ]
  assert len(wanted) >= 28
  for requirement in wanted:
    package, range_ = re.fullmatch(r"([\w.-]+(?:\[[\w-]+\])?)(.*)", requirement).groups()
    if package == "como-jax[test]":  # its packages are asked for one by one
      continue
    pin = version.Version(pins[requirements.normal(package)])
    assert pin in specifiers.SpecifierSet(range_), f"{name}: {package} {pin}, not {range_}"


@pytest.mark.parametrize("python", ["311", "312", "313"])
def test_the_locks_of_a_python_share_their_versions(python):
  base = requirements.locked(requirements.LOCKS / f"py{python}-cpu.txt")
  for name in LOCKS:
    if name.startswith(f"py{python}") and name != "py311-text.txt":
      assert base.items() <= requirements.locked(requirements.LOCKS / name).items(), name


def test_only_locks_hold_exact_versions():
  project = tomllib.loads((program.ROOT / "pyproject.toml").read_text())["project"]
  every = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
  assert len(every) > 50 and not [one for one in every if "==" in one]
  hook = (program.ROOT / ".pre-commit-config.yaml").read_text()
  ruff = requirements.locked(requirements.LOCKS / "py311-extras.txt")["ruff"]
  assert re.findall(r"ruff==([\d.]+)", hook) == [ruff, ruff]
