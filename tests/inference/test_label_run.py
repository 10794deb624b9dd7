"""Which shards of a data set are labeled by which process, and what is kept of a killed run."""

import contextlib
import types

import numpy as np
import pytest

from como_jax import errors, models
from como_jax.assembly import offsets
from como_jax.data import label_file, labels, read_options, sequences, video
from como_jax.data.batching import ProcessSlice
from como_jax.inference import label_parts, label_run, labeling, motion_checkpoint
from tests.inference.test_label_parts import labeled, part_of

MODEL = types.SimpleNamespace(
  latent=models.specs.LatentSpec(3, 4), config={"dtype": "float32"}, image_size=16
)


@pytest.fixture(autouse=True)
def _layout(monkeypatch):
  """The tables of these tests have no clips."""
  monkeypatch.setattr(labels, "layout", lambda table: "layout")


def text_of(kind, call):
  with pytest.raises(kind) as caught:
    call()
  return str(caught.value)


def test_the_stream_is_as_large_as_the_config_says(monkeypatch):
  asked = []
  monkeypatch.setattr(
    label_run.latent_stream, "LatentStream", lambda *given, **more: asked.append((given, more))
  )
  run = work_of(0)
  run.plan.reach = 4
  for pairs_batch in (0, 16):
    run.stream(batch_size=8, pairs_batch=pairs_batch, mesh="MESH")
  assert asked == [
    ((MODEL, "PARAMS"), dict(batch_size=8, pairs_batch=pairs, reach=4, mesh="MESH"))
    for pairs in (8, 16)
  ]


def work_of(*shards):
  table = types.SimpleNamespace(shard=np.array(shards))
  plan = types.SimpleNamespace(
    segments=types.SimpleNamespace(table=table), cameras=("a",), offset_seconds=0.3
  )
  return label_run.LabelingRun(
    trained=motion_checkpoint.MotionCheckpoint(
      "MODEL", MODEL, "PARAMS", section={"kind": "motion"}, trained_on={}, fingerprint="m"
    ),
    data=types.SimpleNamespace(
      folder="SHARDS",
      manifest={"image_size": 16, "source": {"fingerprint": "d"}},
      source="SOURCE",
      offset=offsets.Offset(0.3, "why"),
      read_options=read_options.ReadOptions(workers=1, threads=2, prefetch=3),
    ),
    plan=plan,
  )


def test_what_labels_depend_on(monkeypatch):
  run = work_of(0)
  monkeypatch.setattr(
    labels, "layout", lambda table: "LAYOUT" if table is run.plan.segments.table else None
  )
  assert run.facts == {
    "version": labels.VERSION,
    "model": "m",
    "data": "d",
    "layout": "LAYOUT",
    "offset_seconds": 0.3,
    "cameras": ["a"],
    "dtype": "float32",
    "decoding": video.DECODING,
  }


def test_labels_are_complete_when_all_shards_have_come(monkeypatch):
  clock, done, slept, written = [0.0], {1}, [], []

  def sleep(seconds):
    slept.append(seconds)
    clock[0] += 10
    if clock[0] == 30:
      done.add(0)

  monkeypatch.setattr(
    label_run, "time", types.SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep)
  )
  monkeypatch.setattr(
    label_file,
    "finished",
    lambda folder, shard, *, facts: {"shard": shard} if shard in done else None,
  )
  monkeypatch.setattr(
    label_file, "write_manifest", lambda *given, **more: written.append((given, more)) or "MANIFEST"
  )
  work = work_of(1, 0, 1)
  assert work.shards == [0, 1] and label_run.complete("F", work, timeout=30.0) == "MANIFEST"
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
    into=None,
  )
  begun, work = clock[0], work_of(0, 1, 2, 3)
  assert text_of(errors.TransientError, lambda: label_run.complete("F", work, timeout=30.0)) == (
    "F: 2 of 4 shards of other processes did not come within 30 s (the first is "
    "labels-00002.labels): start again with --resume"
  )
  assert clock[0] - begun == 40


@pytest.mark.parametrize("terminal, interval", [(True, 0.5), (False, 10.0)])
def test_the_bar_is_that_of_the_first_process(monkeypatch, terminal, interval):
  monkeypatch.setattr(label_run.tqdm, "tqdm", lambda **settings: settings)
  monkeypatch.setattr(label_run.sys, "stderr", types.SimpleNamespace(isatty=lambda: terminal))
  for process in (0, 1, 2):
    assert label_run.progress_bar(9, ProcessSlice(process, 3)) == dict(
      total=9, unit=" frames", desc="extract", disable=process > 0, mininterval=interval
    )


