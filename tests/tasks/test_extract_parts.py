"""Labeling on paper: the parts of a shard and their files, what is measured and said, and the
order of a run.
"""

import json
import os
import pathlib
import types

import jax
import numpy as np
import pytest

from como_jax import errors, models, weights
from como_jax.data import labels, sequences
from como_jax.inference import labeling
from como_jax.parallel import mesh as mesh_lib
from como_jax.tasks import extract, offsets
from como_jax.train import rundir
from tests.tasks.test_extract import command


def text_of(kind, call):
  with pytest.raises(kind) as caught:
    call()
  return str(caught.value)


def planned(*lengths):
  """A plan of one shard with these sequences."""
  return types.SimpleNamespace(
    sequences=lambda shard: (
      [sequences.Sequence(i, "a", length) for i, length in enumerate(lengths)] if shard == 3 else []
    )
  )


def test_a_shard_is_cut_where_a_part_is_full(monkeypatch):
  monkeypatch.setattr(labeling, "PART_BATCHES", 2)

  def parts(*lengths, **changes):
    return labeling.parts(
      "F", planned(*lengths), 3, **{"batch_size": 5, "facts": {"b": 1, "a": 2}} | changes
    )

  (whole,) = parts(4, 5, 9)  # the last one begins before there are 10 frames
  assert (whole.shard, whole.file, whole.frames, len(whole.sequences)) == (3, None, 18, 3)
  found = parts(4, 6, 3, 7, 1)
  assert [[one.length for one in part.sequences] for part in found] == [[4, 6], [3, 7], [1]]
  assert [part.file for part in found] == [f"F/labels-00003.part-0000{i}.npz" for i in range(3)]
  assert [part.frames for part in found] == [10, 10, 1] and len({part.facts for part in found}) == 3
  assert [part.facts for part in parts(4, 6, 3, 7, 1, facts={"a": 2, "b": 1})] == [
    part.facts for part in found
  ], "in any order"
  assert (
    parts(4, 5, 9, batch_size=9)[0].facts != whole.facts != parts(4, 5, 9, facts={"a": 3})[0].facts
    and len(whole.facts) == 16
  )


def labeled(value=1.0):
  motion = labels.Motion(
    np.full((2, 3), value, np.float32), np.array([True, False]), np.array([0.5, 0], np.float32)
  )
  return labeling.Labeled(
    [motion, labels.Motion(*(array[:1] for array in motion))],
    [{"row": 1, "camera": "a", "frames": 2, "reason": "torn"}],
  )


def part_of(folder, *, facts="f", count=2, number=0):
  return labeling.Part(
    3,
    tuple(sequences.Sequence(i, "a", 2) for i in range(count)),
    str(folder / f"labels-00003.part-0000{number}.npz"),
    facts,
  )


def test_a_part_is_kept_whole_or_not_at_all(tmp_path, monkeypatch):
  part, synced = part_of(tmp_path), []
  assert labeling.load(part) is None
  monkeypatch.setattr(
    labeling.os,
    "fsync",
    lambda number: synced.append([(path.name, path.stat().st_size) for path in tmp_path.iterdir()]),
  )
  labeling.save(part, labeled())
  ((name, size),) = synced[0]
  assert (
    name == f"labels-00003.part-00000.npz.{os.getpid()}.tmp"
    and size == pathlib.Path(part.file).stat().st_size
  )
  assert [path.name for path in tmp_path.iterdir()] == ["labels-00003.part-00000.npz"]
  found = labeling.load(part)
  assert found.damaged == labeled().damaged and len(found.motions) == 2
  for one, other in zip(found.motions, labeled().motions, strict=False):
    jax.tree.map(np.testing.assert_array_equal, one, other)
  assert (
    labeling.load(part_of(tmp_path, facts="other")) is None
    and labeling.load(part_of(tmp_path, count=3)) is None
  )
  for content in (b"", b"no zip", pathlib.Path(part.file).read_bytes()[:200]):
    pathlib.Path(part.file).write_bytes(content)
    assert labeling.load(part) is None
  for name in ("labels-00003.part-00001.npz", "labels-00004.part-00000.npz", "labels-00003.json"):
    (tmp_path / name).touch()
  labeling.remove_parts(str(tmp_path), 3)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    "labels-00003.json",
    "labels-00004.part-00000.npz",
  ]


