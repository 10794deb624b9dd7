"""The directory of a run: what counts as one that has begun."""

import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.train import files, rundir

FRESH, RESUMED = {"resume": False, "overwrite": False}, {"resume": True, "overwrite": False}


def test_a_kill_before_the_config_leaves_no_run(tmp_path, monkeypatch):
  config, work = config_lib.ConfigDict({"task": "motion"}), tmp_path / "run"
  write = files.write

  def killed(path, text):
    if path.name == rundir.CONFIG:
      path.with_name(f".{path.name}.new").write_text(text[:5])
      raise KeyboardInterrupt
    write(path, text)

  monkeypatch.setattr(files, "write", killed)
  with pytest.raises(KeyboardInterrupt):
    rundir.open_run(work, config, **FRESH)
  monkeypatch.undo()
  assert sorted(path.name for path in work.iterdir()) == [".config.json.new", rundir.VERSIONS]
  with pytest.raises(errors.UserError, match="holds no run to go on with"):
    rundir.check(work, config, **RESUMED)
  rundir.open_run(work, config, **FRESH)
  assert sorted(path.name for path in work.iterdir()) == [rundir.CONFIG, rundir.VERSIONS]
  rundir.check(work, config, **RESUMED)
  with pytest.raises(errors.UserError, match="is not empty: give --resume"):
    rundir.check(work, config, **FRESH)


@pytest.mark.parametrize("name", ["thesis.txt", rundir.CONFIG, ".hidden"])
def test_what_a_kill_does_not_leave_is_left_alone(tmp_path, name):
  (tmp_path / rundir.VERSIONS).write_text("{}")
  (tmp_path / name).write_text("{}")
  with pytest.raises(errors.UserError, match="is not empty"):
    rundir.check(tmp_path, config_lib.ConfigDict({"task": "motion"}), **FRESH)


def test_a_resumed_run_may_change_how_it_is_computed_and_not_what(tmp_path):
  before = {"task": "motion", "model": {"attention_kernel": "auto", "dtype": "float32"}, "data": {"workers": 0}, "seed": 0}
  rundir.open_run(tmp_path / "run", config_lib.ConfigDict(before), **FRESH)
  old = dict(before, model={"dtype": "float32"})  # written before there was a choice of kernels
  rundir.open_run(tmp_path / "run", config_lib.ConfigDict(old), **RESUMED)
  rundir.open_run(tmp_path / "run", config_lib.ConfigDict(dict(before, data={"workers": 2})), **RESUMED)
  with pytest.raises(errors.UserError, match="seed: 0 before, 1 now"):
    rundir.open_run(tmp_path / "run", config_lib.ConfigDict(dict(before, seed=1)), **RESUMED)
