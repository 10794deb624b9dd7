"""What every task goes through before it begins, and what is made of its errors."""

import sys
import types

import jax
import pytest

from como_jax import config as config_lib
from como_jax import errors, storage, tasks
from como_jax.train import lock, memory, rundir


@pytest.fixture(name="run")
def _run(tmp_path, monkeypatch):
  """Runs a task on paper through `tasks.run`."""
  monkeypatch.setattr(tasks, "TASKS", ("toy", "motion"))
  monkeypatch.setattr(tasks.interrupt, "as_exception", lambda: None)

  def run(task=lambda command: 7, *, name="toy", expect="", **config):
    monkeypatch.setitem(sys.modules, "como_jax.tasks.toy", types.SimpleNamespace(run=task))
    return tasks.run(
      config_lib.CommandLine(
        config_lib.ConfigDict({"task": name, **config}),
        "toy",
        tmp_path / "run",
        resume=False,
        overwrite=False,
        expect=expect,
      )
    )

  return run


def raises(error):
  def task(command):
    raise error

  return task


def test_a_task_gives_the_exit_code_and_its_lock_back(run, tmp_path):
  held = []

  def task(command):
    rundir.open_run(command.workdir, command.config, resume=False, overwrite=False)
    held.append(set(lock._LOCKS))
    return 5

  before = set(lock._LOCKS)
  assert (
    run(task) == 5
    and held[0] - before == {(tmp_path / "run").resolve()}
    and set(lock._LOCKS) == before
  )


def test_other_devices_than_expected_are_refused_before_the_task_begins(run):
  with pytest.raises(errors.UserError, match="--expect=tpu:4, but JAX found"):
    run(raises(AssertionError), expect="tpu:4")


def test_what_is_wrong_is_the_same_in_every_process(run, monkeypatch):
  with pytest.raises(errors.SharedUserError) as caught:
    run(name="moton")
  assert (
    str(caught.value)
    == "config.task='moton' is unknown: did you mean 'motion'? (valid: motion, toy)"
  )
  for function in ("check", "places"):
    for error in (errors.UserError("bad"), errors.SharedUserError("bad")):
      with monkeypatch.context() as patch:
        patch.setattr(tasks.config_checks, function, raises(error))
        with pytest.raises(errors.SharedUserError, match="^bad$") as caught:
          run()
        assert (caught.value is error) == isinstance(error, errors.SharedUserError)
  monkeypatch.setenv("COMO_JAX_CACHE", "gs://bucket/cache")
  with pytest.raises(errors.SharedUserError, match="^COMO_JAX_CACHE"):
    run()


def test_some_tasks_run_in_one_process(run, monkeypatch):
  monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
  assert run() == 7
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(errors.SharedUserError) as caught:
    run()
  assert str(caught.value) == (
    "task 'toy' runs in one process, this is one of 2: only mae, motion, policy, extract run "
    "in several"
  )
  monkeypatch.setattr(tasks, "MULTI_PROCESS_TASKS", ("toy",))
  assert run() == 7
  monkeypatch.setattr(tasks, "MULTI_PROCESS_TASKS", ())
  monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
  assert run() == 7


def test_the_advice_for_no_memory_is_that_of_the_task(run):
  for config, advice in (({}, memory.ADVICE_ELSE), ({"train": {}}, memory.ADVICE)):
    with pytest.raises(errors.OutOfMemoryError) as caught:
      run(raises(MemoryError()), **config)
    assert str(caught.value).endswith(f": {advice}")
  with pytest.raises(
    errors.StorageError,
    match="^cannot write into .*/run: No space left on device: make room, then give --resume$",
  ):
    run(raises(OSError(28, "No space left on device")))


def test_compiled_programs_are_kept_where_nothing_else_is_said(run, monkeypatch, tmp_path):
  set_to = []
  monkeypatch.setattr(jax.config, "update", lambda *pair: set_to.append(pair))
  monkeypatch.setattr(tasks.pathlib.Path, "home", lambda: tmp_path)
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
  run()
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
  run()
  assert set_to == [("jax_compilation_cache_dir", str(tmp_path / ".cache" / "como_jax" / "xla"))]


def test_flags_count_as_parsed_and_ctrl_c_is_an_exception(run, monkeypatch):
  told = []
  fake = types.SimpleNamespace(
    is_parsed=lambda: bool(told), mark_as_parsed=lambda: told.append("flags")
  )
  monkeypatch.setattr(tasks.flags, "FLAGS", fake)
  monkeypatch.setattr(tasks.interrupt, "as_exception", lambda: told.append("interrupt"))
  run()
  run()
  assert told == ["flags", "interrupt", "interrupt"]


def in_store(task, address, **more):
  return config_lib.CommandLine(
    config_lib.ConfigDict({"task": "toy"}),
    "toy",
    storage.run_folder(address),
    address=address,
    **{"resume": False, "overwrite": False, **more},
  )


def test_a_run_directory_in_a_store(run, tmp_path, monkeypatch):
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path))
  address = "memory://tasks/run"

  def task(command):
    flags = {"resume": command.resume, "overwrite": command.overwrite}
    rundir.open_run(command.workdir, command.config, **flags)
    return 5

  run()  # the toy task is there
  monkeypatch.setattr(sys.modules["como_jax.tasks.toy"], "run", task)
  assert tasks.run(in_store(task, address)) == 5
  assert storage.listdir(address) == [".lock", "config.json", "versions.json"]
  with pytest.raises(errors.UserError, match=f"--workdir {address} is not empty: give --resume"):
    tasks.run(in_store(task, address))
  assert tasks.run(in_store(task, address, resume=True)) == 5
  with pytest.raises(errors.UserError, match="--resume: memory://tasks/none holds no run"):
    tasks.run(in_store(task, "memory://tasks/none", resume=True))
  assert not storage.exists("memory://tasks/none")


def test_several_processes_need_a_shared_file_system(run, tmp_path, monkeypatch):
  run()
  monkeypatch.setattr(tasks.jax.distributed, "is_initialized", lambda: True)
  monkeypatch.setattr(tasks.jax, "process_count", lambda: 2)
  monkeypatch.setattr(tasks, "MULTI_PROCESS_TASKS", ("toy",))
  with pytest.raises(errors.SharedUserError, match="a run of 2 processes needs a directory on a"):
    tasks.run(in_store(None, "s3://bucket/run"))


@pytest.mark.parametrize("key, value", [("shared", True), ("runner", "beam")])
def test_independent_processes_need_a_shared_file_system(run, key, value):
  run()  # the toy task is there
  command = in_store(None, "s3://bucket/run")
  command.config[key] = value
  line = f"^--workdir=s3://bucket/run: processes of config.{key} need a directory on a shared file"
  with pytest.raises(errors.UserError, match=line):
    tasks.run(command)
