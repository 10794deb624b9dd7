"""Rollouts over the toy simulator: results, resuming, cameras, chunks; and the real Meta-World
once.
"""

import importlib.util
import json

import av
import numpy as np
import pytest

from como_jax import errors, sim
from como_jax.inference import fingerprints, rollout_run, rollouts
from como_jax.tasks import rollout
from tests.sim import toys
from tests.sim.toy_policy import Fake
from tests.tasks.toy_rollout import command


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  monkeypatch.setitem(sim.SIMULATORS, "toy", lambda: toys)


def lines(workdir):
  return [json.loads(line) for line in (workdir / rollouts.EPISODES).read_text().splitlines()]


def test_a_policy_is_evaluated(tmp_path, capsys):
  policy, work = Fake(), tmp_path / "run"
  assert rollout.run(command(work, tasks=("line", "far"), videos=1), policy=policy) == 0
  results, info = (
    json.loads((work / name).read_text()) for name in (rollout.RESULTS, rollout.EVAL_INFO)
  )
  assert [(e["task"], e["episode"], e["seed"], e["success"]) for e in results["episodes"]] == [
    *(("line", i, 90 + i, True) for i in range(3)),
    *(("far", i, 90 + i, False) for i in range(3)),
  ]
  assert [e["steps"] for e in results["episodes"]] == [10, 9, 8, 200, 200, 200], (
    "stops at the control step of success"
  )
  assert [e["initial_state"] for e in results["episodes"][:3]] == [40, 41, 42]
  assert (
    results["tasks"]["line"]["value"] == 1
    and 0.4 < results["tasks"]["line"]["low"] < 0.5
    and results["tasks"]["far"]["successes"] == 0
  )
  assert (
    results["overall"]["mean_over_tasks"]["value"] == results["overall"]["pooled"]["value"] == 0.5
  )
  assert (
    results["simulator"] == {"name": "toy", "version": "toy 1"}
    and results["stride"] == 2
    and results["seeds"] == [90, 92]
  )
  assert (
    results["policy_metadata"] == {"robot": "toy"}
    and "jax" in results["versions"]
    and results["config"]["execute"] == 0
  )

  assert [
    (row["task_group"], row["task_id"], row["metrics"]["successes"]) for row in info["per_task"]
  ] == [("toy", 0, [True] * 3), ("toy", 1, [False] * 3)]
  assert (
    info["overall"]["pc_success"] == info["per_group"]["toy"]["pc_success"] == 50
    and info["overall"]["n_episodes"] == 6
  )
  assert set(info["overall"]) >= {
    "avg_sum_reward",
    "avg_max_reward",
    "eval_s",
    "eval_ep_s",
    "video_paths",
  }
  assert info["overall"]["eval_s"] == pytest.approx(sum(e["wall"] for e in results["episodes"]))
  assert info["overall"]["video_paths"] == [
    "videos/toy_line/eval_episode_0.mp4",
    "videos/toy_far/eval_episode_0.mp4",
  ]
  with av.open(str(work / info["overall"]["video_paths"][0])) as container:
    frames = list(container.decode(video=0))
    assert (
      len(frames) == 6
      and container.streams.video[0].average_rate == 10
      and frames[0].to_ndarray(format="rgb24").shape == (8, 8, 3)
    )

  histories = policy.calls[0]
  assert set(histories[0][0]) == {"observation.state", "task", "observation.images.wrist"}, (
    "the simulator's camera fills the policy's slot"
  )
  assert (
    histories[0][0]["observation.images.wrist"][1, 1, 0] == 200
    and histories[0][0]["task"] == "go to one"
  )
  assert len(set(policy.seeds)) == len(policy.seeds) and all(
    0 <= seed < 2**31 for seed in policy.seeds
  )
  printed = capsys.readouterr().out
  assert "100.0 % [43.9, 100.0]" in printed and "mean over tasks" in printed


def test_the_same_episodes_for_any_number_of_workers(tmp_path):
  keep = ("task", "episode", "seed", "success", "steps", "plans")
  found = []
  for workers in (1, 3):
    rollout.run(
      command(tmp_path / str(workers), workers=workers, tasks=("line", "far"), max_steps=50),
      policy=Fake(),
    )
    found.append(
      [
        [e[key] for key in keep]
        for e in json.loads((tmp_path / str(workers) / rollout.RESULTS).read_text())["episodes"]
      ]
    )
  assert found[0] == found[1]


