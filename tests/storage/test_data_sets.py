"""Shards in an object store: trained on, labeled and used by a policy as those of a folder are."""

import json
import pathlib

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import main, models, storage
from como_jax.assembly import motion_data, policy_data
from como_jax.data import labels
from como_jax.inference import label_options
from como_jax.storage import s3
from como_jax.tasks import extract
from como_jax.train import data_identity
from tests.data import makers
from tests.refusals import text_of
from tests.tasks import small_labels

BUCKET = "s3://bucket"
SMALL = (
  "--config.model.image_size=16",
  "--config.data.image_size=16",
  "--config.train.batch_size=4",
)


def send(folder, address):
  """Copies a folder into the store; returns the address."""
  for file in pathlib.Path(folder).glob("[!.]*"):
    store, key = storage.open_store(f"{address}/{file.name}")
    store.upload(file, key)
  return address


@pytest.fixture(name="cache")
def _cache(s3_environment, tmp_path, monkeypatch):
  """The folder of the caches of this test."""
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache"


@pytest.fixture(name="data")
def _data(cache, tmp_path):
  """(A folder of shards, the address of a copy)."""
  folder = makers.shards(
    tmp_path / "s", source=small_labels.Noise((14, 9, 11), cameras=("a", "bb")), clip_frames=6
  )
  return folder, send(folder, f"{BUCKET}/{tmp_path.name}/shards")


def parse(config, *words):
  if config == "motion:debug":
    words = (*words, "--config.data.offset_seconds=0.2")
  return config_lib.parse(["como_jax", f"--config={config}", *SMALL, *words]).config


def first_batches(config, count):
  model = models.build(config.model.to_dict())
  opened = motion_data.TrainingData(config, model)
  with opened.batches(0) as batches:
    found = [next(batches) for _ in range(count)]
  folders = [(path, "") for path in opened.mixture.paths]
  return found, data_identity.record(config, folders)