def test_parts_in_a_folder_with_a_star_are_found(tmp_path):
  folder = tmp_path / "a[b]*"
  folder.mkdir()
  labeling.save(part_of(folder), labeled())
  labeling.remove_parts(str(folder), 3)
  assert not list(folder.iterdir())


def test_speed_is_measured_behind_the_first_batch(monkeypatch):
  monkeypatch.setattr(labeling, "time", types.SimpleNamespace(monotonic=lambda: 110.0))
  monkeypatch.setattr(rundir, "hardware", lambda: {"cores": "2"})
  stream, meter = types.SimpleNamespace(encoded=64, paired=32), labeling.Meter()
  more = {"encoded": 64, "pairs": 32, "processes": 3, "cores": "2"}
  meter.clip(7, 9.0)
  assert meter.summary(stream, processes=3) == {
    "frames_per_s": 0.0,
    "wait_share": 0.0,
    "frames": 7,
    **more,
  }
  meter.begin = 107.0
  meter.clip(10, 0.5)
  meter.clip(10, 0.25)
  assert meter.summary(stream, processes=3) == {
    "frames_per_s": 6.67,
    "wait_share": 0.25,
    "frames": 27,
    **more,
  }
  meter.clip(1, 50.0)
  assert meter.summary(stream, processes=3)["wait_share"] == 1.0
  meter.begin, meter.frames = 110.0, 0
  assert meter.summary(stream, processes=3)["frames_per_s"] == 0.0


def test_a_label_set_does_not_say_where_its_data_lay():
  assert (
    labeling._without_folder("/data/x/shard-0: torn at /data/x/y", "/data/x/records.parquet")
    == "shard-0: torn at y"
  )


def manifest(**changes):
  return {
    "damaged": [],
    "at_end": 0,
    "left_out": 0,
    "unreadable": 0,
    "offset_seconds": 0.3,
    "valid": 40,
    "size": 12,
    "frames": 50,
    "cameras": ["a", "b"],
    **changes,
  }


def test_what_is_said_of_the_labels(capsys):
  extract.report(pathlib.Path("W"), manifest(), {})
  assert capsys.readouterr().out == (
    "frames without a motion (valid = 0): none\nlabels: 40 motions of 12 numbers for 50 frames, "
    "cameras a, b -> W\n"
  )
  damaged = [{"shard": 2, "clip": 3, "camera": "a", "frames": 4, "reason": "torn"}]
  extract.report(
    pathlib.Path("W"),
    manifest(damaged=damaged, at_end=5, left_out=6, unreadable=7),
    {"frames_per_s": 123.45, "wait_share": 0.25},
  )
  assert capsys.readouterr().out == (
    "damaged: shard-00002.shard clip 3 camera a: 4 frames cannot be read: torn\nframes without a "
    "motion (valid = 0): 5 at the end of a segment, 6 left out (no frame is near enough to 0.3 s "
    "later), 7 lost with damaged frames\nlabels: 40 motions of 12 numbers for 50 frames, cameras "
    "a, b, 123.5 frames/s, waited for data 25.0% -> W\n"
  )


def test_a_type_that_models_do_not_have(tmp_path):
  config = command(tmp_path).config
  for config.dtype in ("", "bfloat16"):
    extract.check(config)
  config.dtype = "bfloat"
  line = text_of(errors.UserError, lambda: extract.check(config))
  assert line.startswith("config.dtype='bfloat': did you mean 'bfloat16'?") and line.endswith(
    ', or "" for the model\'s own'
  )