@pytest.fixture(name="done")
def _done(tmp_path, monkeypatch):
  """`label_run.label_shards` on paper: (function, what happened in order).

  Every shard has three parts of 4 frames.
  """
  told = types.SimpleNamespace(calls=[], walks=[], finished={}, files=True)

  def parts(folder, plan, shard, *, batch_size, facts):
    assert (folder, batch_size, facts["model"], facts["data"]) == ("F", 8, "m", "d")
    made = [
      part_of(tmp_path, number=10 * shard + number) for number in range(3 if told.files else 1)
    ]
    return [
      label_parts.Part(
        shard,
        tuple(sequences.Sequence(10 * shard + i, "a", 2) for i in range(2)),
        part.file if told.files else None,
        "f",
      )
      for part in made
    ]

  monkeypatch.setattr(label_parts, "parts", parts)
  monkeypatch.setattr(
    label_file, "finished", lambda folder, shard, *, facts: told.finished.get(shard)
  )
  monkeypatch.setattr(
    labeling, "write", lambda folder, shard, *rest, facts: told.calls.append(("write", shard))
  )
  monkeypatch.setattr(
    label_parts, "remove_parts", lambda folder, shard: told.calls.append(("remove_parts", shard))
  )
  save = label_parts.save

  def saved(part, done):
    told.calls.append(("save", part.file and part.file[-9:-4]))
    save(part, done)

  monkeypatch.setattr(label_parts, "save", saved)
  monkeypatch.setattr(
    labeling,
    "label",
    lambda part, *rest: told.calls.append(("label", part.shard)) or labeled(float(len(told.calls))),
  )
  monkeypatch.setattr(
    labeling.Meter, "summary", lambda self, stream, *, processes: {"processes": processes}
  )
  monkeypatch.setattr(
    sequences,
    "iterate_clips",
    lambda path, plan, wanted, **more: (
      told.walks.append((path, len(wanted), more)) or contextlib.nullcontext("CLIPS")
    ),
  )
  bars = []
  monkeypatch.setattr(
    label_run,
    "progress_bar",
    lambda total, process: contextlib.nullcontext(
      types.SimpleNamespace(update=lambda count: bars.append((total, process.index, count)))
    ),
  )
  stream = types.SimpleNamespace(image_size=16)

  def done(*shards, index=0, count=1):
    return label_run.label_shards(
      "F", work_of(*shards), stream, batch_size=8, process=ProcessSlice(index, count)
    )

  done.told, done.bars = told, bars
  return done


def test_each_process_labels_its_shards_that_are_not_done(done, capsys):
  done.told.finished = {0: {"a": 1}, 3: {"a": 1}}
  assert done(0, 1, 2, 3, 4, index=0, count=2) == {"processes": 2}
  assert [call for call in done.told.calls if call[0] != "save"] == [
    ("remove_parts", 0),
    *[("label", 2)] * 3,
    ("write", 2),
    ("remove_parts", 2),
    *[("label", 4)] * 3,
    ("write", 4),
    ("remove_parts", 4),
  ]
  assert done.told.walks == [("SHARDS", 12, dict(image_size=16, workers=1, threads=2, prefetch=3))]
  assert done.bars == [(36, 0, 12)], "of the frames of this process's shards, those that are done"
  said = capsys.readouterr().out
  assert said.startswith(
    "extract: 24 of 36 frames in 2 of 3 shards to label, offset 0.3 s (why), cameras a; "
  )
  done.told.finished = {0: {"a": 1}}
  assert done(0, 1, index=0, count=2) == {} and not capsys.readouterr().out


def test_parts_of_a_killed_run_are_not_made_again(done, tmp_path, capsys):
  done(2)
  del done.told.calls[:]
  (tmp_path / "labels-00003.part-000021.npz").unlink()
  done(2)
  assert done.told.calls == [("label", 2), ("save", "00021"), ("write", 2), ("remove_parts", 2)]
  assert (
    done.bars[-1] == (12, 0, 8)
    and "extract: 4 of 12 frames in 1 of 1 shards" in capsys.readouterr().out
  )
  done.told.files = False
  del done.told.calls[:]
  done(2)
  assert done.told.calls == [("label", 2), ("save", None), ("write", 2), ("remove_parts", 2)], (
    "a whole shard needs no file of its own"
  )
