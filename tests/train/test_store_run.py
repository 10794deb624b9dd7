"""The local copy of a run directory and the store."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest

from como_jax import errors, storage
from como_jax.train import store_run
from como_jax.units import folder as units
from tests import limits
from tests.storage import servers
from tests.train.test_checkpoint_store import names, save


@pytest.fixture
def address(tmp_path, monkeypatch):
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setenv("COMO_JAX_UPLOAD_SECONDS", "1000")  # at the end alone
  return f"memory://runs/{tmp_path.name}/run"


def run(address, *, resume=False):
  return store_run.opened(address, resume=resume)


def write(folder, **texts):
  for name, text in texts.items():
    path = folder / name.replace("__", "/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def text(address, name):
  return storage.read_text(f"{address}/{name}")


def test_the_store_holds_what_the_run_left(address):
  folder = storage.run_folder(address)
  with run(address):
    write(folder, config="1", metrics="a\n", weights__params="p", heartbeats__0="no")
    write(folder, **{".x.new": "no", ".lock": "no", "checkpoints__8.orbax-checkpoint-tmp__x": "no"})
    save(folder, 5)
    save(folder, 6, sealed=False)
  kept = {"config", "metrics", "weights/params", ".lock"}
  step = {
    f"checkpoints/5/{name}"
    for name in ("state/array", "data/metadata", "checksums.json", "uploaded.json")
  }
  assert set(names(address)) == kept | step
  assert json.loads(text(address, ".lock"))["released"]


def test_what_makes_a_data_set_is_copied_last_and_deleted_first(address, monkeypatch):
  folder, told = storage.run_folder(address), []
  store = storage.open_store(address)[0]
  one, other = store.write, store.remove
  monkeypatch.setattr(store, "write", lambda key, data: told.append(key) or one(key, data))
  monkeypatch.setattr(store, "remove", lambda key: told.append(key) or other(key))

  def names_told():
    found = [key.rpartition("/")[2] for key in told]
    del told[:]
    return [name for name in found if name != ".lock"]

  for last in ("manifest.json", "labels.json", "config.json"):
    files = {last.removesuffix(".json"): "", "a": "1", "z": "2"}
    with run(address, resume=True):
      for name, content in files.items():
        write(folder, **{name + ".json" * (name not in "az"): content})
      write(folder, **{"x.7.tmp": "no", f"{units.FOLDER}__staged__z": "no"})
    assert names_told() == ["a", "z", last]
    with run(address, resume=True):
      assert sorted(path.name for path in folder.iterdir() if path.is_file()) == sorted(
        ["a", "x.7.tmp", "z", last]
      )
      for name in ("a", "z", last):
        (folder / name).unlink()
    assert names_told() == [last, "a", "z"]


def test_another_machine_goes_on(address):
  folder = storage.run_folder(address)
  with run(address):
    write(folder, config="1", metrics="a\n")
    save(folder, 5)
  shutil.rmtree(folder)
  with run(address, resume=True):
    assert (folder / "metrics").read_text() == "a\n"
    assert (folder / "checkpoints/5/state/array").read_text() == "state/array of 5"
    assert not (folder / "checkpoints/5/uploaded.json").exists()
    shutil.rmtree(folder / "checkpoints/5")
    save(folder, 6)
    (folder / "config").unlink()
  assert not any(name.startswith("checkpoints/5") or name == "config" for name in names(address))
  assert "checkpoints/6/uploaded.json" in names(address)


def test_the_same_machine_downloads_nothing(address):
  folder = storage.run_folder(address)
  with run(address):
    write(folder, config="1", metrics="a" * 10_000)
    save(folder, 5)
    (folder / "checkpoints/5/state/array").write_text("a" * 10_000)
  with storage.byte_counter() as counted, run(address, resume=True):
    assert (folder / "metrics").read_text() == "a" * 10_000
  assert counted.bytes_read["memory://runs"] < 5_000  # the lock


def test_what_another_machine_wrote_since_is_brought(address, monkeypatch, tmp_path):
  folder = storage.run_folder(address)
  with run(address):
    write(folder, config="1", metrics="a\n", more="x")
    save(folder, 5)
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path / "other"))
  with run(address, resume=True):
    other = storage.run_folder(address)
    write(other, metrics="b\n")  # as long as before
    (other / "more").unlink()
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path / "cache"))
  with run(address, resume=True):
    assert (folder / "metrics").read_text() == "b\n" and not (folder / "more").exists()


def test_a_half_step_is_never_here_and_is_cleaned(address, capsys):
  folder = storage.run_folder(address)
  with run(address):
    write(folder, config="1")
    save(folder, 5)
    save(folder, 6)
  store, key = storage.open_store(address)
  store.remove(f"{key}/checkpoints/6/uploaded.json")
  for fresh in (False, True):
    if fresh:
      shutil.rmtree(folder)
    with run(address, resume=True):
      assert os.listdir(folder / "checkpoints") == ["5"]
      assert not any(name.startswith("checkpoints/6") for name in names(address))
  assert "checkpoint 6: its upload was interrupted; removed" in capsys.readouterr().out


def test_a_new_start_sees_that_the_place_is_taken_and_changes_nothing(address):
  folder = storage.run_folder(address)
  with run(address):
    write(folder, config="1", weights__params="p")
    save(folder, 5)
    save(folder, 6)
  store, key = storage.open_store(address)
  store.remove(f"{key}/checkpoints/6/uploaded.json")
  before = names(address)
  shutil.rmtree(folder)
  with pytest.raises(errors.UserError, match=f"{address} is not empty"), run(address):
    assert (folder / "config").read_text() == "1"  # what a start asks for
    assert (folder / "weights/params").exists() and (folder / "checkpoints/5").is_dir()
    raise errors.UserError(f"{folder} is not empty")
  before.pop(".lock")
  assert {name: size for name, size in names(address).items() if name != ".lock"} == before


def test_a_run_that_begins_anew_replaces_steps_of_the_same_number(address):
  folder = storage.run_folder(address)
  with run(address):
    write(folder, config="1", old="x")
    save(folder, 5)
  with run(address):  # --overwrite
    for path in folder.iterdir():
      shutil.rmtree(path) if path.is_dir() else path.unlink()
    write(folder, config="2")
    save(folder, 5)
    (folder / "checkpoints/5/state/array").write_text("new")
  assert text(address, "checkpoints/5/state/array") == "new" and text(address, "config") == "2"
  assert "old" not in names(address)


def test_files_are_copied_while_it_runs_and_before_a_step_counts(address, monkeypatch):
  monkeypatch.setenv("COMO_JAX_UPLOAD_SECONDS", "0.02")
  folder, store = storage.run_folder(address), storage.open_store(address)[0]
  write_, order, copied = store.write, [], threading.Event()

  def noted(key, data):
    order.append(key.rpartition("/run/")[2])
    write_(key, data)
    if key.endswith("uploaded.json"):
      copied.set()

  monkeypatch.setattr(store, "write", noted)
  with run(address):
    write(folder, metrics="a")
    save(folder, 5)
    assert copied.wait(60)
  assert order.index("metrics") < order.index("checkpoints/5/uploaded.json")


def test_nothing_is_left_of_a_run_that_was_refused(address):
  with pytest.raises(errors.UserError, match="refused"), run(address):
    raise errors.UserError("refused")
  assert not storage.exists(address)


def test_a_store_that_fails_at_the_end(address, monkeypatch):
  folder, store = storage.run_folder(address), storage.open_store(address)[0]
  monkeypatch.setattr(store_run, "_PAUSE", 0.0)

  def fails(key, data):
    raise errors.TransientError("the store does not answer")

  says = f"what is not in the store is in {folder}"
  with pytest.raises(errors.TransientError, match=says), run(address):
    write(folder, config="1")
    monkeypatch.setattr(store, "write", fails)


@pytest.mark.parametrize("value", ["0", "-1", "soon", "inf"])
def test_the_interval_is_checked(address, monkeypatch, value):
  monkeypatch.setenv("COMO_JAX_UPLOAD_SECONDS", value)
  says = f"COMO_JAX_UPLOAD_SECONDS={value}, expected"
  with pytest.raises(errors.UserError, match=says), run(address):
    pass
  assert not storage.exists(address)


# A run that saves two checkpoints and a line of the log for each, without a model.
PROGRAM = """
import sys
from como_jax import storage
from como_jax.train import store_run
from tests.train.test_checkpoint_store import save
address, steps, resume = sys.argv[1], sys.argv[2].split(","), sys.argv[3] == "resume"
with store_run.opened(address, resume=resume):
  folder = storage.run_folder(address)
  print("here", sorted(path.name for path in folder.glob("checkpoints/*")), flush=True)
  for step in steps:
    with (folder / "metrics.jsonl").open("a") as file:
      file.write(step + "\\n")
    save(folder, int(step))