def test_the_mesh_of_a_process_and_its_batches(tmp_path):
  config = command(tmp_path, "--config.mesh.data=2", "--config.mesh.fsdp=4").config
  config.batch_size, config.pairs_batch = 16, 0
  assert dict(extract.make_mesh(config).shape) == {"data": 2, "fsdp": 4, "tensor": 1}
  for key in ("batch_size", "pairs_batch"):
    before, config[key] = config[key], 12
    assert (
      text_of(errors.UserError, lambda key=key: extract.make_mesh(config))
      == f"config.{key}=12 is not divisible by the 8 devices of config.mesh"
    )
    config[key] = before
  config.mesh.fsdp, config.mesh.tensor = 2, 2
  config.batch_size = 12
  assert extract.make_mesh(config).shape["tensor"] == 2, "4 devices share a batch"
  config.mesh.data = 3
  line = text_of(errors.UserError, lambda: extract.make_mesh(config))
  assert "config.mesh" in line and "config.train.mesh" not in line


def test_which_data_are_labeled(tmp_path):
  config = command(tmp_path).config

  def missing(trained):
    return text_of(errors.UserError, lambda: extract.data_path(config, trained))

  start = "config.data.path is missing: the model was trained on "
  assert missing({}) == missing({"path": None, "mixture": ()}) == start + "unknown data"
  assert missing({"mixture": [{"path": "x"}, {"path": "y"}, {"path": "x"}]}) == start + "x, y"
  assert extract.data_path(config, {"path": "p", "offset_seconds": 0.5}) == (
    "p",
    offsets.Offset(0.5, "as the model was trained on this data set"),
  )
  path, offset = extract.data_path(
    config, {"path": "p", "offset_seconds": 0.5, "mixture": [{"path": "x"}, {"path": "x"}]}
  )
  assert (path, offset.seconds) == ("x", 0.5)
  config.data.path = "p"
  assert text_of(errors.UserError, lambda: extract.data_path(config, {})).startswith(
    "--config.offset_seconds is missing: the checkpoint "
  )


def test_the_stream_is_as_large_as_the_config_says(monkeypatch, tmp_path):
  asked = []
  monkeypatch.setattr(
    extract.latent_stream, "LatentStream", lambda *given, **more: asked.append((given, more))
  )
  config, work = (
    command(tmp_path).config,
    types.SimpleNamespace(plan=types.SimpleNamespace(reach=4)),
  )
  for config.pairs_batch in (0, 16):
    extract.make_stream(work, "M", "P", config=config, mesh="MESH")
  assert asked == [
    (("M", "P"), dict(batch_size=8, pairs_batch=pairs, reach=4, mesh="MESH")) for pairs in (8, 16)
  ]


def work_of(*shards):
  table = types.SimpleNamespace(shard=np.array(shards))
  plan = types.SimpleNamespace(segments=types.SimpleNamespace(table=table), cameras=("a",))
  return extract.LabelingRun(
    path="SHARDS",
    manifest={"image_size": 16},
    plan=plan,
    offset=offsets.Offset(0.3, "why"),
    source="SOURCE",
    checkpoint="MODEL",
    facts={"model": "m", "dtype": "float32", "data": "d"},
    section={"kind": "motion"},
    loading="LOADING",
  )


def test_labels_are_complete_when_all_shards_have_come(monkeypatch):
  clock, done, slept, written = [0.0], {1}, [], []

  def sleep(seconds):
    slept.append(seconds)
    clock[0] += 10
    if clock[0] == 30:
      done.add(0)

  monkeypatch.setattr(
    extract, "time", types.SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep)
  )
  monkeypatch.setattr(
    labels, "finished", lambda folder, shard, *, facts: {"shard": shard} if shard in done else None
  )
  monkeypatch.setattr(
    labels, "write_manifest", lambda *given, **more: written.append((given, more)) or "MANIFEST"
  )
  model = types.SimpleNamespace(latent=models.specs.LatentSpec(3, 4))
  work = work_of(1, 0, 1)
  assert work.shards == [0, 1] and extract.complete("F", work, model, timeout=30.0) == "MANIFEST"
  assert slept == [0.5] * 3
  ((given, more),) = written
  assert given == ("F", [{"shard": 0}, {"shard": 1}]) and more == dict(
    data_shards="SHARDS",
    size=12,
    queries=3,
    dims=4,
    offset_seconds=0.3,
    cameras=["a"],
    model={"path": "MODEL", "fingerprint": "m", "dtype": "float32", "config": {"kind": "motion"}},
    data={"path": "SOURCE", "fingerprint": "d", "image_size": 16},
  )
  begun, work = clock[0], work_of(0, 1, 2, 3)
  assert text_of(errors.Transient, lambda: extract.complete("F", work, model, timeout=30.0)) == (
    "F: 2 of 4 shards of other processes did not come within 30 s (the first is "
    "labels-00002.labels): start again with --resume"
  )
  assert clock[0] - begun == 40


