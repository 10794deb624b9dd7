"""The program as far as its tasks, which are not begun."""

import importlib
import types

import pytest

from como_jax import main


@pytest.fixture(name="ends")
def ends_fixture(tmp_path, capsys, monkeypatch):
  """Runs the program with words; returns its line of error, or None when it began with the task."""
  monkeypatch.setenv("NO_GCE_CHECK", "true")  # no search for a cloud around this machine
  begun = []
  real = importlib.import_module

  def imported(name, *more):
    return (
      types.SimpleNamespace(run=lambda command: begun.append(name) or 0)
      if name.startswith("como_jax.tasks.")
      else real(name, *more)
    )

  monkeypatch.setattr(importlib, "import_module", imported)

  def ends(*words):
    begun.clear()
    code = main.main(["main", f"--workdir={tmp_path / 'run'}", *words])
    lines = capsys.readouterr().err.strip().splitlines()
    assert not list(tmp_path.iterdir()), f"{words}: something was written"
    if begun:
      return None
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: "), (words, lines)
    return lines[0]

  return ends
