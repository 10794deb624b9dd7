"""Rollouts on paper: what the workers are asked to play, what is written and said of it."""

import contextlib
import json
import types

import numpy as np
import pytest

from como_jax import sim
from como_jax.inference import fingerprints, rollout_run, rollouts
from como_jax.sim import vector
from como_jax.tasks import rollout
from tests.sim import toys
from tests.sim.toy_policy import Fake
from tests.tasks.toy_rollout import command


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  monkeypatch.setitem(sim.SIMULATORS, "toy", lambda: toys)


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
    rollout_run.vector,
    "Fleet",
    lambda *given, **more: contextlib.nullcontext(Fleet(*given, **more)),
  )
  monkeypatch.setattr(rollouts.tqdm, "tqdm", Bar)
  monkeypatch.setattr(rollouts.time, "monotonic", lambda: clock[0])
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
  monkeypatch.setattr(rollouts.sys.stderr, "isatty", lambda: True, raising=False)
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
    rollout_run,
    "load_policy",
    lambda options: Fake(
      warm_up=lambda: warmed.append((tmp_path / "run" / "checkpoint.json").exists())
    ),
  )
  monkeypatch.setattr(
    fingerprints, "of_policy", lambda path: {"path": path, "step": 3, "xxh64": "a"}
  )
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