@pytest.mark.parametrize("terminal, interval", [(True, 0.5), (False, 10.0)])
def test_the_bar_is_that_of_the_first_process(monkeypatch, terminal, interval):
  monkeypatch.setattr(extract.tqdm, "tqdm", lambda **settings: settings)
  monkeypatch.setattr(extract.sys, "stderr", types.SimpleNamespace(isatty=lambda: terminal))
  for process in (0, 1, 2):
    assert extract.bar(9, process) == dict(
      total=9, unit=" frames", desc="extract", disable=process > 0, mininterval=interval
    )


@pytest.fixture(name="ordered")
def _ordered(tmp_path, monkeypatch):
  """`extract.run` on paper: the order of its calls."""
  told = types.SimpleNamespace(calls=[], speed={"frames_per_s": 1.0}, first=True, alone=[])

  def note(name, value=None):
    return lambda *given, **more: told.calls.append(name) or value

  work = types.SimpleNamespace(source="SOURCE", path="SHARDS")
  for name, value in (
    ("check", None),
    ("open_work", (work, "MODEL", "PARAMS")),
    ("make_mesh", "MESH"),
    ("finished_shards", {}),
    ("make_stream", "STREAM"),
    ("complete", "MANIFEST"),
    ("report", None),
  ):
    monkeypatch.setattr(extract, name, note(name, value))
  monkeypatch.setattr(
    extract,
    "extract",
    lambda *given, **more: (
      told.calls.append(("extract", more["process_index"], more["process_count"])) or told.speed
    ),
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
  monkeypatch.setattr(extract.motion_data, "cores", note("cores"))
  return told


PREPARED, WORKED = (
  ["check", "rundir.check", "open_work", "make_mesh"],
  ["make_stream", ("extract", 0, 1)],
)


def test_the_order_of_a_run(ordered, tmp_path, capsys):
  for name in ("a.tmp", "a.json"):
    (tmp_path / name).touch()
  assert extract.run(command(tmp_path)) == 0
  start = [("same", "the command line", 1), "cores"]
  assert ordered.calls == [*start, *PREPARED, "rundir.open_run", *WORKED, "complete", "report"]
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    "a.json",
    extract.SPEED,
  ] and ordered.alone == [False, True]
  assert (tmp_path / extract.SPEED).read_text() == json.dumps(
    ordered.speed, indent=2
  ) and not capsys.readouterr().out
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
    *WORKED,
    "complete",
    "report",
    ("export", str(tmp_path), "OUT", lerobot),
  ]
  assert not (tmp_path / extract.SPEED).exists() and capsys.readouterr().out == "EXPORTED\n"
  del ordered.calls[:]
  ordered.first = False
  (tmp_path / "b.tmp").touch()
  assert extract.run(command(tmp_path, "--resume", "--config.lerobot=OUT")) == 0
  assert (
    ordered.calls == [*start, "check", "open_work", "make_mesh", "rundir.join", *WORKED]
    and (tmp_path / "b.tmp").exists()
  )


def test_the_fingerprint_of_a_checkpoint_is_that_of_the_weights_it_would_make(
  tmp_path, monkeypatch
):
  params = {"b": {"c": np.ones(2, np.float32)}, "a": np.zeros(3, np.float32)}
  weights.save(tmp_path / "w", params, {})
  monkeypatch.setattr(
    extract.checkpoint,
    "find",
    lambda path: types.SimpleNamespace(weights=tmp_path / "w" if path == "folder" else None),
  )
  assert extract.model_fingerprint("folder", None) == extract.model_fingerprint("run", params)


