"""Which shards of a data set are labeled by whom, what is kept of a killed run, and one part
through a stream of paper.
"""

import contextlib
import types

import numpy as np
import pytest

from como_jax.data import labels, sequences
from como_jax.inference import labeling
from como_jax.tasks import extract
from tests.tasks.test_extract_parts import labeled, part_of, work_of


@pytest.fixture(name="done")
def _done(tmp_path, monkeypatch):
  """`extract.extract` on paper: (function, what happened in order).

  Every shard has three parts of 4 frames.
  """
  told = types.SimpleNamespace(calls=[], walks=[], finished={}, files=True)

  def parts(folder, plan, shard, *, batch_size, facts):
    assert (folder, batch_size, facts) == ("F", 8, {"model": "m", "dtype": "float32", "data": "d"})
    made = [
      part_of(tmp_path, number=10 * shard + number) for number in range(3 if told.files else 1)
    ]
    return [
      labeling.Part(
        shard,
        tuple(sequences.Sequence(10 * shard + i, "a", 2) for i in range(2)),
        part.file if told.files else None,
        "f",
      )
      for part in made
    ]

  monkeypatch.setattr(labeling, "parts", parts)
  monkeypatch.setattr(labels, "finished", lambda folder, shard, *, facts: told.finished.get(shard))
  for name in ("write", "remove_parts", "save"):
    original = getattr(labeling, name)
    monkeypatch.setattr(
      labeling,
      name,
      lambda *given, name=name, original=original, **more: (
        told.calls.append((name, given[1] if name != "save" else given[0].file[-9:-4])),
        original(*given) if name == "save" else None,
      )[1],
    )
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
    "walk",
    lambda path, plan, wanted, **more: (
      told.walks.append((path, len(wanted), more)) or contextlib.nullcontext("CLIPS")
    ),
  )
  bars = []
  monkeypatch.setattr(
    extract,
    "bar",
    lambda total, process: contextlib.nullcontext(
      types.SimpleNamespace(update=lambda count: bars.append((total, process, count)))
    ),
  )
  config = types.SimpleNamespace(batch_size=8)
  stream = types.SimpleNamespace(image_size=16)

  def done(*shards, index=0, count=1):
    work = work_of(*shards)
    work.loading = types.SimpleNamespace(workers=1, threads=2, prefetch=3)
    return extract.extract(
      "F", work, stream, config=config, process_index=index, process_count=count
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
  assert done.told.calls == [("label", 2), ("write", 2), ("remove_parts", 2)], (
    "a whole shard needs no file of its own"
  )


class Segments:
  """One segment of two clips, rows 5 and 7, of 3 and 2 frames."""

  table = types.SimpleNamespace(
    path="/data/records.parquet",
    length=np.array([0] * 5 + [3, 0, 2]),
    clip=np.array([0] * 5 + [1, 0, 0]),
    start=np.arange(8.0),
  )

  def rows(self, segment):
    return {4: [5, 7]}[segment]

  def begin(self, segment, row):
    return {5: 0, 7: 3}[row]


class Plan:
  """Frame t belongs to frame t + 2; the last two have no partner."""

  segments = Segments()

  def pairs(self, segment):
    return types.SimpleNamespace(
      valid=np.array([1, 1, 1, 0, 0], bool),
      second=np.array([2, 3, 4, -1, -1]),
      difference=np.array([0.2, 0.21, 0.22, 0, 0], np.float32),
      left_out=1,
      at_end=2,
    )


class Stream:
  """Gives pairs back when the next clip comes; z says which frames they were."""

  latent_size, encoded = 2, 0

  def __init__(self):
    self.named, self._held = [], []

  def add(self, frames, named):
    held, self._held = self._held, list(named)
    self.named.append([pair[:2] for pair in named])
    self.encoded += len(frames)
    return [(ticket, np.float32([first, second])) for first, second, ticket in held]

  def finish(self):
    return self.add((), ())


def clips(readable):
  """Two sequences of this segment, clip by clip."""
  for _ in range(2):
    for place, count in ((0, 3), (3, 2)):
      yield {
        "frames": np.zeros((count, 1)),
        "readable": np.array(readable[place : place + count]),
        "damage": "torn at /data/shard-0",
      }


def test_a_part_goes_through_the_stream_clip_by_clip(monkeypatch):
  clock = iter(range(0, 1000, 5))
  monkeypatch.setattr(labeling, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
  part = labeling.Part(3, tuple(sequences.Sequence(4, camera, 5) for camera in "ab"), None, "f")
  stream, meter, moved = Stream(), labeling.Meter(), []
  found = labeling.label(
    part, Plan(), clips([True] * 5), stream, meter, types.SimpleNamespace(update=moved.append)
  )
  assert stream.named == [[(0, 2)], [(1, 3), (2, 4)], [(5, 7)], [(6, 8), (7, 9)], []], (
    "numbered through the part"
  )
  assert found.damaged == [] and moved == [3, 2, 3, 2]
  for offset, motion in zip((0, 5), found.motions, strict=True):
    assert (
      motion.valid.tolist() == [True, True, True, False, False] and motion.z.dtype == np.float32
    )
    assert motion.z.tolist() == [
      [offset, offset + 2],
      [offset + 1, offset + 3],
      [offset + 2, offset + 4],
      [0, 0],
      [0, 0],
    ]
    np.testing.assert_allclose(motion.difference, [0.2, 0.21, 0.22, 0, 0], rtol=1e-6)
  assert (meter.begin, meter.frames, meter.waited, meter.total) == (10, 7, 15, 10), (
    "the first clip fills a batch and starts the clock"
  )


def test_frames_that_cannot_be_read_have_no_motion_and_are_said():
  part = labeling.Part(3, (sequences.Sequence(4, "a", 5),), None, "f")
  found = labeling.label(
    part,
    Plan(),
    clips([True, False, True, True, False]),
    Stream(),
    labeling.Meter(),
    types.SimpleNamespace(update=lambda count: None),
  )
  assert found.motions[0].valid.tolist() == [True, False, False, False, False]
  assert found.damaged == [
    {"row": row, "camera": "a", "frames": 1, "reason": "torn at shard-0"} for row in (5, 7)
  ]


def test_labels_of_parts_are_cut_into_clips(monkeypatch):
  written = []

  def write_shard(folder, shard, rows, **more):
    written.append((folder, shard, list(rows), more))
    return "SIDECAR"

  monkeypatch.setattr(labels, "write_shard", write_shard)

  def motion(value):
    return labels.Motion(
      np.full((5, 2), value) + np.arange(5)[:, None], np.arange(5) > 1, np.arange(5) / 10
    )

  parts = [labeling.Part(3, (sequences.Sequence(4, camera, 5),), None, "f") for camera in "ab"]

  def lost(row, camera):
    return {"row": row, "camera": camera, "frames": 2, "reason": "torn", "more": 1}

  done = [
    (parts[0], labeling.Labeled([motion(0)], [lost(5, "a")])),
    (parts[1], labeling.Labeled([motion(100)], [lost(5, "b"), lost(7, "b")])),
  ]
  assert labeling.write("F", 3, Plan(), done, facts={"a": 1}) == "SIDECAR"
  with pytest.raises(ValueError, match="zip"):
    labeling.write("F", 3, Plan(), [(parts[0], labeling.Labeled([], []))], facts={})
  ((folder, shard, rows, more),) = written
  assert (folder, shard) == ("F", 3) and [start for start, _ in rows] == [7, 5], (
    "in the order of the clips"
  )
  assert [
    {camera: one.z[:, 0].tolist() for camera, one in motions.items()} for _, motions in rows
  ] == [{"a": [3, 4], "b": [103, 104]}, {"a": [0, 1, 2], "b": [100, 101, 102]}]
  assert rows[0][1]["a"].valid.tolist() == [True, True] and rows[1][1]["b"].difference.tolist() == [
    0,
    0.1,
    0.2,
  ]
  assert more == dict(
    facts={"a": 1},
    left_out=2,
    at_end=4,
    damaged=[
      {"clip": clip, "camera": camera, "frames": 2, "reason": "torn"}
      for clip, camera in ((0, "b"), (1, "a"), (1, "b"))
    ],
  )