def assert_equal(some, others):
  for one, other in zip(some, others, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


def test_training_reads_ranges_in_worker_processes_too(data, cache):
  folder, address = data
  there, record = first_batches(
    parse("motion:debug", f"--config.data.path={address}/", "--config.data.workers=1"), 3
  )
  files = [file.name for file in (cache / "remote").rglob("[!.]*.*")]
  assert sorted(files) == ["index.columns", "manifest.json", "records.parquet"]
  here, expected = first_batches(parse("motion:debug", f"--config.data.path={folder}"), 3)
  assert_equal(there, here)
  assert record == [{**expected[0], "path": f"{address}/"}], "its identity is that of the data"


def test_a_mixture_of_a_store_and_a_folder(data):
  folder, address = data

  def mixture(path):
    entries = ({"path": path, "name": "x"}, {"path": folder, "name": "y", "weight": 2.0})
    return parse("motion:debug", f"--config.data.mixture={entries}", "--config.data.workers=0")

  assert_equal(first_batches(mixture(address), 3)[0], first_batches(mixture(folder), 3)[0])


def ends(config, *words):
  return main.main(["como_jax", f"--config={config}", *words])


def test_ingest_writes_into_the_store(data, tmp_path, capsys, monkeypatch):
  folder, there = data[0], f"{BUCKET}/{tmp_path.name}/again"
  store = storage.open_store(there)[0]
  words = (f"--workdir={there}", f"--config.source.path={folder}", "--config.workers=1")
  written, write = [], store.write
  monkeypatch.setattr(store, "write", lambda key, value: written.append(key) or write(key, value))
  assert ends("ingest", *words) == 0
  assert f"-> {there}\n" in capsys.readouterr().out
  copied = [key.rpartition("/")[2] for key in written if ".lock" not in key]
  assert copied[-1] == "manifest.json" and "shard-00000.shard" in copied, copied
  assert ends("ingest", f"--workdir={tmp_path / 'here'}", *words[1:]) == 0
  files = list((tmp_path / "here").glob("[!.]*"))
  assert sorted(file.name for file in files) == sorted(set(storage.listdir(there)) - {".lock"})
  for file in files:
    assert storage.read_bytes(f"{there}/{file.name}") == file.read_bytes(), file.name
  capsys.readouterr()
  del written[:]
  assert ends("ingest", *words) == 0
  assert "nothing to do" in capsys.readouterr().out
  assert all(".lock" in key for key in written), "the store has it all"


def test_it_is_labeled_and_a_policy_takes_both_from_the_store(data, tmp_path):
  folder, address = data
  checkpoint = small_labels.model_folder(tmp_path / "m", folder)
  sent = f"{BUCKET}/{tmp_path.name}/labels"
  words = (f"--config.checkpoint={checkpoint}", f"--config.data.path={address}")
  words += ("--config.batch_size=8", "--config.data.threads=2")
  assert ends(small_labels.CONFIG, f"--workdir={sent}", *words) == 0
  there = storage.local_folder(sent)
  here = small_labels.run(tmp_path / "here", checkpoint, f"--config.data.path={folder}")
  files = [small_labels.content(path) for path in (there, here)]
  said = [json.loads(content.pop(labels.MANIFEST)) for content in files]
  assert [facts.pop("checksum") and facts["data"].pop("path") for facts in said] == [
    address,
    folder,
  ]
  for content in files:
    content.pop("config.json")
  assert said[0] == said[1] and files[0] == files[1]

  def batch(path, motions):
    config = parse(
      "policy:debug",
      f"--config.data.path={path}",
      f"--config.data.labels={motions}",
      "--config.policy.cameras=('a', 'bb')",
    )
    (opened,) = policy_data.PolicyData(config).mixture.sets
    row = int(opened.table.shard.argmax())
    place = int(opened.table.shard[row]), int(opened.table.clip[row])
    return {"motion": opened.motions.z(*place, "a"), "first": opened.table.first}

  assert_equal([batch(address, sent)], [batch(folder, here)])


def test_a_lerobot_export_of_shards_in_a_store(data, tmp_path):
  _, address = data
  checkpoint = small_labels.model_folder(tmp_path / "m", address)
  small_labels.run(tmp_path / "l", checkpoint, f"--config.lerobot={tmp_path / 'export'}")
  assert (tmp_path / "export" / "meta" / "info.json").is_file()
  command = small_labels.command(tmp_path / "l", f"--config.checkpoint={checkpoint}")
  source = extract.open_work(label_options.from_config(command.config)).data
  assert source.source == source.folder == address, "the model says on what it was trained"


def test_what_is_not_there_is_one_line_and_code_2(data, capsys, tmp_path):
  raw = send(tmp_path / "s", f"{BUCKET}/{tmp_path.name}/raw")
  store, key = storage.open_store(f"{raw}/manifest.json")
  store.remove(key)
  workdir = f"--workdir={tmp_path / 'w'}"
  for path, says in {
    "s3://no-bucket/x": "config.data.path: s3://no-bucket/x/manifest.json: there is no bucket",
    f"{BUCKET}/no/key": f"config.data.path: data path {BUCKET}/no/key does not exist",
    raw: f"config.data.path: data path {raw} holds no finished folder of como_jax shards (but "
    "index.columns, ",
  }.items():
    assert ends("motion:debug", workdir, f"--config.data.path={path}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {says}"), line
  assert "raw data are not read from a store: download them and ingest them first" in line
  line = text_of(
    lambda: motion_data.data_sets(
      parse("motion:debug", f"--config.data.mixture=({{'path': '{raw}'}},)")
    )
  )
  assert f"data path {raw} holds no finished folder" in line
  assert not (tmp_path / "w").exists()


def test_a_store_that_does_not_answer_is_one_line_and_code_75(cache, capsys, monkeypatch, tmp_path):
  monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
  monkeypatch.setattr(s3, "_TRIES", 1)
  workdir = f"--workdir={tmp_path / 'w'}"
  assert ends("motion:debug", workdir, f"--config.data.path={BUCKET}/shards") == 75
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f"error: {BUCKET}/shards/manifest.json: the store does not answer: ")
  assert not (tmp_path / "w").exists()