def test_the_mesh_is_that_of_this_process_alone(monkeypatch, tmp_path):
  asked = []
  monkeypatch.setattr(
    mesh_lib,
    "make",
    lambda **settings: (
      asked.append(settings) or types.SimpleNamespace(shape={"data": 1, "fsdp": 1})
    ),
  )
  monkeypatch.setattr(jax, "local_devices", lambda: ["mine"])
  extract.make_mesh(command(tmp_path).config)
  assert asked[0]["devices"] == ["mine"]


def test_what_is_to_be_labeled_with_what(monkeypatch, tmp_path):
  asked = []
  run = {
    "model": {"dtype": "float32", "kind": "motion"},
    "data": {"path": "trained", "resize": "crop", "filters": {}},
  }
  model = types.SimpleNamespace(
    init=lambda key: {"a": np.zeros(2)}, image_size=16, config={"dtype": "bfloat16"}
  )
  monkeypatch.setattr(extract.probe, "load", lambda path: ({"a": np.ones(2)}, run))
  monkeypatch.setattr(extract.models, "build", lambda section: asked.append(section) or model)
  monkeypatch.setattr(
    extract.trees, "merge", lambda shapes, params, *, what: asked.append(what) or params
  )
  monkeypatch.setattr(
    extract, "data_path", lambda config, trained: ("given", offsets.Offset(0.5, "why"))
  )
  for name, value in (
    ("resolve", lambda path: f"resolved {path}"),
    ("cache_dir", lambda section: "CACHE"),
    ("to_shards", lambda path, reading, **more: asked.append((path, reading, more)) or "SHARDS"),
    ("choose_read_options", lambda section, paths, spec: ("LOADING", paths, spec)),
  ):
    monkeypatch.setattr(extract.motion_data, name, value)
  table = types.SimpleNamespace(length=np.array([3, 9, 4]))
  monkeypatch.setattr(extract.shards, "read_table", lambda path: table)
  monkeypatch.setattr(
    extract.shards, "read_manifest", lambda path: {"source": {"fingerprint": "DATA"}}
  )
  plan = types.SimpleNamespace(cameras=("a", "b"))
  monkeypatch.setattr(sequences, "plan", lambda given, **more: asked.append(more) or plan)
  monkeypatch.setattr(labels, "layout", lambda given: "LAYOUT" if given is table else None)
  monkeypatch.setattr(
    extract, "model_fingerprint", lambda path, params: f"{path} {params['a'][0]:g}"
  )
  config = command(
    tmp_path, "--config.checkpoint=C", "--config.data.cameras=('a',)", "--config.dtype=bfloat16"
  ).config
  work, made, params = extract.open_work(config)
  assert made is model and params["a"].tolist() == [1, 1]
  assert asked == [
    {"dtype": "bfloat16", "kind": "motion"},
    "checkpoint C",
    ("resolved given", run["data"], dict(image_size=16, cache_dir="CACHE")),
    dict(offset_seconds=0.5, cameras=("a",), name="resolved given"),
  ]
  assert work.facts == {
    "version": labels.VERSION,
    "model": "C 1",
    "data": "DATA",
    "layout": "LAYOUT",
    "offset_seconds": 0.5,
    "cameras": ["a", "b"],
    "dtype": "bfloat16",
    "decoding": extract.video.DECODING,
  }
  assert (work.path, work.source, work.checkpoint, work.section, work.plan) == (
    "SHARDS",
    "resolved given",
    "C",
    run["model"],
    plan,
  )
  assert work.loading == (
    "LOADING",
    ["SHARDS"],
    {"frames": jax.ShapeDtypeStruct((9, 16, 16, 3), np.uint8)},
  )
  del asked[:]
  config.dtype, config.data.resize, run["data"] = "", "pad", {}
  extract.open_work(config)
  assert asked[0] == run["model"] and asked[2][1] == {"resize": "pad"}
  config.data.resize = ""
  extract.open_work(config)
  assert asked[6][1] == {"resize": "squash"}
