"""Rollouts on paper: what the workers are asked to play, what is written and said of it, and the
planner by itself.
"""

import contextlib
import json
import os
import types

import av
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors, sim
from como_jax.observations import IMAGE, STATE, TASK
from como_jax.sim import base, vector
from como_jax.tasks import rollout
from tests.sim import toys
from tests.tasks.test_rollout import Fake, command


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  monkeypatch.setitem(sim.SIMULATORS, "toy", lambda: toys)


def text_of(call):
  with pytest.raises(errors.UserError) as caught:
    call()
  return str(caught.value)


@pytest.fixture(name="played")
def _played(monkeypatch):
  """A fleet of paper and a clock: every episode takes 3 s; what was asked of it."""
  told = types.SimpleNamespace(fleets=[], jobs=[], bars=[], lines=[], postfix=[], fails=set())
  clock = [100.0]

  class Fleet:
    def __init__(self, build, settings, *, workers):
      told.fleets.append((build, settings, workers))

    def run(self, jobs, planner):
      told.jobs.append(jobs)
      for job in jobs:
        clock[0] += 3
        error = "died" if job.seed in told.fails else ""
        frames = np.zeros((4, 8, 8, 3), np.uint8) if job.record else None
        yield vector.Outcome(
          job,
          success=job.seed % 2 == 0,
          steps=10,
          max_steps=200,
          plans=5,
          seconds=1.23456,
          initial_state=job.seed % 50,
          frames=frames,
          rate=10.0,
          error=error,
        )

  class Bar:
    def __init__(self, **settings):
      told.bars.append(settings)

    def __enter__(self):
      return self

    def __exit__(self, *unused):
      told.bars[-1]["updates"] = len(told.postfix)

    def write(self, line):
      told.lines.append(line)

    def update(self):
      told.postfix.append(None)

    def set_postfix_str(self, text, *, refresh):
      told.postfix[-1] = text

  monkeypatch.setattr(
    rollout.vector, "Fleet", lambda *given, **more: contextlib.nullcontext(Fleet(*given, **more))
  )
  monkeypatch.setattr(rollout.tqdm, "tqdm", Bar)
  monkeypatch.setattr(rollout.time, "monotonic", lambda: clock[0])
  return told


def test_what_is_played_written_and_said(played, tmp_path, capsys):
  work = tmp_path / "run"
  played.fails = {91}
  assert (
    rollout.run(
      command(
        work, tasks=("line", "far"), videos=1, workers=3, scene=2, timeout=50.0, max_steps=70
      ),
      policy=Fake(history=2),
    )
    == 1
  )
  ((build, settings, workers),) = played.fleets
  assert workers == 3 and build.func is toys.build and not build.keywords
  assert settings == vector.Settings(
    cameras=("side",), image_size=8, step_seconds=0.1, history=2, max_steps=70, timeout=50.0
  )
  wanted = [("line", 90), ("line", 91), ("line", 92), ("far", 90), ("far", 91), ("far", 92)]
  assert played.jobs == [
    [vector.Job(i, name, seed, 2, "policy", seed == 90) for i, (name, seed) in enumerate(wanted)]
  ]
  assert played.bars == [
    dict(total=6, initial=0, unit="episode", desc="rollout", mininterval=30.0, updates=6)
  ]
  assert played.postfix == [
    "success 100.0 %",
    "success 100.0 %",
    "success 100.0 %",
    "success 100.0 %",
    "success 100.0 %",
    "success 100.0 %",
  ]
  assert played.lines == [
    f"{name} episode 1 (seed 91) could not be played: died" for name in ("line", "far")
  ]
  out = capsys.readouterr().out.splitlines()
  assert (
    out[0] == "rollout: 6 of 6 episodes to play, 3 workers, 2 control steps (0.1 s) a policy step"
  )
  assert (
    out[-2] == "2 episodes could not be played and are not counted: --resume tries them again"
    and out[-1] == f"results: {work / 'results.json'}"
  )
  rows = [json.loads(line) for line in (work / "episodes.jsonl").read_text().splitlines()]
  assert rows[0] == {
    "task": "line",
    "episode": 0,
    "seed": 90,
    "scene": 2,
    "initial_state": 40,
    "success": True,
    "steps": 10,
    "max_steps": 200,
    "plans": 5,
    "seconds": 1.2346,
    "wall": 3.0,
    "video": "videos/toy_line/eval_episode_0.mp4",
    "error": "",
  }
  assert [row["video"] for row in rows] == [
    "videos/toy_line/eval_episode_0.mp4",
    "",
    "",
    "videos/toy_far/eval_episode_0.mp4",
    "",
    "",
  ]
  text = (work / "results.json").read_text()
  result = json.loads(text)
  assert text == json.dumps(result, indent=1) and (
    work / "eval_info.json"
  ).read_text() == json.dumps(json.loads((work / "eval_info.json").read_text()), indent=2)
  assert {
    key: result[key]
    for key in (
      "kind",
      "version",
      "policy",
      "cameras",
      "fps",
      "stride",
      "history",
      "seeds",
      "checkpoint",
    )
  } == {
    "kind": "como_jax rollout",
    "version": 1,
    "policy": "checkpoint",
    "cameras": ["side"],
    "fps": 20.0,
    "stride": 2,
    "history": 2,
    "seeds": [90, 92],
    "checkpoint": None,
  }
  played.fails = set()
  assert (
    rollout.run(
      command(
        work,
        tasks=("line", "far"),
        videos=1,
        workers=3,
        scene=2,
        timeout=50.0,
        max_steps=70,
        resume=True,
      ),
      policy=Fake(history=2),
    )
    == 0
  )
  assert [(job.number, job.task, job.seed) for job in played.jobs[1]] == [
    (1, "line", 91),
    (4, "far", 91),
  ], "those that failed, under their own numbers"
  assert played.bars[1]["initial"] == 4 and played.postfix[-2:] == [
    "success 80.0 %",
    "success 66.7 %",
  ]
  assert capsys.readouterr().out.startswith("rollout: 2 of 6 episodes to play")


