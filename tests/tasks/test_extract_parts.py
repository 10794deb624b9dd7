"""Labeling on paper: what is opened, and the order of a run."""

import dataclasses
import json
import types

import pytest

from como_jax.assembly import labeling_data
from como_jax.data.batching import ProcessSlice
from como_jax.inference import label_options, motion_checkpoint
from como_jax.tasks import extract
from tests.tasks.small_labels import command


@pytest.fixture(name="ordered")
def _ordered(tmp_path, monkeypatch):
  """`extract.run` on paper: the order of its calls."""
  told = types.SimpleNamespace(calls=[], speed={"frames_per_s": 1.0}, first=True, alone=[])

  def note(name, value=None):
    return lambda *given, **more: told.calls.append(name) or value

  work = types.SimpleNamespace(
    data=types.SimpleNamespace(source="SOURCE", folder="SHARDS"),
    stream=lambda **given: told.calls.append(("stream", given)) or "STREAM",
  )
  options = label_options.from_config(command(tmp_path).config)
  options = dataclasses.replace(options, batch_size=8, pairs_batch=5, timeout=6.0)
  for module, name, value in (
    (extract, "open_work", work),
    (label_options, "make_mesh", "MESH"),
    (extract.label_run, "finished_shards", {}),
  ):
    monkeypatch.setattr(module, name, note(name, value))
  monkeypatch.setattr(
    label_options,
    "from_config",
    lambda config: (
      told.calls.append("read") or dataclasses.replace(options, lerobot=config.lerobot)
    ),
  )
  monkeypatch.setattr(
    extract.label_run,
    "label_shards",
    lambda folder, given, stream, **more: (
      told.calls.append(("label_shards", folder, given is work, stream, more)) or told.speed
    ),
  )
  monkeypatch.setattr(
    extract.label_run,
    "complete",
    lambda folder, given, **more: told.calls.append(("complete", folder, more)) or "MANIFEST",
  )
  monkeypatch.setattr(
    extract.label_summary,
    "text",
    lambda manifest, speed, *, folder: f"SUMMARY of {manifest} {len(speed)} in {folder}",
  )
  for name in ("check", "open_run", "join"):
    monkeypatch.setattr(extract.rundir, name, note(f"rundir.{name}"))
  monkeypatch.setattr(
    extract.lerobot_labels,
    "check",
    lambda path, **more: told.calls.append(("lerobot.check", path, more)),
  )
  monkeypatch.setattr(
    extract.lerobot_labels,
    "export",
    lambda folder, path, **more: told.calls.append(("export", folder, path, more)) or "EXPORTED",
  )
  monkeypatch.setattr(extract.distributed, "is_primary", lambda: told.first)
  monkeypatch.setattr(
    extract.distributed,
    "run_on_all_processes",
    lambda function, *, first_alone=False: told.alone.append(first_alone) or function(),
  )
  monkeypatch.setattr(
    extract.distributed,
    "assert_same_on_all",
    lambda text, *, what: told.calls.append(("same", what, text.count(str(tmp_path)))),
  )
  monkeypatch.setattr(extract.reading, "cores", note("cores"))
  return told


PREPARED = ["read", "rundir.check", "open_work", "make_mesh"]


def test_the_order_of_a_run(ordered, tmp_path, capsys):
  for name in ("a.tmp", "a.json"):
    (tmp_path / name).touch()
  assert extract.run(command(tmp_path)) == 0
  start = [("same", "the command line", 1), "cores"]
  worked = [
    ("stream", dict(batch_size=8, pairs_batch=5, mesh="MESH")),
    ("label_shards", str(tmp_path), True, "STREAM", dict(batch_size=8, process=ProcessSlice(0, 1))),
  ]
  complete = ("complete", str(tmp_path), {"timeout": 6.0})
  assert ordered.calls == [*start, *PREPARED, "rundir.open_run", *worked, complete]
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    "a.json",
    extract.SPEED,
  ] and ordered.alone == [False, True]
  assert (tmp_path / extract.SPEED).read_text() == json.dumps(ordered.speed, indent=2)
  assert capsys.readouterr().out == f"SUMMARY of MANIFEST 1 in {tmp_path}\n"
  (tmp_path / extract.SPEED).unlink()
  del ordered.calls[:]
  ordered.speed = {}
  assert extract.run(command(tmp_path, "--resume", "--config.lerobot=OUT")) == 0
  lerobot = dict(source="SOURCE", shards_path="SHARDS")
  assert ordered.calls == [
    *start,
    *PREPARED,
    ("lerobot.check", "OUT", lerobot | {"resume": True}),
    "finished_shards",
    "rundir.open_run",
    *worked,
    complete,
    ("export", str(tmp_path), "OUT", lerobot),
  ]
  assert not (tmp_path / extract.SPEED).exists() and capsys.readouterr().out == (
    f"SUMMARY of MANIFEST 0 in {tmp_path}\nEXPORTED\n"
  )
  del ordered.calls[:]
  ordered.first = False
  (tmp_path / "b.tmp").touch()
  assert extract.run(command(tmp_path, "--resume", "--config.lerobot=OUT")) == 0
  assert (
    ordered.calls == [*start, "read", "open_work", "make_mesh", "rundir.join", *worked]
    and (tmp_path / "b.tmp").exists()
  )


def test_a_run_is_the_model_its_data_and_their_plan(monkeypatch, tmp_path):
  words = ("--config.checkpoint=C", "--config.dtype=bfloat16")
  options = label_options.from_config(command(tmp_path, *words).config)
  data = types.SimpleNamespace(plan=lambda: "PLAN")
  monkeypatch.setattr(
    motion_checkpoint, "load", lambda path, *, dtype: {("C", "bfloat16"): "TRAINED"}[path, dtype]
  )
  monkeypatch.setattr(
    labeling_data, "LabelingData", lambda *given: data if given == (options, "TRAINED") else None
  )
  work = extract.open_work(options)
  assert (work.trained, work.data, work.plan) == ("TRAINED", data, "PLAN")
