"""Independent processes share the labeling of a data set, whatever happens to them."""

import shutil
import signal
import subprocess
import sys

import pytest

from como_jax import errors
from como_jax.data import labels
from como_jax.inference import label_parts, label_run, label_shared, labeling
from como_jax.tasks import extract
from como_jax.units import folder as units
from tests import limits
from tests.data import makers
from tests.end_to_end import program
from tests.tasks.small_labels import CONFIG, Noise, command, content, model_folder, run

SHARED = "--config.shared=True"
WORDS = (SHARED, "--config.lease_seconds=1.0")


@pytest.fixture(name="words", scope="module")
def _words(tmp_path_factory):
  """(Checkpoint, words of the command line) for 5 shards of two parts."""
  folder = tmp_path_factory.mktemp("shared")
  data = makers.shards(
    folder / "s", source=Noise((18,) * 10, cameras=("a",)), clip_frames=8, episodes_per_shard=2
  )
  return model_folder(folder / "m", data), *WORDS


@pytest.fixture(name="alone", scope="module")
def _alone(words, tmp_path_factory):
  """What one process writes; in parts of 16 frames."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(label_parts, "PART_BATCHES", 2)
    return content(run(tmp_path_factory.mktemp("alone") / "l", *words))


def test_one_process_writes_what_it_writes_alone(words, alone, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(label_parts, "PART_BATCHES", 2)
  plain = content(run(tmp_path / "plain", words[0]))
  names = {"config.json"}  # it says that it is shared
  assert {name: text for name, text in alone.items() if name not in names} == {
    name: text for name, text in plain.items() if name not in names
  }
  assert labels.verify(str(tmp_path / "plain")) == []


def test_it_goes_on_where_others_stopped(words, alone, tmp_path, monkeypatch, capsys):
  """A process that is gone has left a lease, a part and a torn file."""
  monkeypatch.setattr(label_parts, "PART_BATCHES", 2)
  cut, once, labeled = tmp_path / "cut", labeling.label, []

  def label(part, *rest):
    if len(labeled) == 3:  # in the second part of shard 1
      raise KeyboardInterrupt
    labeled.append((part.shard, part.frames))
    return once(part, *rest)

  monkeypatch.setattr(labeling, "label", label)
  with pytest.raises(KeyboardInterrupt):
    run(cut, *words)
  assert [shard for shard, _ in labeled] == [0, 0, 1]
  assert sorted(path.name for path in (cut / units.FOLDER).glob("*.npz")) == [
    "labels-00001.part-00000.npz"
  ]
  file = cut / labels.file_name(0)
  file.write_bytes(file.read_bytes()[:-1])
  (cut / "labels-00004.labels.99.tmp").write_bytes(b"half")
  monkeypatch.setattr(labeling, "label", lambda *given: labeled.append(given[0]) or once(*given))
  del labeled[:]
  run(cut, *words)
  assert content(cut) == alone
  assert [part.shard for part in labeled] == [0, 0, 1, 2, 2, 3, 3, 4, 4], "one part was there"
  assert "5 of 5 shards to label together with other processes" in capsys.readouterr().out
  del labeled[:]
  run(cut, *words)
  assert content(cut) == alone and not labeled


def test_labels_are_finished_by_others_while_a_process_is_stopped(
  words, alone, tmp_path, monkeypatch
):
  """It wakes up in a shard, or in the manifest, and its folder is gone; another error is one."""
  monkeypatch.setattr(label_parts, "PART_BATCHES", 2)
  for module, name in ((labeling, "write"), (label_run, "write_manifest")):
    out = tmp_path / name

    def stopped(*given, out=out, **more):
      shutil.rmtree(out / units.FOLDER)
      for file, text in alone.items():
        (out / file).write_bytes(text)
      raise FileNotFoundError(given[0])

    with monkeypatch.context() as patch:
      patch.setattr(module, name, stopped)
      assert content(run(out, *words)) == alone

    def broken(*given, **more):
      raise FileNotFoundError("a file")

    (out / labels.MANIFEST).unlink()
    (out / "labels-00001.json").unlink()
    with monkeypatch.context() as patch, pytest.raises(FileNotFoundError, match="a file"):
      patch.setattr(module, name, broken)
      run(out, *words)


def test_what_cannot_be_shared_is_refused(words, tmp_path, monkeypatch):
  checkpoint, *rest = words
  given = [f"--config.checkpoint={checkpoint}", *rest]
  for flags, message in (
    (["--overwrite"], "config.shared and config.runner: .*so --overwrite is not for them"),
    (["--config.lerobot=OUT"], "config.lerobot is written by one process"),
  ):
    with pytest.raises(errors.UserError, match=message):
      extract.run(command(tmp_path / "l", *given, *flags))
  assert not (tmp_path / "l").exists()
  config = command(tmp_path / "l", *given).config
  label_shared.open_workdir(tmp_path / "l", config)
  label_shared.open_workdir(tmp_path / "l", config)  # joins
  for changed, message in (
    ({"offset_seconds": 0.7}, "offset_seconds: None before, 0.7 now"),
    ({"task": "probe"}, "holds a run of task 'extract', not 'probe'"),
  ):
    other = config.copy_and_resolve_references()
    other.update(changed)
    with pytest.raises(errors.UserError, match=message):
      label_shared.open_workdir(tmp_path / "l", other)
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "thesis.txt").touch()
  with pytest.raises(errors.UserError, match="mine is not empty"):
    label_shared.open_workdir(tmp_path / "mine", config)


@pytest.mark.slow
def test_one_is_killed_one_is_stopped_one_comes_late(words, tmp_path):
  checkpoint, *rest = words
  given = [f"--config={CONFIG}", *rest, f"--config.checkpoint={checkpoint}"]
  given += ["--config.batch_size=8", "--config.data.threads=2"]
  begun = []

  def start(name, *, hold=None, out="out"):
    if hold:
      (tmp_path / f"hold-{name}-{hold}").touch()
    module = [sys.executable, "-m", "tests.tasks.shared_labels", name, str(tmp_path)]
    process = subprocess.Popen(
      [*module, *given, f"--workdir={tmp_path / out}"], cwd=program.ROOT, env=program.environment()
    )
    begun.append(process)
    if hold:
      at = tmp_path / f"at-{name}-{hold}"
      assert limits.wait_until(at.exists, while_alive=process)
    return process

  try:
    # of one device, unlike this process
    assert start("alone", out="alone").wait(limits.SAFETY_NET) == 0
    alone = content(tmp_path / "alone")
    killed = start("killed", hold="0+")  # the first part of its shard is there
    stopped = start("stopped", hold="1+")
    killed.kill()
    killed.wait()
    stopped.send_signal(signal.SIGSTOP)
    assert start("late").wait(limits.SAFETY_NET) == 0
    assert content(tmp_path / "out") == alone
    names = {path.name for path in tmp_path.glob("at-late-*")}
    assert names >= {f"at-late-{i}" for i in range(5)} and "at-late-0+" not in names
    (tmp_path / "hold-stopped-1+").unlink()
    stopped.send_signal(signal.SIGCONT)
    assert stopped.wait(limits.SAFETY_NET) == 0
    assert content(tmp_path / "out") == alone
  finally:
    for process in begun:
      if process.poll() is None:
        process.kill()
        process.wait()