def test_policies_without_a_checkpoint_have_a_pace_of_their_own(played, tmp_path, monkeypatch):
  monkeypatch.setattr(rollout.sys.stderr, "isatty", lambda: True, raising=False)
  assert rollout.run(command(tmp_path / "a", policy="expert", cameras=(), episodes=1)) == 0
  assert (
    rollout.run(
      command(tmp_path / "b", policy="random", cameras=(), episodes=1, videos=1, step_seconds=0.2)
    )
    == 0
  )
  assert [
    (settings.step_seconds, settings.history, settings.cameras) for _, settings, _ in played.fleets
  ] == [(0.05, 1, ()), (0.2, 1, ("front",))]
  assert [job.actor for jobs in played.jobs for job in jobs] == [
    "expert",
    "random",
  ] and played.bars[0]["mininterval"] == 1.0
  result = json.loads((tmp_path / "a" / "results.json").read_text())
  assert (
    result["policy_metadata"] is None
    and result["policy"] == "expert"
    and not (tmp_path / "a" / "checkpoint.json").exists()
  )


def test_a_policy_from_a_checkpoint_is_warmed_and_named(played, tmp_path, monkeypatch):
  warmed = []
  monkeypatch.setattr(
    rollout,
    "load",
    lambda config: Fake(
      warm_up=lambda: warmed.append((tmp_path / "run" / "checkpoint.json").exists())
    ),
  )
  monkeypatch.setattr(rollout, "identity", lambda path: {"path": path, "step": 3, "xxh64": "a"})
  assert rollout.run(command(tmp_path / "run", checkpoint="CHECKPOINT", episodes=1)) == 0
  assert warmed == [True] and (tmp_path / "run" / "checkpoint.json").read_text() == json.dumps(
    {"path": "CHECKPOINT", "step": 3, "xxh64": "a"}, indent=2
  )
  assert (
    rollout.run(
      command(tmp_path / "run", checkpoint="CHECKPOINT", episodes=1, overwrite=True), policy=Fake()
    )
    == 0
    and len(warmed) == 1
  )


def test_a_checkpoint_is_loaded_as_the_config_says(monkeypatch):
  from como_jax.serve import policy as serving

  asked = []
  monkeypatch.setattr(
    serving.Policy, "load", lambda path, **settings: asked.append((path, settings)) or "POLICY"
  )
  options = dict(robot="arm", num_sampling_steps=7, guidance_scale=2.0)
  config = command("w", checkpoint="C", workers=3, **options).config
  assert rollout.load(config) == "POLICY" and asked == [("C", {**options, "batch_size": 3})]
  config.checkpoint = ""
  assert text_of(lambda: rollout.load(config)) == (
    "config.checkpoint is empty: give the run directory or weights folder of a policy, or another "
    "config.policy (expert, random, zero)"
  )


def test_what_the_config_alone_shows_to_be_wrong():
  config = command("w", policy="expert").config
  rollout.check(config)
  config.checkpoint = "C"
  assert (
    text_of(lambda: rollout.check(config))
    == "config.policy='expert' does not use config.checkpoint: leave one of them out"
  )
  config.policy = "checkpoint"
  rollout.check(config)
  config.policy = "checkpont"
  assert text_of(lambda: rollout.check(config)) == (
    "config.policy='checkpont' is unknown: did you mean 'checkpoint'? (valid: checkpoint, "
    "expert, random, zero)"
  )


