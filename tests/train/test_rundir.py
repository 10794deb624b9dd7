"""The directory of a run: what counts as one that has begun, and what a resume may change."""

import json
import os
import platform
import types

import jax
import pytest

import como_jax
from como_jax import config as config_lib
from como_jax import errors
from como_jax.data import policy_spec
from como_jax.train import atomic, lock, rundir
from tests.refusals import text_of

FRESH, RESUMED = {"resume": False, "overwrite": False}, {"resume": True, "overwrite": False}
ANEW = {"resume": False, "overwrite": True}


def test_a_kill_before_the_config_leaves_no_run(tmp_path, monkeypatch):
  config, work = config_lib.ConfigDict({"task": "motion"}), tmp_path / "run"
  write = atomic.write

  def killed(path, text):
    if path.name == rundir.CONFIG:
      path.with_name(f".{path.name}.new").write_text(text[:5])
      raise KeyboardInterrupt
    write(path, text)

  monkeypatch.setattr(atomic, "write", killed)
  with pytest.raises(KeyboardInterrupt):
    rundir.open_run(work, config, **FRESH)
  monkeypatch.undo()
  assert sorted(path.name for path in work.iterdir()) == [
    ".config.json.new",
    lock.LOCK,
    rundir.VERSIONS,
  ]
  with pytest.raises(errors.UserError, match="holds no run to go on with"):
    rundir.check(work, config, **RESUMED)
  rundir.open_run(work, config, **FRESH)
  assert sorted(path.name for path in work.iterdir()) == [lock.LOCK, rundir.CONFIG, rundir.VERSIONS]
  rundir.check(work, config, **RESUMED)
  with pytest.raises(errors.UserError, match="is not empty: give --resume"):
    rundir.check(work, config, **FRESH)


@pytest.mark.parametrize("name", ["thesis.txt", rundir.CONFIG, ".hidden"])
def test_what_a_kill_does_not_leave_is_left_alone(tmp_path, name):
  (tmp_path / rundir.VERSIONS).write_text("{}")
  (tmp_path / name).write_text("{}")
  with pytest.raises(errors.UserError, match="is not empty"):
    rundir.check(tmp_path, config_lib.ConfigDict({"task": "motion"}), **FRESH)


def test_what_a_resume_changes_is_printed(tmp_path, capsys):
  before = {
    "task": "motion",
    "train": {"steps": 5, "optimizer": {"learning_rate": 0.1, "b1": 0.9, "clip_norm": 0.5}},
    "data": {"workers": 0},
  }
  rundir.open_run(tmp_path / "run", config_lib.ConfigDict(before), **FRESH)
  after = {
    **before,
    "train": {"steps": 9, "optimizer": {"learning_rate": 0.01, "b1": 0.9, "clip_norm": 0.5}},
  }
  assert not capsys.readouterr().out
  rundir.open_run(tmp_path / "run", config_lib.ConfigDict(after), **RESUMED)
  assert capsys.readouterr().out.splitlines() == [
    "resume: train.optimizer.learning_rate: 0.1 before, 0.01 now",
    "resume: train.steps: 5 before, 9 now",
  ]
  after["train"] = {**after["train"], "optimizer": {**after["train"]["optimizer"], "b1": 0.5}}
  with pytest.raises(errors.UserError, match="train.optimizer.b1: 0.9 before, 0.5 now"):
    rundir.open_run(tmp_path / "run", config_lib.ConfigDict(after), **RESUMED)


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(
    errors.UserError, match="--workdir .*file/run cannot be written: Not a directory"
  ):
    rundir.open_run(tmp_path / "file" / "run", config_lib.ConfigDict({"task": "motion"}), **FRESH)


