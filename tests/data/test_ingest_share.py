"""Processes that share an ingest end with the bytes of one process, whatever happens to them."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from como_jax.data import ingest_share
from tests import limits
from tests.data import shared_ingest
from tests.end_to_end import program


def content(folder):
  return {
    path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir() if path.name != ".lock"
  }


@pytest.fixture(name="alone", scope="module")
def _alone(tmp_path_factory):
  """What one process writes."""
  folder = tmp_path_factory.mktemp("alone") / "out"
  shared_ingest.write(shared_ingest.Held(), folder, workers=0)
  return content(folder)


@pytest.fixture(name="start")
def _start(tmp_path):
  """Starts a process of a name; ends all that are left."""
  begun = []

  def start(name, *, hold=None, workers=0):
    if hold is not None:
      (tmp_path / f"hold-{name}-{hold}").touch()
    words = [sys.executable, "-m", "tests.data.shared_ingest", name, str(tmp_path), str(workers)]
    process = subprocess.Popen(words, cwd=program.ROOT, env=program.environment())
    begun.append(process)
    if hold is not None:
      at = tmp_path / f"at-{name}-{hold}"
      assert limits.wait_until(at.exists, while_alive=process)
    return process

  yield start
  for process in begun:
    if process.poll() is None:
      process.kill()
      process.wait()


def test_one_is_killed_one_is_stopped_one_comes_late(alone, tmp_path, start):
  killed = start("killed", hold=1)  # in the middle of shard 0
  stopped = start("stopped", hold=3)  # of shard 1
  killed.kill()
  killed.wait()
  stopped.send_signal(signal.SIGSTOP)
  late = start("late")
  assert late.wait(limits.SAFETY_NET) == 0
  assert {path.name for path in tmp_path.glob("at-late-*")} == {f"at-late-{i}" for i in range(7)}
  assert content(tmp_path / "out") == alone
  (tmp_path / "hold-stopped-3").unlink()
  stopped.send_signal(signal.SIGCONT)
  assert stopped.wait(limits.SAFETY_NET) == 0
  assert content(tmp_path / "out") == alone


@pytest.mark.slow
def test_three_share_the_work_with_workers_of_their_own(alone, tmp_path, start):
  for process in [start(name, workers=2) for name in "abc"]:
    assert process.wait(limits.SAFETY_NET) == 0
  assert content(tmp_path / "out") == alone


def test_a_woken_process_does_not_publish_before_the_others_are_done(alone, tmp_path, start):
  """The others are still at work when it wakes: its files are there, and are not moved."""
  stopped = start("stopped", hold=1)
  stopped.send_signal(signal.SIGSTOP)
  other = start("other", hold=6)  # the last shard: the first one comes after it
  (tmp_path / "hold-other-0").touch()
  (tmp_path / "hold-other-6").unlink()
  assert limits.wait_until((tmp_path / "at-other-0").exists, while_alive=other)
  (tmp_path / "hold-stopped-1").unlink()
  stopped.send_signal(signal.SIGCONT)
  staged = tmp_path / "out" / ".units"
  assert limits.wait_until(lambda: not list(staged.glob("*/shard-00000.shard")))
  assert not ingest_share.is_done(str(tmp_path / "out"), 0)
  (tmp_path / "hold-other-0").unlink()
  assert [other.wait(limits.SAFETY_NET), stopped.wait(limits.SAFETY_NET)] == [0, 0]
  assert content(tmp_path / "out") == alone


def test_the_manifest_is_written_by_others_while_the_writer_is_stopped(
  alone, tmp_path, monkeypatch
):
  """It wakes up, and its staging folder is gone; another error is an error."""
  out = tmp_path / "out"

  def stopped(*given, into, **more):
    shutil.rmtree(out / ".units")
    (out / "manifest.json").write_bytes(alone["manifest.json"])
    raise FileNotFoundError(into)

  monkeypatch.setattr(ingest_share.ingest_manifest, "write", stopped)
  summary = shared_ingest.write(shared_ingest.Held(), out, workers=0)
  assert summary.manifest == json.loads(alone["manifest.json"])

  def broken(*given, **more):
    raise FileNotFoundError("a shard")

  (out / "manifest.json").unlink()
  monkeypatch.setattr(ingest_share.ingest_manifest, "write", broken)
  with pytest.raises(FileNotFoundError, match="a shard"):
    shared_ingest.write(shared_ingest.Held(), out, workers=0)


def test_a_shard_is_done_when_its_files_are_there(tmp_path):
  folder = str(tmp_path)
  assert not ingest_share.is_done(folder, 2)
  sidecar = tmp_path / "shard-00002.json"
  sidecar.write_text('{"file": "shard-00002.shard"}')
  assert not ingest_share.is_done(folder, 2)
  (tmp_path / "shard-00002.shard").touch()
  assert ingest_share.is_done(folder, 2)
  os.remove(tmp_path / "shard-00002.shard")
  sidecar.write_text('{"file": null}')  # all of its episodes are in quarantine
  assert ingest_share.is_done(folder, 2)
  ingest_share.remove_torn(folder, 2)
  assert ingest_share.is_done(folder, 2)
  sidecar.write_text('{"file"')
  assert not ingest_share.is_done(folder, 2)
  ingest_share.remove_torn(folder, 2)
  assert not sidecar.exists()