def test_tasks_cameras_and_arguments_of_the_simulator():
  def names(*tasks):
    return rollout.task_names(command("w", tasks=tasks).config, toys)

  assert names() == tuple(toys.TASKS) and names("line", "some_suite", "line", "some_suite/1") == (
    "line",
    "some_suite/0",
    "some_suite/1",
  )
  valid = ", ".join(sorted({*toys.TASKS, "some_suite"}))
  assert (
    text_of(lambda: names("some_suit"))
    == f"config.tasks: toy task 'some_suit' is unknown: did you mean 'some_suite'? (valid: {valid})"
  )

  def cameras(policy, *given, videos=0):
    return rollout.camera_names(command("w", cameras=given, videos=videos).config, toys, policy)

  assert (
    cameras(None) == ()
    and cameras(None, videos=1) == ("front",)
    and cameras(Fake(cameras=("side",))) == ("side",)
  )
  assert cameras(None, "side", "front") == ("side", "front") and cameras(
    Fake(cameras=("a", "b")), "side", "front"
  ) == ("side", "front")
  assert (
    text_of(lambda: cameras(Fake(cameras=("a", "b")), "side"))
    == "config.cameras names 1 cameras, the policy has 2 slots: a, b"
  )
  assert text_of(lambda: cameras(None, "frnt")) == (
    "toy has no camera 'frnt': did you mean 'front'? (valid: front, side); config.cameras names "
    "one for each of the policy's slots"
  )

  def build(**given):
    return rollout.builder(config_lib.ConfigDict({"simulator": "toy", "build": given}), toys)

  assert build(speed=2.0).keywords == {"speed": 2.0}
  for name in ("task", "cameras", "image_size", "stride", "scene", "spead"):
    assert text_of(lambda name=name: build(**{name: 1})).startswith(
      f"config.build: toy has no {name!r}: "
    )
  assert (
    text_of(lambda: build(spead=1))
    == "config.build: toy has no 'spead': did you mean 'speed'? (valid: speed)"
  )
  closed = []
  spec = rollout._spec(
    lambda task, **more: types.SimpleNamespace(
      spec=(task, more), close=lambda: closed.append(task)
    ),
    "line",
    ("a",),
    8,
  )
  assert spec == ("line", {"cameras": ("a",), "image_size": 8}) and closed == ["line"]


SPEC = base.Spec(
  name="toy/line",
  robot="toy",
  instruction="i",
  cameras={},
  state_names=("x",),
  action_names=("push", "unused"),
  action_low=np.zeros(2),
  action_high=np.ones(2),
  fps=20.0,
  stride=1,
  max_steps=9,
)


def planner(policy, cameras=("side",), *, execute=0, ensemble=0.0, seed=5):
  return rollout.Planner(policy, cameras, SPEC, execute=execute, ensemble=ensemble, seed=seed)


def waiting(number, plan, *values):
  return vector.Waiting(
    vector.Job(number, "line", 0),
    plan,
    [{STATE: value, TASK: "go", IMAGE + "side": value, "more": 0} for value in values],
  )


def test_the_planner_refuses_a_policy_that_does_not_fit():
  assert (
    text_of(lambda: planner(Fake(action_dim=3)))
    == "the policy gives 3 action numbers for robot 'toy', toy/line takes 2: push, unused"
  )
  assert (
    text_of(lambda: planner(Fake(), execute=5))
    == "config.execute = 5: the policy's chunks have 4 elements"
  )
  planner(Fake(), execute=4)
  for execute in (0, 4):
    assert text_of(lambda execute=execute: planner(Fake(), execute=execute, ensemble=0.5)) == (
      "config.ensemble needs overlapping chunks: set config.execute to 1..3, for example 1"
    )
  planner(Fake(), execute=3, ensemble=0.5)
  with pytest.raises(ValueError, match="zip"):
    planner(Fake(), ("side", "front"))


def test_the_planner_asks_for_all_at_once_with_noise_of_its_own():
  policy = Fake()
  plan = planner(policy)
  chunks = plan([waiting(3, 0, 1.0), waiting(7, 2, 2.0, 3.0)])
  assert [chunk.tolist() for chunk in chunks] == [[[1.0, 0.0]] * 4] * 2
  assert policy.calls[0][1] == [
    {STATE: value, TASK: "go", IMAGE + "wrist": value} for value in (2.0, 3.0)
  ]
  for found in (plan, planner(Fake(), seed=5), planner(Fake(), seed=6)):
    for numbers in ((3, 0), (3, 1), (4, 0)):
      found([waiting(*numbers, 1.0)])
  seeds = policy.seeds[1:]
  assert len(set(policy.seeds)) == 4 and all(0 <= seed < 2**31 for seed in policy.seeds)
  expected = [
    int(np.random.SeedSequence([5, *numbers]).generate_state(1)[0] >> 1)
    for numbers in ((3, 0), (3, 1), (4, 0))
  ]
  assert seeds == expected and policy.seeds[0] == int(
    np.random.SeedSequence([5, 3, 0, 7, 2]).generate_state(1)[0] >> 1
  )


