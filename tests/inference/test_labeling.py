"""One part of a shard through a stream of paper, and its labels cut into clips."""

import types

import numpy as np
import pytest

from como_jax.data import label_file, labels, sequences
from como_jax.inference import label_parts, labeling
from como_jax.train import rundir


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
  meter.started = 107.0
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
  meter.started, meter.frames = 110.0, 0
  assert meter.summary(stream, processes=3)["frames_per_s"] == 0.0


def test_a_label_set_does_not_say_where_its_data_lay():
  assert (
    labeling._without_folder("/data/x/shard-0: torn at /data/x/y", "/data/x/records.parquet")
    == "shard-0: torn at y"
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

  def first_frame(self, segment, row):
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
  part = label_parts.Part(3, tuple(sequences.Sequence(4, camera, 5) for camera in "ab"), None, "f")
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
  assert (meter.started, meter.frames, meter.waited, meter.total) == (10, 7, 15, 10), (
    "the first clip fills a batch and starts the clock"
  )


def test_frames_that_cannot_be_read_have_no_motion_and_are_said():
  part = label_parts.Part(3, (sequences.Sequence(4, "a", 5),), None, "f")
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

  monkeypatch.setattr(label_file, "write_shard", write_shard)

  def motion(value):
    return labels.Motion(
      np.full((5, 2), value) + np.arange(5)[:, None], np.arange(5) > 1, np.arange(5) / 10
    )

  parts = [label_parts.Part(3, (sequences.Sequence(4, camera, 5),), None, "f") for camera in "ab"]

  def lost(row, camera):
    return {"row": row, "camera": camera, "frames": 2, "reason": "torn", "more": 1}

  done = [
    (parts[0], label_parts.Labeled([motion(0)], [lost(5, "a")])),
    (parts[1], label_parts.Labeled([motion(100)], [lost(5, "b"), lost(7, "b")])),
  ]
  assert labeling.write("F", 3, Plan(), done, facts={"a": 1}) == "SIDECAR"
  with pytest.raises(ValueError, match="zip"):
    labeling.write("F", 3, Plan(), [(parts[0], label_parts.Labeled([], []))], facts={})
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