"""


def test_a_process_killed_while_it_uploads(tmp_path, monkeypatch):
  address, root = "s3://bucket/run", pathlib.Path(__file__).parent.parent.parent
  with servers.s3() as server, servers.holding(server, "4/uploaded.json") as (slow, proxy):
    servers.make_s3_bucket(server, "bucket")
    for name, value in server.items():
      monkeypatch.setenv(name, value)

    def start(steps, flag, **changes):
      changes = {"COMO_JAX_UPLOAD_SECONDS": "0.1", "PYTHONPATH": str(root), **changes}
      command = [sys.executable, "-c", PROGRAM, address, steps, flag]
      return subprocess.Popen(
        command, env={**os.environ, **changes}, cwd=root, stdout=subprocess.PIPE, text=True
      )

    killed = start("2,4", "new", **slow, COMO_JAX_CACHE=str(tmp_path / "first"))
    assert limits.wait_until(proxy.held.is_set, while_alive=killed), killed.returncode
    killed.kill()
    killed.wait()
    left = set(names(address))
    assert "checkpoints/2/uploaded.json" in left and "checkpoints/4/uploaded.json" not in left
    assert {"checkpoints/4/state/array", "checkpoints/4/checksums.json"} <= left
    assert text(address, "metrics.jsonl") == "2\n4\n"  # the log up to the checkpoint
    resumed = start("6", "resume", COMO_JAX_CACHE=str(tmp_path / "second"))
    told = resumed.communicate()[0]
    assert resumed.returncode == 0 and "here ['2']" in told
    assert "checkpoint 4: its upload was interrupted; removed" in told
    kept = set(names(address))
    assert not any(name.startswith("checkpoints/4") for name in kept)
    assert "checkpoints/6/uploaded.json" in kept