def test_what_is_refused_is_named_with_the_flag_to_give(tmp_path):
  config, run = config_lib.ConfigDict({"task": "motion"}), tmp_path / "run"
  assert (
    text_of(lambda: rundir.check(run, config, **RESUMED))
    == f"--resume: {run} holds no run to go on with"
  )
  rundir.check(run, config, **FRESH)
  rundir.check(run, config, **ANEW)
  run.write_text("")
  for flags in (FRESH, RESUMED, ANEW):
    assert (
      text_of(lambda flags=flags: rundir.check(run, config, **flags))
      == f"--workdir {run} is a file, a directory is expected"
    )
  run.unlink()
  run.mkdir()
  (run / "a").touch()
  assert text_of(lambda: rundir.check(run, config, **FRESH)) == (
    f"--workdir {run} is not empty: give --resume to go on with that run, --overwrite to delete "
    "it, or another directory"
  )
  none = (
    f"--workdir {run} holds no run of ours (no config.json and versions.json); it is left "
    "alone, choose another directory"
  )
  for name in (None, rundir.CONFIG, rundir.VERSIONS):
    if name:
      (run / name).write_text('{"task": "policy"}')
    if name != rundir.VERSIONS:
      assert (
        text_of(lambda: rundir.check(run, config, **RESUMED))
        == text_of(lambda: rundir.check(run, config, **ANEW))
        == none
      )
  (run / rundir.CONFIG).unlink()
  assert text_of(lambda: rundir.check(run, config, **ANEW)) == none
  (run / rundir.CONFIG).write_text('{"task": "policy"}')
  for flags in (RESUMED, ANEW):
    assert text_of(lambda flags=flags: rundir.check(run, config, **flags)) == (
      f"--workdir {run} holds a run of task 'policy', not 'motion'; it is left alone, choose "
      "another directory"
    )


def test_a_run_does_not_delete_what_it_reads(tmp_path):
  run, other = tmp_path / "run", tmp_path / "other"
  other.mkdir()
  rundir.open_run(run, config_lib.ConfigDict({"task": "motion"}), **FRESH)
  (run / "weights").mkdir()
  (tmp_path / "link").symlink_to(run / "weights")

  def reads(path):
    return config_lib.ConfigDict(
      {"task": "motion", "data": {"paths": ["", str(other), "no/such", path], "steps": 3}}
    )

  for path in (str(run / "weights"), str(tmp_path / "link")):
    assert text_of(lambda path=path: rundir.open_run(run, reads(path), **ANEW)) == (
      f"--overwrite would delete {path!r}, which this run reads: choose another --workdir"
    )
  assert (run / "weights").is_dir()
  # "motion" is no path here
  rundir.open_run(run, config_lib.ConfigDict({"task": "motion", "seed": 1}), **ANEW)
  assert not (run / "weights").exists() and (tmp_path / "link").is_symlink()


def test_overwriting_deletes_all_but_the_lock_and_what_links_lead_to(tmp_path):
  run, kept, config = tmp_path / "run", tmp_path / "kept", config_lib.ConfigDict({"task": "motion"})
  rundir.open_run(run, config, **FRESH)
  (kept / "inside").mkdir(parents=True)
  (run / "folder" / "deep").mkdir(parents=True)
  (run / "file").touch()
  (run / "link").symlink_to(kept)
  inode = (run / lock.LOCK).stat().st_ino
  rundir.open_run(run, config, **ANEW)
  assert (
    sorted(path.name for path in run.iterdir()) == [lock.LOCK, rundir.CONFIG, rundir.VERSIONS]
    and (kept / "inside").is_dir()
  )
  assert (run / lock.LOCK).stat().st_ino == inode


def test_what_is_written(tmp_path):
  config = config_lib.ConfigDict({"task": "motion", "b": (1, 2), "a": {"c": None}})
  run = tmp_path / "deep" / "run"
  rundir.open_run(run, config, **FRESH)
  assert (run / rundir.CONFIG).read_text() == config_lib.to_json(config)
  rundir.join(run, config, seconds=0.0)  # what the other processes wait for
  text = (run / rundir.VERSIONS).read_text()
  assert text == json.dumps(
    {"versions": rundir.versions(), "hardware": rundir.hardware()}, indent=2
  )


