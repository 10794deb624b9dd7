"""What a run writes down at its start: the commit that it is of, and its parameters."""

import subprocess

import jax.numpy as jnp
import pytest

import como_jax
from como_jax.train import rundir

NOWHERE = {"commit": None, "clean": None}


@pytest.fixture(name="checkout")
def _checkout(tmp_path):
  """A repository that holds a program, committed."""
  root = tmp_path / "a checkout"
  (root / "como_jax").mkdir(parents=True)
  (root / "configs").mkdir()
  (root / "como_jax" / "main.py").write_text("1\n")
  git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b"]
  subprocess.run(["git", "init", "--quiet", str(root)], check=True)
  subprocess.run([*git, "add", "."], check=True)
  subprocess.run([*git, "commit", "--quiet", "--no-gpg-sign", "-m", "first"], check=True)
  return root


def test_a_checkout_has_a_commit_and_says_whether_it_was_changed(checkout):
  head = subprocess.run(
    ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
  ).stdout.strip()
  assert len(head) == 40 and rundir.commit(checkout) == {"commit": head, "clean": True}
  (checkout / "runs").mkdir()
  (checkout / "runs" / "log").write_text("of a run")
  assert rundir.commit(checkout)["clean"] is True, "what a run writes is not the program"
  new = checkout / "configs" / "mine.py"
  new.write_text("")
  assert rundir.commit(checkout) == {"commit": head, "clean": False}
  new.unlink()
  (checkout / "como_jax" / "main.py").write_text("2\n")
  assert rundir.commit(checkout) == {"commit": head, "clean": False}


def test_an_installed_wheel_has_none_even_inside_a_checkout(checkout, tmp_path):
  installed = checkout / ".venv" / "site-packages"
  installed.mkdir(parents=True)
  assert rundir.commit(installed) == NOWHERE
  assert rundir.commit(tmp_path) == NOWHERE


def test_without_git_there_is_none(checkout, monkeypatch):
  monkeypatch.setenv("PATH", "")
  assert rundir.commit(checkout) == NOWHERE


def test_versions_hold_it(monkeypatch, tmp_path):
  monkeypatch.setattr(como_jax, "__file__", str(tmp_path / "como_jax" / "__init__.py"))
  assert NOWHERE.items() <= rundir.versions().items()
  asked = []
  monkeypatch.setattr(rundir, "commit", lambda root: asked.append(root) or {"commit": "c"})
  assert rundir.versions()["commit"] == "c" and asked == [tmp_path]


def test_a_table_of_the_parameters(tmp_path):
  params = {"encoder": {"kernel": jnp.zeros((3, 4), jnp.bfloat16)}, "bias": jnp.zeros(5)}
  rundir.write_parameters(tmp_path, params)
  lines = (tmp_path / "parameters.txt").read_text().splitlines()
  rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[0] == "|"]
  assert rows[1:] == [
    ["bias", "(5,)", "float32", "5"],
    ["encoder/kernel", "(3, 4)", "bfloat16", "12"],
  ]
  assert lines[-1] == "Total: 17 -- 44 bytes"
