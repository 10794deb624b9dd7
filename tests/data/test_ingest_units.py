"""Ingest by itself: who is blamed for a dead worker, what the bar and the log say, defaults, what a
rerun does again.
"""

import dataclasses
import io
import json
import os
import types

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import (
  ingest,
  ingest_manifest,
  ingest_settings,
  ingest_share,
  shard_writer,
  shards,
  sources,
  video,
)
from como_jax.units import folder
from tests.data import ingests, makers

QUICK = {"workers": 0, "progress": False}


def unit(**changes):
  return dataclasses.replace(shard_writer.Unit(7, 10, 15, {}, {}), **changes)


@pytest.mark.parametrize(
  "progress, episode",
  [
    (None, 10),  # it died before it said anything
    (shard_writer.Progress(11), 11),
    (shard_writer.Progress(11, 5), 11),
    (shard_writer.Progress(11, done=True), 12),  # at the next one
    (shard_writer.Progress(14, done=True), 14),
  ],
)  # or when it closed the shard
def test_the_episode_at_hand_is_blamed(progress, episode):
  first = ingest._blame(unit(bad={3: "x"}), progress, -9)
  assert first == unit(bad={3: "x"}, deaths={episode: 1})  # once may be a kill from outside
  second = ingest._blame(first, progress, -11)
  assert second == unit(
    bad={3: "x", episode: "reading it ends the worker process (exit code -11)"}, deaths={episode: 2}
  )


def test_workers_that_keep_dying_end_the_run():
  # twice for each of five, and twice more
  assert sum(ingest._blame(unit(deaths={10: 5, 11: 6}), None, -9).deaths.values()) == 12
  with pytest.raises(
    RuntimeError,
    match=r"worker processes keep dying \(last exit code -9\): is the machine out of memory",
  ):
    ingest._blame(unit(deaths={10: 6, 11: 6}), None, -9)


class Bar:
  """Stands in for tqdm's."""

  def __init__(self, **settings):
    self.settings, self.updates, self.said = settings, 0, []

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    pass

  def update(self):
    self.updates += 1

  def set_postfix_str(self, text, refresh=True):
    self.said.append((text, refresh))