def test_versions_and_hardware_in_words(monkeypatch):
  assert set(rundir.versions()) - {"commit", "clean"} == {
    "como_jax",
    "python",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "av",
  }
  assert (
    rundir.versions()["jax"] == jax.__version__
    and rundir.versions()["como_jax"] == como_jax.__version__
  )
  device = jax.devices()[0]
  assert rundir.hardware() == {
    "devices": f"8 x {device.device_kind} (cpu)",
    "host": platform.platform(),
    "cores": str(os.cpu_count()),
  }


def test_a_process_waits_until_it_sees_the_directory(tmp_path, monkeypatch):
  config, run, slept = config_lib.ConfigDict({"task": "motion"}), tmp_path / "run", []
  clock = [50.0]

  def sleep(seconds):
    slept.append(seconds)
    clock[0] += 10
    if clock[0] == 70:
      run.mkdir()
      (run / rundir.CONFIG).write_text("{}")  # of an earlier run
    if clock[0] == 80:
      (run / rundir.CONFIG).write_text(config_lib.to_json(config))

  monkeypatch.setattr(
    rundir, "time", types.SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep)
  )
  rundir.join(run, config, seconds=30.0)
  assert slept == [0.1] * 3
  (run / rundir.CONFIG).write_text("{}")
  assert text_of(lambda: rundir.join(run, config)) == (
    f"--workdir {run}: process 0 has written config.json there and another process does not see "
    "it: the processes of a run need one directory on a shared file system"
  )
  assert clock[0] == 80 + 40, "half a minute, if nothing else is said"


FILES = {name: f"{name} of this run" for name in rundir.BESIDE}


def killed_at(monkeypatch, count):
  """The program dies in its count-th atomic write from now on."""
  write, done = atomic.write, []

  def dying(path, text):
    if len(done) == count:
      path.with_name(f".{path.name}.new").write_text(text[:5])
      raise KeyboardInterrupt
    done.append(path.name)
    write(path, text)

  monkeypatch.setattr(atomic, "write", dying)


@pytest.mark.parametrize("count", range(len(FILES) + 2))
def test_a_kill_leaves_a_whole_run_or_none(tmp_path, monkeypatch, count):
  config = config_lib.ConfigDict({"task": "motion"})
  with monkeypatch.context() as patched:
    killed_at(patched, count)
    with pytest.raises(KeyboardInterrupt):
      rundir.open_run(tmp_path, config, **FRESH, files=FILES)
  with pytest.raises(errors.UserError, match="holds no run to go on with"):
    rundir.check(tmp_path, config, **RESUMED)
  rundir.open_run(tmp_path, config, **FRESH, files=FILES)
  assert {name: (tmp_path / name).read_text() for name in FILES} == FILES
  rundir.check(tmp_path, config, **RESUMED)


@pytest.mark.parametrize("name", rundir.BESIDE)
def test_a_file_that_may_stand_beside_a_config_is_no_run_of_ours_alone(tmp_path, name):
  (tmp_path / name).write_text("{}")
  with pytest.raises(errors.UserError, match="is not empty"):
    rundir.check(tmp_path, config_lib.ConfigDict({"task": "motion"}), **FRESH)


@pytest.mark.parametrize("count", range(len(FILES) + 2))
def test_the_config_of_a_resumed_run_is_the_last_that_a_kill_leaves_old(
  tmp_path, monkeypatch, count
):
  before = config_lib.ConfigDict({"task": "motion", "train": {"steps": 1}})
  after = config_lib.ConfigDict({"task": "motion", "train": {"steps": 2}})
  rundir.open_run(tmp_path, before, **FRESH)
  with monkeypatch.context() as patched:
    killed_at(patched, count)
    with pytest.raises(KeyboardInterrupt):
      rundir.open_run(tmp_path, after, **RESUMED, files=FILES)
  assert (tmp_path / rundir.CONFIG).read_text() == config_lib.to_json(before)
  rundir.open_run(tmp_path, after, **RESUMED, files=FILES)
  assert (tmp_path / rundir.CONFIG).read_text() == config_lib.to_json(after)
  assert {name: (tmp_path / name).read_text() for name in FILES} == FILES


def test_the_record_of_a_policy_may_stand_beside_a_config():
  assert policy_spec.FILE in rundir.BESIDE
