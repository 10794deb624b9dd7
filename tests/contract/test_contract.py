"""The contract over generated inputs, and five ways of breaking it on purpose.

The full count runs with `-m slow`.
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import times, video_color, video_stream
from como_jax.data.sources import lerobot, options
from tests.contract import check, inputs, tfds_inputs
from tests.data import ingests

OFFSETS = (0.1, 0.15, 0.2, 0.5)
WRITERS = {**inputs.WRITERS, "tfds": tfds_inputs.write}


def write(found, root):
  """The inputs as folders: videos together, every LeRobot set by itself: [(folder, its inputs)]."""
  videos = [one for one in found if one.kind == "video"]
  groups = []
  if videos:
    os.makedirs(root / "videos")
    for one in videos:
      WRITERS[one.kind](one, str(root / "videos"))
    groups.append((str(root / "videos"), videos))
  for one in found:
    if one.kind != "video":
      os.makedirs(root / str(one.seed))
      WRITERS[one.kind](one, str(root / str(one.seed)))
      groups.append((str(root / str(one.seed) / "set"), [one]))
  return groups


def judge(found, root, *, thorough=0):
  """The contract of some inputs; the first `thorough` folders also resumed, ingested again, and
  exported.
  """
  pairs = 0
  for i, (source, mine) in enumerate(write(found, root)):
    rng = np.random.default_rng(mine[0].seed)
    out = str(root / f"shards-{i}")
    settings = {
      "clip_frames": int(rng.choice([5, 16, 128])),
      "episodes_per_shard": int(rng.choice([2, 64])),
      "codec": "jpeg",
      "options": options.SourceOptions(frame_rate=mine[0].frame_rate),
    }
    summary = ingests.run(source, out, **check.QUICK, **settings)
    assert summary.quarantined == [], summary.quarantined
    check.shards_hold(out, mine)
    for offset in rng.choice(OFFSETS, 2, replace=False):
      pairs += check.pairs_follow_the_rule(out, mine, float(offset))
    if i < thorough:
      resumed_gives_the_same(source, out, settings)
      again = str(root / f"again-{i}")
      ingests.run(out, again, workers=2 if i == 0 else 0, progress=False, clip_frames=7)
      check.shards_hold(again, mine)
      if mine[0].kind == "lerobot":
        # A v3 set is copied with its own times; what is written anew has one rate, or is refused.
        fits = mine[0].choice["clock"] == "even" or mine[0].choice["layout"].startswith("v3")
        with (
          contextlib.nullcontext()
          if fits
          else pytest.raises(
            errors.UserError, match="the time between the frames of episode .* varies"
          )
        ):
          check.export_holds(source, out, mine[0], root / f"labels-{i}", float(OFFSETS[2]))
  return pairs


def resumed_gives_the_same(source, out, settings):
  before = {
    name: pathlib.Path(os.path.join(out, name)).read_bytes()
    for name in sorted(os.listdir(out))
    if name != ".lock"
  }
  for name in ("manifest.json", "records.parquet", "shard-00000.json"):
    os.remove(os.path.join(out, name))
  shutil.copyfile(
    os.path.join(out, "shard-00000.shard"), os.path.join(out, "shard-00000.shard.9.tmp")
  )
  ingests.run(source, out, **check.QUICK, **settings)
  assert before == {
    name: pathlib.Path(os.path.join(out, name)).read_bytes()
    for name in sorted(os.listdir(out))
    if name != ".lock"
  }


def test_what_goes_in_comes_out(tmp_path):
  """36 inputs, each of the first folders thoroughly."""
  assert judge(inputs.draw(36), tmp_path, thorough=4) > 300


def test_what_goes_in_of_tensorflow_datasets_comes_out(tmp_path):
  found = [inputs.Input(seed, "tfds", choice) for seed, choice in enumerate(tfds_inputs.CHOICES)]
  assert judge(found, tmp_path, thorough=1) > 50


@pytest.mark.slow
def test_500_inputs(tmp_path):
  found = inputs.draw(500, first_seed=1000)
  counts = collections.Counter(item for one in found for item in one.choice.items())
  for name, values in inputs.DIMENSIONS.items():
    for value in values:
      assert counts[name, value] >= 20, f"{name} {value} came {counts[name, value]} times"
  seen = {pair for one in found for pair in itertools.combinations(one.choice.items(), 2)}
  missing = [(a, b) for a, b, can in inputs.pairs() if can and (a, b) not in seen]
  assert not missing, f"pairs that never came: {missing}"
  pairs = 0
  for batch in range(0, 500, 25):
    folder = tmp_path / str(batch)
    folder.mkdir()
    pairs += judge(found[batch : batch + 25], folder, thorough=3)
    shutil.rmtree(folder)
  impossible = sorted(
    f"{a[0]} {a[1]} with {b[0]} {b[1]}" for a, b, can in inputs.pairs() if not can
  )
  print(
    f"\n500 inputs, {pairs} pairs of frames; each value at least {min(counts.values())} times; "
    f"{len(impossible)} pairs of values that no file can hold: {'; '.join(impossible)}"
  )
  print(
    json.dumps(
      {
        f"{name} {value}": counts[name, value]
        for name, values in inputs.DIMENSIONS.items()
        for value in values
      }
    )
  )


def _one_rate(monkeypatch):
  """Frames are chosen by a rate instead of by their times."""
  from_seconds = times.FrameTimes.from_seconds.__func__

  def even(cls, seconds):
    found = from_seconds(cls, seconds)
    return cls(found.first, found.interval, found.count)

  monkeypatch.setattr(times.FrameTimes, "from_seconds", classmethod(even))


def _no_turn(monkeypatch):
  monkeypatch.setattr(video_color, "orientation", lambda matrix: (False, False, False, True))


def _one_matrix(monkeypatch):
  monkeypatch.setattr(video_color.Converter, "_matrix", lambda self, frame: "ITU709")


def _late_is_not_taken_off(monkeypatch):
  decode = video_stream.decode

  def late(path, notes):
    with video_stream.open_video(path) as (_, stream):
      start = float((stream.start_time or 0) * stream.time_base)
    return ((seconds + start, frame, stream) for seconds, frame, stream in decode(path, notes))

  monkeypatch.setattr(video_stream, "decode", late)


def _episodes_are_not_cut(monkeypatch):
  stretch = lerobot.LeRobot._stretch

  def first(self, camera, row, rows):
    return dataclasses.replace(stretch(self, camera, row, rows), start=0.0)

  monkeypatch.setattr(lerobot.LeRobot, "_stretch", first)


@pytest.mark.parametrize(
  "break_it, wanted",
  [
    (_one_rate, {"timing": ("gap", "two rates")}),
    (_no_turn, {"turn": ("90", "mirrored")}),
    (_one_matrix, {"color": ("bt601 limited",)}),
    (_late_is_not_taken_off, {"timing": ("late",)}),
    (_episodes_are_not_cut, {"layout": ("v3.0 video",)}),
  ],
)
def test_the_contract_notices(tmp_path, monkeypatch, break_it, wanted):
  ((name, values),) = wanted.items()
  found = [one for one in inputs.draw(120) if one.choice.get(name) in values][:4]
  whole, broken = tmp_path / "whole", tmp_path / "broken"
  whole.mkdir()
  broken.mkdir()
  judge(found, whole)
  break_it(monkeypatch)
  with pytest.raises(AssertionError):
    judge([inputs.Input(one.seed, one.kind, one.choice) for one in found], broken)
