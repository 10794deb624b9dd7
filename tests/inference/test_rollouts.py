"""What is kept of the episodes of a rollout, and which are still to be played."""

import json
import os

import av
import numpy as np
import pytest

from como_jax import errors
from como_jax.inference import rollouts
from como_jax.sim import vector
from tests.refusals import text_of


def test_episodes_are_on_disk_before_the_next_is_counted(tmp_path, monkeypatch):
  path, synced = tmp_path / "episodes.jsonl", []
  log = rollouts.EpisodeLog(path)
  assert log.episodes == [] and not path.exists()
  monkeypatch.setattr(rollouts.os, "fsync", lambda number: synced.append(path.read_text()))
  log.add({"a": 1})
  assert synced == ['{"a": 1}\n'] and log.episodes == [{"a": 1}]
  path.write_text('{"a": 1}\n{"b": \n{"c": 3}')
  assert (
    rollouts.EpisodeLog(path).episodes == [{"a": 1}, {"c": 3}]
    and path.read_text() == '{"a": 1}\n{"c": 3}\n'
  )
  log.add({"b": 2})
  assert (
    log.episodes == [{"a": 1}, {"b": 2}] and path.read_text() == '{"a": 1}\n{"c": 3}\n{"b": 2}\n'
  )


def test_videos_appear_whole_and_in_real_time(tmp_path, monkeypatch):
  replaced, replace, qualities, encoder = [], os.replace, [], rollouts.video.H264Encoder
  monkeypatch.setattr(
    rollouts.os,
    "replace",
    lambda old, new: replaced.append((old.name, new.name)) or replace(old, new),
  )
  monkeypatch.setattr(
    rollouts.video,
    "H264Encoder",
    lambda quality, *, rate: qualities.append(quality) or encoder(quality, rate=rate),
  )
  frames = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (20, 120, 220)])
  path = tmp_path / "deep" / "videos" / "a.mp4"
  for rate, expected in ((12.5, 12.5), (1 / 3, 1 / 3)):
    rollouts.write_video(path, frames, rate)
    with av.open(str(path)) as container:
      shown = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
      assert float(container.streams.video[0].average_rate) == pytest.approx(expected)
    np.testing.assert_allclose(shown, (20, 120, 220), atol=3)
  assert (
    replaced == [(".a.mp4.new", "a.mp4")] * 2
    and qualities == [23, 23]
    and [one.name for one in path.parent.iterdir()] == ["a.mp4"]
  )


def test_a_resume_with_other_weights_names_what_is_different(tmp_path):
  file, now = (
    tmp_path / "checkpoint.json",
    {"path": "P", "step": 9, "xxh64": "a", "normalization_xxh64": "b"},
  )
  rollouts.check_same_policy(file, now)
  file.write_text(json.dumps({**now, "path": "elsewhere", "step": 3}))
  rollouts.check_same_policy(file, now)
  file.write_text(json.dumps({**now, "xxh64": "c", "normalization_xxh64": "d"}))
  assert text_of(lambda: rollouts.check_same_policy(file, now)) == (
    f"--resume: P is not the policy that {file} names (xxh64: 'c' before, 'a' now; "
    "normalization_xxh64: 'd' before, 'b' now): the results would mix two policies; give "
    "--overwrite or another --workdir"
  )


def test_the_rate_so_far(tmp_path):
  log = rollouts.EpisodeLog(tmp_path / "episodes.jsonl")
  log.add({"error": "died", "success": True})
  assert log.success() == "" and log.valid == []
  for success in (True, False, False):
    log.add({"error": "", "success": success})
  assert log.success() == "success 33.3 %" and len(log.valid) == 3


def test_episodes_without_a_result_are_played_under_their_own_numbers(tmp_path):
  schedule = rollouts.Schedule(
    {"b": ("toy", 1), "suite/7": ("suite", 7)},
    episodes=2,
    first_seed=90,
    scene=3,
    actor="expert",
    videos=1,
  )
  jobs = [
    vector.Job(0, "b", 90, 3, "expert", True),
    vector.Job(1, "b", 91, 3, "expert", False),
    vector.Job(2, "suite/7", 90, 3, "expert", True),
    vector.Job(3, "suite/7", 91, 3, "expert", False),
  ]
  assert schedule.jobs == jobs and [schedule.episode(job) for job in jobs] == [0, 1, 0, 1]
  assert [schedule.video(jobs[i]) for i in (1, 2)] == [
    "videos/toy_b/eval_episode_1.mp4",
    "videos/suite_7/eval_episode_0.mp4",
  ]
  log = rollouts.EpisodeLog(tmp_path / "episodes.jsonl")
  assert log.missing(schedule) == jobs
  for task, episode, error in (("b", 0, ""), ("suite/7", 1, ""), ("suite/7", 0, "died")):
    log.add({"task": task, "episode": episode, "error": error})
  assert log.missing(schedule) == [jobs[1], jobs[2]]


def test_episodes_of_an_older_version_are_gone_on_with(tmp_path):
  """It spelled a key of the record in another way."""
  now = {"path": "p", "step": 3, "xxh64": "aa", "normalization_xxh64": "bb"}
  file = tmp_path / "checkpoint.json"
  file.write_text(json.dumps({"path": "q", "step": 1, "xxh64": "aa", "normalisation_xxh64": "bb"}))
  rollouts.check_same_policy(file, now)
  with pytest.raises(errors.UserError, match="normalization_xxh64: 'bb' before, 'cc' now"):
    rollouts.check_same_policy(file, now | {"normalization_xxh64": "cc"})