def test_a_killed_run_goes_on(tmp_path):
  work = tmp_path / "run"
  rollout.run(command(work), policy=Fake())
  whole = json.loads((work / rollout.RESULTS).read_text())
  text = (work / rollouts.EPISODES).read_text().splitlines(keepends=True)
  (work / rollouts.EPISODES).write_text(text[0] + text[1][:20])  # cut off while it was written
  (work / rollout.RESULTS).unlink()
  policy = Fake()
  rollout.run(command(work, resume=True), policy=policy)
  assert sum(len(call) for call in policy.calls) == sum(e["plans"] for e in lines(work)[1:]), (
    "the first episode is not played again"
  )
  assert (
    json.loads((work / rollout.RESULTS).read_text())["tasks"] == whole["tasks"]
    and len(lines(work)) == 3
  )
  assert lines(work)[0] == json.loads(text[0])
  policy = Fake()
  assert rollout.run(command(work, resume=True), policy=policy) == 0 and not policy.calls
  with pytest.raises(errors.UserError, match="not empty"):
    rollout.run(command(work), policy=policy)
  with pytest.raises(errors.UserError, match="episodes"):
    rollout.run(command(work, resume=True, episodes=4), policy=policy)


def test_what_cannot_be_played_is_reported_and_tried_again(tmp_path, capsys, monkeypatch):
  work = tmp_path / "run"
  assert rollout.run(command(work, tasks=("line", "raises"), episodes=2), policy=Fake()) == 1
  results = json.loads((work / rollout.RESULTS).read_text())
  found = [(e["task"], e["seed"], e["error"]) for e in results["errors"]]
  assert found == [("raises", 90 + i, "FloatingPointError: unstable") for i in range(2)]
  assert list(results["tasks"]) == ["line"] and results["overall"]["pooled"]["count"] == 2
  assert "2 episodes could not be played" in capsys.readouterr().out
  assert json.loads((work / rollout.EVAL_INFO).read_text())["overall"]["n_episodes"] == 2
  policy = Fake()
  assert (
    rollout.run(command(work, tasks=("line", "raises"), episodes=2, resume=True), policy=policy)
    == 1
  )
  assert all(
    seen["task"] == "raise" for call in policy.calls for history in call for seen in history
  )
  assert (
    len(lines(work)) == 6 and len(json.loads((work / rollout.RESULTS).read_text())["episodes"]) == 4
  )


def test_a_rollout_is_of_one_policy(tmp_path, monkeypatch):
  weights = tmp_path / "policy" / "weights"
  weights.mkdir(parents=True)
  (weights / "config.json").write_text("{}")
  file, work = weights / "params.safetensors", tmp_path / "run"
  file.write_bytes(b"first")
  words = dict(checkpoint=str(weights.parent), workers=1)

  class Retrained(Fake):
    def infer(self, histories, *, seed=0):
      file.write_bytes(b"second")  # training goes on
      return super().infer(histories, seed=seed)

  monkeypatch.setattr(rollout_run, "load_policy", lambda options: Retrained(warm_up=lambda: None))
  first = fingerprints.of_policy(str(weights.parent))
  assert rollout.run(command(work, **words)) == 0
  assert json.loads((work / rollout.RESULTS).read_text())["checkpoint"] == first, (
    "what has been loaded"
  )
  before = {path.name: path.read_bytes() for path in work.iterdir()}
  with pytest.raises(
    errors.UserError,
    match="policy is not the policy that .*run/checkpoint.json names .xxh64: .* before, .* now",
  ):
    rollout.run(command(work, resume=True, **words))
  assert {path.name: path.read_bytes() for path in work.iterdir()} == before
  file.write_bytes(b"first")
  assert rollout.run(command(work, resume=True, **words)) == 0
  file.write_bytes(b"second")
  assert rollout.run(command(work, overwrite=True, **words)) == 0


def test_chunks_are_cut_and_averaged(tmp_path):
  class Counting(Fake):
    def infer(self, histories, *, seed=0):
      self.calls.append(histories)
      return np.full((len(histories), 4, 2), 0.1 * len(self.calls), np.float32)

  moved = {}
  for name, changes in {
    "cut": dict(execute=1),
    "averaged": dict(execute=1, ensemble=1e-6),
    "whole": {},
  }.items():
    policy = Counting()
    rollout.run(
      command(tmp_path / name, episodes=1, seed=0, max_steps=8, workers=1, **changes), policy=policy
    )
    states = [call[0][0]["observation.state"][0] for call in policy.calls]
    moved[name] = np.diff(states)
  np.testing.assert_allclose(moved["cut"], 0.02 * np.array([0.1, 0.2, 0.3]), rtol=1e-4)
  np.testing.assert_allclose(moved["averaged"], 0.02 * np.array([0.1, 0.15, 0.2]), rtol=1e-4)
  assert len(moved["whole"]) == 0, "one request for 4 elements of 2 control steps"


