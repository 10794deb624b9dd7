"""An installation holds every module, config and asset of the clone."""

import pathlib
import runpy
import warnings

import setuptools
from setuptools.dist import Distribution

ROOT = pathlib.Path(__file__).parent.parent


def test_everything_is_installed(monkeypatch, tmp_path):
  given: dict = {}
  monkeypatch.chdir(ROOT)
  monkeypatch.setattr(setuptools, "setup", given.update)
  runpy.run_path("setup.py")
  distribution = Distribution(given | {"script_name": "setup.py"})
  distribution.parse_config_files()  # pyproject.toml
  assert distribution.metadata.name == "como-jax" and any(
    text.startswith("jax<") for text in distribution.install_requires
  )
  assert distribution.entry_points["console_scripts"] == ["como-jax = como_jax.cli:command"]
  distribution.get_command_obj("egg_info").egg_base = str(tmp_path)
  build = distribution.get_command_obj("build_py")
  build.build_lib = str(tmp_path)
  build.ensure_finalized()
  # their class is one that test processes cannot hand to each other
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    outputs = build.get_outputs(include_bytecode=False)
  installed = {str(pathlib.Path(path).relative_to(tmp_path)) for path in outputs}
  wanted = {
    str(path.relative_to(ROOT))
    for path in (ROOT / "como_jax").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
  }
  wanted |= {f"como_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
  assert len(wanted) > 130 and installed == wanted, installed ^ wanted