def test_chunks_are_cut_and_averages_begin_anew_with_each_episode():
  class Counting(Fake):
    def infer(self, histories, *, seed=0):
      self.calls.append(histories)
      return np.full((len(histories), 4, 2), float(len(self.calls)), np.float32)

  assert planner(Counting(), execute=2)([waiting(0, 0, 1.0)])[0].shape == (2, 2)
  plan = planner(Counting(), execute=1, ensemble=1e-9)
  means = [
    [chunk[0, 0] for chunk in plan(asked)]
    for asked in (
      [waiting(0, 0, 1.0)],
      [waiting(0, 1, 1.0), waiting(1, 0, 1.0)],
      [waiting(0, 0, 1.0), waiting(1, 1, 1.0)],
    )
  ]
  np.testing.assert_allclose(np.concatenate(means), [1.0, 1.5, 2.0, 3.0, 2.5], rtol=1e-6)


def test_episodes_are_on_disk_before_the_next_is_counted(tmp_path, monkeypatch):
  path, synced = tmp_path / "episodes.jsonl", []
  log = rollout.Log(path)
  assert log.episodes == [] and not path.exists()
  monkeypatch.setattr(rollout.os, "fsync", lambda number: synced.append(path.read_text()))
  log.add({"a": 1})
  assert synced == ['{"a": 1}\n'] and log.episodes == [{"a": 1}]
  path.write_text('{"a": 1}\n{"b": \n{"c": 3}')
  assert (
    rollout.Log(path).episodes == [{"a": 1}, {"c": 3}]
    and path.read_text() == '{"a": 1}\n{"c": 3}\n'
  )
  log.add({"b": 2})
  assert (
    log.episodes == [{"a": 1}, {"b": 2}] and path.read_text() == '{"a": 1}\n{"c": 3}\n{"b": 2}\n'
  )


def test_videos_appear_whole_and_in_real_time(tmp_path, monkeypatch):
  replaced, replace, qualities, encoder = [], os.replace, [], rollout.video.H264Encoder
  monkeypatch.setattr(
    rollout.os,
    "replace",
    lambda old, new: replaced.append((old.name, new.name)) or replace(old, new),
  )
  monkeypatch.setattr(
    rollout.video,
    "H264Encoder",
    lambda quality, *, rate: qualities.append(quality) or encoder(quality, rate=rate),
  )
  frames = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (20, 120, 220)])
  path = tmp_path / "deep" / "videos" / "a.mp4"
  for rate, expected in ((12.5, 12.5), (1 / 3, 1 / 3)):
    rollout.write_video(path, frames, rate)
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
  rollout.same(file, now)
  file.write_text(json.dumps({**now, "path": "elsewhere", "step": 3}))
  rollout.same(file, now)
  file.write_text(json.dumps({**now, "xxh64": "c", "normalization_xxh64": "d"}))
  assert text_of(lambda: rollout.same(file, now)) == (
    f"--resume: P is not the policy that {file} names (xxh64: 'c' before, 'a' now; "
    "normalization_xxh64: 'd' before, 'b' now): the results would mix two policies; give "
    "--overwrite or another --workdir"
  )


def test_the_table_of_results(capsys):
  def row(value, count, **more):
    return dict(value=value, low=value / 2, high=1.0, count=count, **more)

  result = {
    "tasks": {
      "reach": row(0.5, 4, steps_to_success=41.6),
      "a long name of a task": row(0.0, 12, steps_to_success=None),
    },
    "overall": {"mean_over_tasks": row(0.25, 16)},
    "errors": [],
  }
  rollout.show(result, {"overall": {"eval_s": 61.4, "eval_ep_s": 3.456}})
  assert capsys.readouterr().out == (
    "reach                      50.0 % [25.0, 100.0]      4 episodes, 42 control steps to success\n"
    "a long name of a task        0.0 % [0.0, 100.0]     12 episodes\n"
    "mean over tasks            25.0 % [12.5, 100.0]     16 episodes\n"
    "against another trained policy on as many episodes, 50 points are detected (80 % power, 5 % "
    "two-sided); training recipes need several seeds each\n"
    "61 s, 3.46 s an episode\n"
  )


def test_the_rate_so_far():
  log = types.SimpleNamespace(episodes=[{"error": "died", "success": True}])
  assert rollout._running(log) == ""
  log.episodes += [
    {"error": "", "success": True},
    {"error": "", "success": False},
    {"error": "", "success": False},
  ]
  assert rollout._running(log) == "success 33.3 %"