@pytest.mark.parametrize("policy, rate", [("expert", 1.0), ("random", 0.0), ("zero", 0.0)])
def test_policies_without_a_checkpoint(tmp_path, policy, rate):
  rollout.run(command(tmp_path / "run", policy=policy, cameras=(), episodes=2, seed=50))
  results = json.loads((tmp_path / "run" / rollout.RESULTS).read_text())
  assert (
    results["tasks"]["line"]["value"] == rate
    and results["checkpoint"] is None
    and results["cameras"] == []
  )
  assert [e["plans"] for e in results["episodes"]] == [0, 0]


@pytest.mark.parametrize(
  "changes, policy, message",
  [
    (dict(tasks=("lin",)), {}, "did you mean 'line'"),
    (dict(tasks=("some",)), {}, "did you mean 'some_suite'"),
    (dict(simulator="toi"), {}, "simulator 'toi' is unknown"),
    (dict(cameras=("frnt",)), {}, "no camera 'frnt'.*did you mean 'front'"),
    (dict(cameras=()), {}, "no camera 'wrist'"),
    (dict(cameras=("front", "side")), {}, "names 2 cameras, the policy has 1 slots: wrist"),
    (
      {},
      dict(action_dim=7),
      "gives 7 action numbers for robot 'toy', toy/line takes 2: push, unused",
    ),
    (dict(execute=5), {}, "execute = 5.*4 elements"),
    (dict(ensemble=0.1), {}, "set config.execute to 1..3"),
    (dict(policy="exprt"), None, "did you mean 'expert'"),
    (dict(policy="expert", checkpoint="runs/x"), None, "does not use config.checkpoint"),
    (dict(episodes=0), {}, "config.episodes=0, expected a whole number of at least 1"),
    (dict(timeout=0.0), {}, "config.timeout=0.0, expected a number of at least 1"),
    ({}, None, "config.checkpoint is empty"),
  ],
)
def test_mistakes_are_refused_before_anything_is_written(tmp_path, changes, policy, message):
  with pytest.raises(errors.UserError, match=message):
    rollout.run(
      command(tmp_path / "run", **changes), policy=None if policy is None else Fake(**policy)
    )
  assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_see_stops(tmp_path):
  with pytest.raises(
    errors.UserError, match="toy/black seed 9[012] camera side: frame 0 of 1 is of a single color"
  ):
    rollout.run(command(tmp_path / "run", tasks=("black",)), policy=Fake())


def test_suites_are_spelled_out_and_have_the_layout_of_lerobot(tmp_path):
  assert (
    rollout.run(
      command(tmp_path / "run", tasks=("some_suite", "line"), episodes=1, videos=1), policy=Fake()
    )
    == 0
  )
  info = json.loads((tmp_path / "run" / rollout.EVAL_INFO).read_text())
  assert [(row["task_group"], row["task_id"], row["task"]) for row in info["per_task"]] == [
    ("some_suite", 0, "some_suite/0"),
    ("some_suite", 1, "some_suite/1"),
    ("toy", 0, "line"),
  ]
  assert (
    info["per_group"]["some_suite"]["n_episodes"] == 2
    and info["per_group"]["toy"]["n_episodes"] == 1
  )
  assert (tmp_path / "run/videos/some_suite_1/eval_episode_0.mp4").is_file()


@pytest.mark.sim
def test_metaworld(tmp_path):
  if importlib.util.find_spec("metaworld") is None:
    pytest.skip("pip install -r requirements-sim.txt")
  keep = ("task", "episode", "success", "steps")
  found = []
  for name, changes in {"blind": {}, "recorded": dict(videos=1)}.items():
    work = tmp_path / name
    assert (
      rollout.run(
        command(
          work,
          simulator="metaworld",
          tasks=("drawer-close", "reach"),
          policy="expert",
          cameras=("corner4",),
          image_size=32,
          episodes=1,
          workers=1,
          **changes | dict(seed=0),
        )
      )
      == 0
    )
    found.append(
      [
        [e[key] for key in keep]
        for e in json.loads((work / rollout.RESULTS).read_text())["episodes"]
      ]
    )
  assert found[0] == found[1], "looking changes nothing"
  assert all(success for _, _, success, _ in found[0])
  with av.open(str(tmp_path / "recorded/videos/metaworld_reach/eval_episode_0.mp4")) as container:
    frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
  assert (
    len(frames) > 5
    and min(frame.std() for frame in frames) > 5
    and np.abs(frames[0].astype(int) - frames[-1]).max() > 50
  )