@pytest.mark.parametrize("terminal, interval", [(True, 0.2), (False, 10.0)])
def test_the_progress_bar_counts_episodes_and_frames(tmp_path, monkeypatch, terminal, interval):
  bars, clock = [], [100.0]
  source, settings = (
    makers.Synthetic((4,) * 5),
    ingest_settings.Settings(0, "squash", "jpeg", 95, 128, ("camera",), 2, {}),
  )

  def run(function, units, *, workers, on_progress, on_death, poll):
    assert poll == 5.0 and isinstance(function, ingest_share.StageShard)
    assert (workers, on_death) == (2, ingest._blame)  # no more than there are units
    for seconds, message in (
      (0, shard_writer.Progress(2)),
      (2, shard_writer.Progress(2, 30)),
      (2, shard_writer.Progress(2, 10, True)),
      (2, shard_writer.Progress(2, done=True)),
      (5, shard_writer.Progress(4, 20, True)),
    ):
      clock[0] = 100.0 + seconds
      on_progress(message)
    yield from ({"shard": one.shard} for one in units.missing[::-1])
    yield None  # what was lost

  monkeypatch.setattr(
    ingest.tqdm, "tqdm", lambda **settings: bars.append(Bar(**settings)) or bars[-1]
  )
  monkeypatch.setattr(ingest.processes, "run", run)
  monkeypatch.setattr(ingest, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
  monkeypatch.setattr(
    ingest, "sys", types.SimpleNamespace(stderr=types.SimpleNamespace(isatty=lambda: terminal))
  )
  units = [unit(shard=1, first=2, last=4), unit(shard=2, first=4, last=5)]
  published = []
  monkeypatch.setattr(
    ingest_share.Shards, "publish", lambda self, sidecar: published.append(sidecar["shard"])
  )
  shared = ingest_share.Shards(folder.SharedFolder(str(tmp_path), seconds=60.0), units)
  ingest._write_shards(source, settings, shared, ingest.Work(8, progress=not terminal))
  assert published == [2, 1]
  assert bars[0].settings == dict(
    total=5, initial=2, unit="episode", desc="ingest", disable=terminal, mininterval=interval
  )
  assert bars[0].updates == 2  # an episode that is read again counts once
  assert bars[0].said == [(f"{text} frames/s", False) for text in ("0", "15", "20", "20", "12")]


def test_as_many_processes_as_cores(tmp_path, monkeypatch):
  asked = []
  monkeypatch.setattr(ingest.read_options, "cores", lambda: 3)
  monkeypatch.setattr(
    ingest.processes, "run", lambda function, units, *, workers, **rest: asked.append(workers) or ()
  )
  for workers, count in ((-1, 9), (-1, 2), (0, 9), (4, 9)):
    shared = ingest_share.Shards(folder.SharedFolder(str(tmp_path), seconds=60.0), [unit()] * count)
    ingest._write_shards(makers.Synthetic((4,) * 9), None, shared, ingest.Work(workers, False))
  assert asked == [3, 2, 0, 4]


def test_what_nobody_says(tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(ingest, "write", lambda *given: given)
    source, _, settings, work = ingests.run(makers.Synthetic((3,)), str(tmp_path / "none"))
  assert settings == ingest_settings.StorageOptions().settings(source, sources.SourceOptions())
  assert work == ingest.Work(workers=-1, progress=True, lease_seconds=60.0)
  summary = ingests.run(
    makers.Synthetic((130,) + (1,) * 64), str(tmp_path / "s"), progress=False, workers=0
  )
  manifest = summary.manifest
  assert {
    key: manifest[key]
    for key in (
      "image_size",
      "resize",
      "codec",
      "quality",
      "clip_frames",
      "episodes_per_shard",
      "measure",
      "filters",
    )
  } == {
    "image_size": 0,
    "resize": "squash",
    "codec": "jpeg",
    "quality": 95,
    "clip_frames": 128,
    "episodes_per_shard": 64,
    "measure": "auto",
    "filters": {},
  }
  assert [one["clips"] for one in manifest["shards"]] == [65, 1] and summary.clips == 66
  assert 0 <= summary.seconds < 600 and summary.notes == [] and summary.path == str(tmp_path / "s")
  with pytest.raises(AttributeError, match="^episode$"):
    _ = summary.episode
  manifest = ingests.run(
    makers.Synthetic((3,)), str(tmp_path / "h"), codec="h264", **QUICK
  ).manifest
  assert manifest["quality"] == 18 and manifest["source"] == {
    "description": "made by a test",
    "format": "synthetic",
    "robot_type": None,
    "fingerprint": makers.Synthetic((3,)).fingerprint(),
  }


class Broken(makers.Synthetic):
  """Some of its episodes cannot be read, and some have no numbers; counts what is asked for."""

  def __init__(self, lengths, *, bad=(), bare=(), **settings):
    super().__init__(lengths, **settings)
    self.bad, self.bare, self.read = bad, bare, []

  def __getitem__(self, i):
    self.read.append(i)
    if i in self.bad:
      raise video.UnreadableError(f"reason\n{i}")
    raw = super().__getitem__(i)
    return dataclasses.replace(raw, arrays={}) if i in self.bare else raw


def test_what_is_whole_is_not_read_again(tmp_path):
  output, source = tmp_path / "s", Broken((3, 4, 5, 6, 7), bad=(0, 1))
  settings = dict(QUICK, episodes_per_shard=2)
  first = ingests.run(source, str(output), **settings).manifest
  assert source.read == [0, 1, 2, 3, 4] and [one["shard"] for one in first["shards"]] == [1, 2]
  assert first["quarantine"] == [{"name": f"episode_{i}", "reason": f"reason {i}"} for i in (0, 1)]
  assert first["counts"] == {"episodes": 3, "clips": 3, "frames": 18, "quarantined": 2}
  manifest = output / "manifest.json"
  manifest.write_text(json.dumps(first | {"mark": 1}))
  assert (
    ingests.run(source, str(output), **settings).manifest["mark"] == 1 and len(source.read) == 5
  )
  os.remove(output / "shard-00001.shard")  # a sidecar without its shard, and a manifest of before
  assert ingests.run(source, str(output), **settings).manifest == first and source.read[5:] == [
    2,
    3,
  ]
  os.remove(manifest)
  assert ingests.run(source, str(output), **settings).manifest == first and len(source.read) == 7


def test_nothing_readable_names_three(tmp_path):
  with pytest.raises(errors.UserError) as caught:
    ingests.run(Broken((3,) * 4, bad=range(4)), str(tmp_path / "s"), **QUICK)
  assert (
    str(caught.value)
    == "none of the 4 episodes could be read ("
    + "; ".join(f"episode_{i}: reason {i}" for i in range(3))
    + ")"
  )


def test_statistics_of_arrays_that_some_episodes_lack(tmp_path):
  manifest = ingests.run(
    Broken((3, 9, 5, 4), bare=(1, 2)), str(tmp_path / "s"), episodes_per_shard=2, **QUICK
  ).manifest
  rows = np.concatenate([makers.vectors(3, 0)[0], makers.vectors(4, 3)[0]])
  assert manifest["action"]["size"] == 3 and manifest["action"]["statistics"]["count"] == 7
  np.testing.assert_allclose(manifest["action"]["statistics"]["mean"], rows.mean(0), atol=1e-6)
  table = shards.read_table(str(tmp_path / "s"))
  assert table.has_action.tolist() == table.has_state.tolist() == [True, False, False, True]
  bare = ingests.run(Broken((3,), bare=(0,)), str(tmp_path / "bare"), **QUICK).manifest
  assert bare["action"] == {"size": None, "names": ["a", "b", "c"], "statistics": None}
  rows = [{"dims": {"action": 3}}, {"dims": {}}, {"dims": {"action": 2}}]
  assert ingest_manifest._array_facts("", [], rows, "action", None) == {
    "size": [2, 3],
    "names": None,
    "statistics": None,
  }


class Log(io.StringIO):
  """Remembers what had been flushed."""

  seen = ""

  def flush(self):
    self.seen = self.getvalue()


def test_the_log_of_a_conversion(tmp_path, monkeypatch):
  source, log, cache = (
    makers.video_folder(tmp_path / "videos", (4, 3)),
    Log(),
    str(tmp_path / "cache"),
  )
  (tmp_path / "videos" / "notes.txt").write_text("x")
  monkeypatch.setattr("sys.stdout", log)
  steps, run = [], ingest.run
  monkeypatch.setattr(
    ingest, "run", lambda *given, **more: steps.append(log.seen) or run(*given, **more)
  )
  path = ingests.ensure_shards(
    source, image_size=16, cache_dir=cache, clip_frames=50, resize="crop", **QUICK
  )
  assert steps == [f"data: {source} (folder of 2 video files) is converted once into {path}\n"]
  lines = log.seen.splitlines()[1:]
  assert lines[0].startswith("data: 2 episodes, 7 frames in ") and lines[0].endswith(" s")
  assert (
    lines[1:] == ["data: not used: notes.txt: text or a table, not a video"]
    and log.getvalue() == log.seen
  )
  # Neither the order of settings nor how the work is spread is a setting of the data.
  again = ingests.ensure_shards(
    source, image_size=16, cache_dir=cache, resize="crop", clip_frames=50, workers=1, progress=True
  )
  assert again == path and len(steps) == 1
  assert ingests.ensure_shards(path, image_size=16, cache_dir=cache) == path
  for name in ("left", "right"):
    for i in range(2):
      makers.write_video(tmp_path / "views" / name / f"{i}.mp4", 3)
  for rule, grouped in (("auto", True), ("none", False)):
    views = ingests.ensure_shards(
      str(tmp_path / "views"),
      image_size=16,
      cache_dir=cache,
      options=sources.SourceOptions(group=rule),
      **QUICK,
    )
    assert any(shards.read_table(views).groups) == grouped
  other = ingests.ensure_shards(
    source,
    image_size=16,
    cache_dir=cache,
    clip_frames=49,
    resize="crop",
    format="video_folder",
    **QUICK,
  )
  assert other != path and shards.read_manifest(other)["clip_frames"] == 49
