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


def test_a_resumed_run_may_change_how_it_is_computed_and_not_what(tmp_path):
  before = {
    "task": "motion",
    "model": {"attention_kernel": "auto", "dtype": "float32"},
    "data": {"workers": 0},
    "seed": 0,
  }
  rundir.open_run(tmp_path / "run", config_lib.ConfigDict(before), **FRESH)
  old = dict(before, model={"dtype": "float32"})  # written before there was a choice of kernels
  rundir.open_run(tmp_path / "run", config_lib.ConfigDict(old), **RESUMED)
  rundir.open_run(
    tmp_path / "run", config_lib.ConfigDict(dict(before, data={"workers": 2})), **RESUMED
  )
  with pytest.raises(errors.UserError, match="seed: 0 before, 1 now"):
    rundir.open_run(tmp_path / "run", config_lib.ConfigDict(dict(before, seed=1)), **RESUMED)


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


def test_a_key_is_free_by_its_whole_name(tmp_path):
  rundir.open_run(
    tmp_path / "run", config_lib.ConfigDict({"task": "x", "train": {"steps_between": 1}}), **FRESH
  )
  with pytest.raises(errors.UserError, match="train.steps_between: 1 before, 2 now"):
    rundir.open_run(
      tmp_path / "run",
      config_lib.ConfigDict({"task": "x", "train": {"steps_between": 2}}),
      **RESUMED,
    )


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


def test_five_of_the_keys_that_must_not_change_are_named(tmp_path):
  before = {"task": "motion", **{f"key{i}": i for i in range(7)}}
  rundir.open_run(tmp_path, config_lib.ConfigDict(before), **FRESH)
  after = {"task": "motion", **{f"key{i}": i + 10 for i in range(7)}}
  listed = "; ".join(f"key{i}: {i} before, {i + 10} now" for i in range(5))
  assert (
    text_of(lambda: rundir.changes(tmp_path, config_lib.ConfigDict(after)))
    == f"--resume: the config is not the one {tmp_path} was started with: {listed}"
  )
  assert rundir.changes(tmp_path, config_lib.ConfigDict(dict(before, lerobot="x"))) == {
    "lerobot": (None, "x")
  }
  for section in ("train", "mesh"):
    assert section in text_of(
      lambda section=section: rundir.changes(
        tmp_path, config_lib.ConfigDict(dict(before, **{section: 3}))
      )
    )


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


def test_a_run_of_before_there_was_a_key_goes_on_where_it_is_off(tmp_path):
  before = {"task": "motion", "model": {"idm": {"width": 4}}, "seed": 0}
  rundir.open_run(tmp_path, config_lib.ConfigDict(before), **FRESH)

  def with_key(value):
    return config_lib.ConfigDict(dict(before, model={"idm": {"width": 4, "components": value}}))

  assert rundir.changes(tmp_path, with_key(0)) == {}
  with pytest.raises(errors.UserError, match="model.idm.components: None before, 32 now"):
    rundir.changes(tmp_path, with_key(32))
  old = dict(before, train={}, objectives={"contrastive": {"weight": 1.0}}, data={"source": {}})
  (tmp_path / rundir.CONFIG).write_text(config_lib.to_json(old))
  every = config_lib.ConfigDict(json.loads(config_lib.to_json(old)))
  for key, value in rundir.SINCE.items():
    *sections, last = key.split(".")
    node = every
    for section in sections:
      node = node[section]
    node[last] = value
  assert rundir.changes(tmp_path, every) == {}
  small = set(
    config_lib.differences({}, json.loads(config_lib.to_json(config_lib.load("motion")[0])))
  )
  assert {key for key in small if "components" in key} <= set(rundir.SINCE), (
    "a run of before resumes"
  )
  (tmp_path / rundir.CONFIG).write_text(config_lib.to_json(with_key(32)))
  with pytest.raises(errors.UserError, match="model.idm.components: 32 before, 0 now"):
    rundir.changes(tmp_path, with_key(0))
