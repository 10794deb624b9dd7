"""The directory of a run: what counts as one that has begun, what a resume may change, and that one live run owns it."""

import signal
import subprocess
import sys

import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.train import files, rundir

FRESH, RESUMED = {"resume": False, "overwrite": False}, {"resume": True, "overwrite": False}
ANEW = {"resume": False, "overwrite": True}


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
  assert sorted(path.name for path in work.iterdir()) == [".config.json.new", rundir.LOCK, rundir.VERSIONS]
  with pytest.raises(errors.UserError, match="holds no run to go on with"):
    rundir.check(work, config, **RESUMED)
  rundir.open_run(work, config, **FRESH)
  assert sorted(path.name for path in work.iterdir()) == [rundir.LOCK, rundir.CONFIG, rundir.VERSIONS]
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


def test_what_a_resume_changes_is_printed(tmp_path, capsys):
  before = {"task": "motion", "train": {"steps": 5, "optimizer": {"learning_rate": 0.1, "b1": 0.9, "clip_norm": 0.5}}, "data": {"workers": 0}}
  rundir.open_run(tmp_path / "run", config_lib.ConfigDict(before), **FRESH)
  after = {**before, "train": {"steps": 9, "optimizer": {"learning_rate": 0.01, "b1": 0.9, "clip_norm": 0.5}}}
  assert not capsys.readouterr().out
  rundir.open_run(tmp_path / "run", config_lib.ConfigDict(after), **RESUMED)
  assert capsys.readouterr().out.splitlines() == ["resume: train.optimizer.learning_rate: 0.1 before, 0.01 now", "resume: train.steps: 5 before, 9 now"]
  after["train"] = {**after["train"], "optimizer": {**after["train"]["optimizer"], "b1": 0.5}}
  with pytest.raises(errors.UserError, match="train.optimizer.b1: 0.9 before, 0.5 now"):
    rundir.open_run(tmp_path / "run", config_lib.ConfigDict(after), **RESUMED)


def test_a_key_is_free_by_its_whole_name(tmp_path):
  rundir.open_run(tmp_path / "run", config_lib.ConfigDict({"task": "x", "train": {"steps_between": 1}}), **FRESH)
  with pytest.raises(errors.UserError, match="train.steps_between: 1 before, 2 now"):
    rundir.open_run(tmp_path / "run", config_lib.ConfigDict({"task": "x", "train": {"steps_between": 2}}), **RESUMED)


@pytest.fixture(name="live")
def live_fixture(tmp_path):
  """A run directory that another process owns, and that process."""
  run = tmp_path / "run"
  with rundir.owning():
    rundir.open_run(run, config_lib.ConfigDict({"task": "motion"}), **FRESH)
  (run / "metrics.jsonl").write_text("precious")
  code = ("import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
          "file.truncate(); file.write('process 7 on there\\n'); file.flush(); print('has it', flush=True); sys.stdin.read()")
  owner = subprocess.Popen([sys.executable, "-S", "-c", code, str(run / rundir.LOCK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
  assert owner.stdout.readline() == "has it\n"
  yield run, owner
  owner.kill()
  owner.communicate()


@pytest.mark.parametrize("flags", [RESUMED, ANEW], ids=["resume", "overwrite"])
def test_a_live_run_has_one_owner(live, flags):
  run, owner = live
  config = config_lib.ConfigDict({"task": "motion"})
  before = {path: path.read_bytes() for path in run.iterdir()}
  for function in (rundir.check, rundir.open_run):
    with pytest.raises(errors.UserError, match=r"run is in use by a live run \(process 7 on there\): .*nothing was changed"):
      function(run, config, **flags)
  assert {path: path.read_bytes() for path in run.iterdir()} == before
  owner.send_signal(signal.SIGKILL)
  owner.wait()
  with rundir.owning():
    rundir.open_run(run, config, **flags)  # the lock died with it
    assert (run / "metrics.jsonl").exists() == flags["resume"]


def test_the_lock_is_held_until_the_task_ends(tmp_path):
  run, config = tmp_path / "run", config_lib.ConfigDict({"task": "motion"})
  probe = [sys.executable, "-S", "-c", "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)", str(run / rundir.LOCK)]
  with rundir.owning():
    rundir.open_run(run, config, **FRESH)
    rundir.open_run(run, config, **ANEW)  # its own
    assert subprocess.run(probe, capture_output=True).returncode
  assert subprocess.run(probe, capture_output=True).returncode == 0 and (run / rundir.LOCK).read_bytes() == b""


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="--workdir .*file/run cannot be written: Not a directory"):
    rundir.open_run(tmp_path / "file" / "run", config_lib.ConfigDict({"task": "motion"}), **FRESH)
