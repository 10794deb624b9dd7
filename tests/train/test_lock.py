"""The lock of a run directory: one live run owns it, and says who it is."""

import fcntl
import os
import platform
import re
import signal
import subprocess
import sys

import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.train import lock, rundir
from tests.refusals import text_of

FRESH, RESUMED = {"resume": False, "overwrite": False}, {"resume": True, "overwrite": False}
ANEW = {"resume": False, "overwrite": True}


@pytest.fixture(name="live")
def live_fixture(tmp_path):
  """A run directory that another process owns, and that process."""
  run = tmp_path / "run"
  with lock.owning():
    rundir.open_run(run, config_lib.ConfigDict({"task": "motion"}), **FRESH)
  (run / "metrics.jsonl").write_text("precious")
  code = (
    "import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.flock(file, fcntl.LOCK_EX | "
    "fcntl.LOCK_NB)\nfile.truncate(); file.write('process 7 on there\\n'); file.flush(); "
    "print('has it', flush=True); sys.stdin.read()"
  )
  owner = subprocess.Popen(
    [sys.executable, "-S", "-c", code, str(run / lock.LOCK)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
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
    with pytest.raises(
      errors.UserError,
      match=r"run is in use by a live run \(process 7 on there\): .*nothing was changed",
    ):
      function(run, config, **flags)
  assert {path: path.read_bytes() for path in run.iterdir()} == before
  owner.send_signal(signal.SIGKILL)
  owner.wait()
  with lock.owning():
    rundir.open_run(run, config, **flags)  # the lock died with it
    assert (run / "metrics.jsonl").exists() == flags["resume"]


def test_the_lock_is_held_until_the_task_ends(tmp_path):
  run, config = tmp_path / "run", config_lib.ConfigDict({"task": "motion"})
  probe = [
    sys.executable,
    "-S",
    "-c",
    "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)",
    str(run / lock.LOCK),
  ]
  with lock.owning():
    rundir.open_run(run, config, **FRESH)
    rundir.open_run(run, config, **ANEW)  # its own
    assert subprocess.run(probe, capture_output=True).returncode
  assert (
    subprocess.run(probe, capture_output=True).returncode == 0
    and (run / lock.LOCK).read_bytes() == b""
  )


def test_the_owner_says_who_it_is(tmp_path):
  with lock.owning():
    rundir.open_run(tmp_path, config_lib.ConfigDict({"task": "motion"}), **FRESH)
    said = (tmp_path / lock.LOCK).read_text()
    rundir.open_run(tmp_path, config_lib.ConfigDict({"task": "motion"}), **RESUMED)
    assert (tmp_path / lock.LOCK).read_text() == said, "its own, taken once"
    with lock.owning():
      pass  # nothing was opened in here
    assert (tmp_path / lock.LOCK).read_text() == said
  assert re.fullmatch(
    rf"process {os.getpid()} on {re.escape(platform.node())} since \d{{4}}-\d\d-\d\d "
    r"\d\d:\d\d:\d\d\n",
    said,
  )
  assert (tmp_path / lock.LOCK).stat().st_mode & 0o777 == 0o644
  (tmp_path / lock.LOCK).write_text("x" * 5000)  # a shorter line replaces a longer one
  with lock.owning():
    rundir.open_run(tmp_path, config_lib.ConfigDict({"task": "motion"}), **RESUMED)
    assert (tmp_path / lock.LOCK).read_text().startswith("process ") and "x" * 10 not in (
      tmp_path / lock.LOCK
    ).read_text()


def test_an_owner_that_does_not_say_who_it_is(tmp_path):
  config, run = config_lib.ConfigDict({"task": "motion"}), tmp_path / "run"
  with lock.owning():
    rundir.open_run(run, config, **FRESH)
  number = os.open(run / lock.LOCK, os.O_RDWR)
  fcntl.flock(number, fcntl.LOCK_EX)  # a file opened twice has two locks, also in one process
  try:
    for flags in (RESUMED, ANEW):
      assert text_of(lambda flags=flags: rundir.check(run, config, **flags)) == (
        f"--workdir {run} is in use by a live run: wait for it or end it; nothing was changed"
      )
    os.write(number, b"\xff " + b"y" * 300)
    assert f"({chr(0xFFFD)} {'y' * 198})" in text_of(lambda: rundir.check(run, config, **RESUMED))
  finally:
    os.close(number)
  rundir.check(run, config, **RESUMED)
  assert (run / lock.LOCK).read_bytes().endswith(b"y" * 300), "looking does not take it"


def open_files():
  return len(os.listdir("/proc/self/fd"))


def test_a_file_system_without_locks_is_said_when_a_run_is_opened(tmp_path, monkeypatch, capsys):
  def fails(file, how):
    raise OSError(95, "Operation not supported")

  config, run = config_lib.ConfigDict({"task": "motion"}), tmp_path.resolve() / "run"
  monkeypatch.setattr(lock.fcntl, "flock", fails)
  before = open_files()
  rundir.open_run(run, config, **FRESH)
  note = (
    f"note: {run} cannot be locked (Operation not supported): do not start a second run there\n"
  )
  assert capsys.readouterr().out == note
  rundir.check(run, config, **RESUMED)
  assert capsys.readouterr().out == "" and open_files() == before


def test_looking_at_a_directory_leaves_no_file_open(tmp_path):
  config, run = config_lib.ConfigDict({"task": "motion"}), tmp_path / "run"
  before = open_files()
  with lock.owning():
    rundir.open_run(run, config, **FRESH)
    assert open_files() == before + 1
  assert open_files() == before
  for flags in (RESUMED, ANEW):
    rundir.check(run, config, **flags)
  (run / lock.LOCK).unlink()
  rundir.check(run, config, **RESUMED)  # of a version that had none
  assert open_files() == before and not (run / lock.LOCK).exists()
  (tmp_path / "elsewhere").touch()
  (run / lock.LOCK).symlink_to(tmp_path / "elsewhere")
  assert "--workdir" in text_of(lambda: rundir.open_run(run, config, **RESUMED)), (
    "a lock that leads elsewhere is not followed"
  )
