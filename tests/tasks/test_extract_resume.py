"""Labeling that is interrupted or shared by processes ends with the same bytes as one run."""

import json
import shutil
import signal
import subprocess

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import labels
from como_jax.data.batching import ProcessSlice
from como_jax.inference import label_options, label_parts, label_run, labeling
from como_jax.tasks import extract
from tests import limits
from tests.data import makers
from tests.end_to_end import program
from tests.tasks.small_labels import CONFIG, LENGTHS, Noise, command, content, model_folder, run
from tests.tasks.small_labels import _checkpoint as _checkpoint  # fixtures
from tests.tasks.small_labels import _data as _data
from tests.tasks.small_labels import _whole as _whole


def test_resumed_equals_uninterrupted_byte_for_byte(data, tmp_path):
  checkpoint = model_folder(tmp_path / "m", data)
  data = makers.shards(
    tmp_path / "s", source=Noise(LENGTHS, cameras=("a",)), clip_frames=5, episodes_per_shard=1
  )
  words = (f"--config.data.path={data}",)
  whole = run(tmp_path / "whole", checkpoint, *words)
  assert "labels-00003.labels" in content(whole)
  todo = {
    "nothing done": [name for name in content(whole) if name.startswith("labels-")],
    # the sidecar is gone, the labels are gone
    "some done": ["labels-00001.json", "labels-00002.labels"],
    "finished": [],
  }
  for broken, names in todo.items():
    cut = tmp_path / broken.replace(" ", "_")
    shutil.copytree(whole, cut)
    if broken != "finished":
      (cut / labels.MANIFEST).unlink()
    for name in names:
      (cut / name).unlink()
    if broken == "some done":  # and some are torn
      (cut / "labels-00000.labels").write_bytes((cut / "labels-00000.labels").read_bytes()[:100])
      (cut / "labels-00003.labels.99.tmp").write_bytes(b"half")
    (cut / extract.SPEED).unlink()
    run(cut, checkpoint, *words, "--resume")
    assert content(cut) == content(whole), broken
    measured = (
      json.loads((cut / extract.SPEED).read_text())["frames"]
      if (cut / extract.SPEED).exists()
      else 0
    )
    assert (
      measured == {"nothing done": sum(LENGTHS), "some done": 14 + 9 + 3, "finished": 0}[broken]
    )


@pytest.mark.flow
def test_killed_and_resumed_equals_uninterrupted(tmp_path):
  data = makers.shards(
    tmp_path / "s", source=Noise((20,) * 12, cameras=("a",)), clip_frames=8, episodes_per_shard=1
  )
  words = [
    f"--config.checkpoint={model_folder(tmp_path / 'm', data)}",
    "--config.batch_size=4",
    "--config.data.threads=1",
  ]
  program.run(CONFIG, tmp_path / "whole", *words)
  process = subprocess.Popen(
    program.command(CONFIG, tmp_path / "cut", *words),
    cwd=program.ROOT,
    env=program.environment(),
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  assert limits.wait_until(
    lambda: list((tmp_path / "cut").glob("labels-*.json")), while_alive=process
  )
  process.send_signal(signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL and not (tmp_path / "cut" / labels.MANIFEST).exists()
  program.run(CONFIG, tmp_path / "cut", *words, "--resume")
  assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_processes_share_the_shards(checkpoint, whole, tmp_path):
  options = label_options.from_config(command(tmp_path, f"--config.checkpoint={checkpoint}").config)
  work = extract.open_work(options)
  (tmp_path / "shared").mkdir()
  folder, frames = str(tmp_path / "shared"), {}
  stream = work.stream(
    batch_size=options.batch_size,
    pairs_batch=options.pairs_batch,
    mesh=label_options.make_mesh(options),
  )
  for index in (1, 0):
    if index == 0:
      with pytest.raises(
        errors.TransientError,
        match="1 of 2 shards of other processes did not come within 0 s.*labels-00000",
      ):
        label_run.complete(folder, work, timeout=0)
    speed = label_run.label_shards(
      folder, work, stream, batch_size=options.batch_size, process=ProcessSlice(index, 2)
    )
    frames[index] = speed["frames"]
  assert frames == {0: 2 * (14 + 9), 1: 2 * (3 + 11)}
  label_run.complete(folder, work, timeout=limits.SAFETY_NET)
  assert content(folder) == {
    name: text
    for name, text in content(whole).items()
    if name not in ("config.json", "versions.json")
  }


def test_a_killed_run_goes_on_behind_its_last_part(checkpoint, tmp_path, monkeypatch):
  """A shard is labeled in parts; what is left of an interruption changes neither the labels nor
  what is in the folder.
  """
  data = makers.shards(tmp_path / "s", source=Noise((20,) * 5, cameras=("a",)), clip_frames=8)
  words = (checkpoint, f"--config.data.path={data}")
  whole = labels.Labels(run(tmp_path / "whole", *words))  # in one part
  monkeypatch.setattr(label_parts, "PART_BATCHES", 2)  # 16 frames
  split, cut = run(tmp_path / "split", *words), tmp_path / "cut"
  once, labeled = labeling.label, []

  def label(part, *rest):
    if len(labeled) == 3:
      raise KeyboardInterrupt
    labeled.append(part)
    return once(part, *rest)

  monkeypatch.setattr(labeling, "label", label)
  with pytest.raises(KeyboardInterrupt):
    run(cut, *words)
  monkeypatch.setattr(labeling, "label", once)
  parts = sorted(cut.glob("*.npz"))
  assert [path.name for path in parts] == [
    f"labels-00000.part-0000{i}.npz" for i in range(3)
  ] and not (cut / "labels-00000.json").exists()
  parts[0].write_bytes(parts[0].read_bytes()[:500])  # one is torn, one is of another model
  with np.load(parts[1]) as file:
    arrays = {name: file[name] for name in file.files}
  np.savez(parts[1], **{**arrays, "facts": np.array("other"), "z/0": arrays["z/0"] + 1})
  run(cut, *words, "--resume")
  assert content(cut) == content(split) and not list(cut.glob("*.npz"))
  # the third part is not made again
  assert json.loads((cut / extract.SPEED).read_text())["frames"] == 4 * 20
  (cut / parts[2].name).write_bytes(b"left over")
  run(cut, *words, "--resume")
  assert content(cut) == content(split)
  for name in whole.episodes:
    for one, other in zip(
      labels.Labels(split).episode(name)["a"], whole.episode(name)["a"], strict=True
    ):
      np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
