"""The end of a quickstart: the numbers it gathers, the lines it prints, its page, and the request
to a server (on paper).
"""

import contextlib
import itertools
import json
import queue
import threading
import types

import numpy as np
import pytest

from como_jax.observations import IMAGE, STATE, TASK
from como_jax.tasks import quickstart_report as task
from tests import limits
from tests.data import makers


def write(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value))


ROWS = {
  "trained": {
    "lp_mse": [0.25, 0.01],
    "lp_gain": [0.5, 0.02],
    "state_lp_mse": [0.3, 0.1],
    "mlp_mse": 0.2,
    "s_pcfc": 0.1,
    "effective_rank": 7.0,
    "psnr": 30.0,
    "copy_ratio": 0.8,
    "copy_ratio_moving": 0.7,
  },
  "untrained": {
    "lp_mse": [0.75, 0.01],
    "state_lp_mse": [0.6, 0.1],
    "mlp_mse": [0.7, 0.1],
    "s_pcfc": 0.9,
  },
  "copy-current-frame": {"psnr": 25.0},
}
MOTION = {
  "lp_mse": 0.25,
  "lp_mse_random": 0.75,
  "lp_gain": [0.5, 0.02],
  "state_lp_mse": 0.3,
  "state_lp_mse_random": 0.6,
  "mlp_mse": 0.2,
  "mlp_mse_random": 0.7,
  "s_pcfc": 0.1,
  "s_pcfc_random": 0.9,
  "effective_rank": 7.0,
  "psnr": 30.0,
  "psnr_copy_last": 25.0,
  "copy_ratio": 0.8,
  "copy_ratio_moving": 0.7,
  "pairs_per_s": 120.5,
  "wait_share": 0.25,
  "steps": 500,
}
RESULTS = {
  "overall": {"mean_over_tasks": {"value": 0.75, "low": 0.5, "high": 0.9, "count": 8}},
  "tasks": {
    "reach": {"value": 1.0, "low": 0.6, "high": 1.0, "count": 4},
    "push": {"value": 0.5, "low": 0.2, "high": 0.8, "count": 3},
  },
  "episodes": [
    {"task": "reach", "video": "a.mp4", "success": True},
    {"task": "push", "video": "", "success": True},
    {"task": "push", "video": "b.mp4", "success": False},
  ],
}
SERVED = {"requests": 20, "round_trip_ms": 12.34, "chunk": 8}


@pytest.fixture(name="half")
def _half(tmp_path):
  """A quickstart on data without actions: the first stage alone."""
  write(tmp_path / "probe" / "metrics.json", {"rows": ROWS})
  write(
    tmp_path / "motion" / "speed.json",
    {key: MOTION[key] for key in ("pairs_per_s", "wait_share", "steps")},
  )
  return tmp_path


@pytest.fixture(name="whole")
def _whole(half):
  lines = [
    {"step": step, "kind": "validation", "action_mse": value, "latent_mse": 2 * value, "other": 9.0}
    for step, value in ((1, 0.5), (2, 0.25))
  ]
  lines += [{"step": 2, "kind": "train", "loss": 1.5, "action": 0.5, "rate": 0.1}]
  (half / "policy").mkdir()
  (half / "policy" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  (half / "motion" / "metrics.jsonl").write_text(
    json.dumps({"step": 3, "kind": "train", "loss": 2.5, "psnr": 20.0})
    + "\n"
    + json.dumps({"step": 3, "kind": "validation", "s_pcfc": 0.5, "psnr": 21.0})
    + "\n"
  )
  write(half / "policy" / "speed.json", {"steps": 300, "examples_per_s": 42.0})
  write(half / "rollout" / "results.json", RESULTS)
  write(half / "serve" / "serve.json", SERVED)
  write(half / "quickstart.json", {"source": "bundled"})
  for name in ("a.mp4", "b.mp4"):
    makers.write_video(half / "rollout" / name, 12)
  return half


def test_the_numbers_of_both_stages(whole):
  assert task.motion_numbers(whole) == MOTION | {
    "probe_report": str(whole / "probe" / "report.html"),
    "weights": str(whole / "motion" / "weights"),
  }
  assert task.policy_numbers(whole) == {
    "action_mse": 0.25,
    "latent_mse": 0.5,
    "policy_steps": 300,
    "examples_per_s": 42.0,
    "success": 0.75,
    "success_low": 0.5,
    "success_high": 0.9,
    "episodes": 8,
    "round_trip_ms": 12.34,
    "policy_weights": str(whole / "policy" / "weights"),
  }


def test_what_was_left_out_has_no_numbers(half):
  assert task.policy_numbers(half) == dict.fromkeys(
    (
      "action_mse",
      "latent_mse",
      "policy_steps",
      "examples_per_s",
      "success",
      "success_low",
      "success_high",
      "episodes",
      "round_trip_ms",
      "policy_weights",
    )
  )
  write(half / "rollout" / "results.json", {"overall": None})
  assert task.policy_numbers(half)["success"] is None
  fewer = {
    name: {key: value for key, value in row.items() if "mse" not in key and key != "lp_gain"}
    for name, row in ROWS.items()
  }
  write(half / "probe" / "metrics.json", {"rows": fewer})
  found = task.motion_numbers(half)
  assert [
    found[key] for key in ("lp_mse", "lp_mse_random", "lp_gain", "mlp_mse", "mlp_mse_random")
  ] == [None] * 5 and found["psnr"] == 30.0


@pytest.fixture(name="pages")
def _pages(monkeypatch):
  """What is given to the page's writer."""
  pages = []
  monkeypatch.setattr(task.report, "write", lambda path, page: pages.append((path, page)))
  monkeypatch.setattr(task.rundir, "versions", lambda: {"jax": "1"})
  monkeypatch.setattr(task.rundir, "hardware", lambda: {"cores": "2"})
  return pages


LAST = (
  "All metrics, reconstructions and probes of the motion model: probe/report.html beside this page."
)


def test_the_page_the_summary_and_the_last_lines(whole, pages, capsys):
  task.finish(whole, seconds={"motion": 61.26, "serve": 2.0}, skipped={"thing": "no reason"})
  assert (
    capsys.readouterr().out
    == f"""
LP-MSE  0.250  (untrained model 0.750; 1 = z says nothing of the action, 0 = everything)
        gain over the untrained model 0.500 ± 0.020 on the same held-out episodes
S-PCFC  0.100  (untrained 0.900; 1 = z only encodes the second frame)
PSNR    30.00 dB  (copying the current frame 25.00 dB; error on moving pixels 0.700 of the copy's)
policy  action error 0.250 on held-out demonstrations (0 = perfect, 1 = the mean action, 2 = a \
random draw)
success 75 %  (95 % interval 50 to 90 %, 8 episodes)
served  12.3 ms a request
no thing: no reason
speed   120 pairs/s, 63 s in all
summary {whole / "summary.json"}
report  {whole / "report.html"}
"""
  )
  expected = {
    **task.motion_numbers(whole),
    **task.exam_numbers(whole),
    **task.policy_numbers(whole),
    "seconds": 63.26,
    "seconds_by_stage": {"motion": 61.26, "serve": 2.0},
    "left_out": {"thing": "no reason"},
    "report": str(whole / "report.html"),
  }
  assert (whole / "summary.json").read_text() == json.dumps(expected, indent=2)
  ((path, page),) = pages
  assert path == whole / "report.html" and page.title == "Quick start: motion model and policy"
  assert (
    page.metrics["trained"]["lp_mse"] == (0.25, 0.01)
    and page.metrics["trained"]["mlp_mse"] == 0.2
    and list(page.metrics) == list(ROWS)
  )
  assert page.curves == {
    "motion loss": ([3], [2.5]),
    "motion psnr": ([3], [20.0]),
    "validation/motion s_pcfc": ([3], [0.5]),
    "validation/motion psnr": ([3], [21.0]),
    "policy loss": ([2], [1.5]),
    "policy action": ([2], [0.5]),
    "validation/policy action_mse": ([1, 2], [0.5, 0.25]),
    "validation/policy latent_mse": ([1, 2], [1.0, 0.5]),
  }
  assert page.notes == [
    "thing was left out: no reason",
    "Policy: squared error of one sampled chunk on held-out demonstrations 0.250 in units of the "
    "actions' variance (0 is perfect; always saying the mean action gets 1, a random draw from "
    "the actions' distribution 2).",
    (
      "Server: 20 requests of one client over a websocket, 12.3 ms a round trip (median), chunks "
      "of 8 actions."
    ),
    LAST,
  ]
  assert (page.config, page.versions, page.hardware) == (
    {"source": "bundled"},
    {"jax": "1"},
    {"cores": "2"},
  )
  assert page.time == {"motion, seconds": 61.3, "serve, seconds": 2.0}
  assert (
    page.rollouts.rates == {"reach": (1.0, 0.6, 1.0), "push": (0.5, 0.2, 0.8)}
    and page.rollouts.episodes == 4
  )
  assert list(page.rollouts.films) == ["reach: success", "push: failure"]
  film = page.rollouts.films["reach: success"]
  assert film.shape == (6, 128, 128, 3) and [makers.number(image) for image in film] == [
    0,
    2,
    4,
    7,
    9,
    11,
  ]


def test_the_exam_stands_in_the_summary_on_the_page_and_in_the_last_lines(whole, pages, capsys):
  row = {
    "kind": "model",
    "verdict": "motion without readable appearance",
    "s": 0.5,
    "s_low": 0.4,
    "s_high": 0.6,
    "e_z": 0.7,
    "e_z_low": 0.68,
    "e_z_high": 0.72,
    "minus_components": -0.2,
    "excess/scene": 0.05,
    "excess/scene_low": 0.02,
    "excess/camera": 0.03,
    "excess/camera_high": 0.9,
  }
  write(
    whole / "exam" / "exam.json",
    {"rows": {"trained": row, "first picture": {"kind": "cheat", "e_z": 1.0}}},
  )
  task.finish(whole, seconds={}, skipped={})
  assert (
    "exam    motion without readable appearance: S 0.50 [0.40, 0.60] (0 = as one picture, 1 = "
    "as both); appearance 0.05 (0 = chance"
  ) in capsys.readouterr().out
  summary = json.loads((whole / "summary.json").read_text())
  assert (
    summary["motion_score"],
    summary["motion_score_low"],
    summary["appearance"],
    summary["exam_error_minus_components"],
  ) == (0.5, 0.4, 0.05, -0.2)
  assert [one.name for one in pages[0][1].exam.rows] == ["trained", "first picture"]
  (whole / "exam" / "exam.json").unlink()


def test_the_page_and_the_last_lines_without_a_policy(half, pages, capsys):
  write(
    half / "probe" / "metrics.json",
    {"rows": {**ROWS, "trained": {**ROWS["trained"], "lp_mse": None, "lp_gain": [0.5, None]}}},
  )
  task.finish(half, seconds={}, skipped={})
  lines = capsys.readouterr().out.splitlines()
  assert lines[1].startswith(
    "LP-MSE  not measured (no actions in the data)  (untrained model 0.750;"
  )
  assert lines[2] == "        gain over the untrained model 0.500 on the same held-out episodes"
  assert [line.partition(" ")[0] for line in lines[3:]] == [
    "S-PCFC",
    "PSNR",
    "speed",
    "summary",
    "report",
  ]
  assert pages[0][1].notes == [LAST] and pages[0][1].rollouts is None and pages[0][1].config == {}
  write(
    half / "probe" / "metrics.json",
    {
      "rows": {
        **ROWS,
        "trained": {key: value for key, value in ROWS["trained"].items() if key != "lp_gain"},
      }
    },
  )
  task.finish(half, seconds={}, skipped={})
  assert "gain" not in capsys.readouterr().out


@pytest.fixture(name="served")
def _served(tmp_path, monkeypatch):
  """Serves on paper: (function, what was seen of it)."""
  seen = types.SimpleNamespace(settings=[], asked=[], clients=[], ended=[])
  policy = types.SimpleNamespace(cameras=("b", "a"), state_dim=2)
  clock, asked = itertools.count(100.0, 5.0), itertools.count()

  class Server:
    fails = False

    def __init__(self, given, settings):
      assert given is policy
      seen.settings.append(settings)

    async def serve(self, stop, *, started):
      if self.fails:
        raise OSError("no port")
      started(4321)
      await stop.wait()
      seen.ended.append(True)

  class Client:
    def __init__(self, host, port):
      seen.clients.append((host, port))

    def infer(self, observation):
      seen.asked.append(observation)
      return {"actions": [[1.0, 2.0, 3.0]] * 8}

  def perf_counter():  # the first request takes 4 ms, all others 1 ms
    request, end = divmod(next(asked), 2)
    return (10 * request + end * (1 if request else 4)) / 1e3

  monkeypatch.setattr(task.serving.Policy, "load", lambda path: policy)
  monkeypatch.setattr(task.server, "Server", Server)
  monkeypatch.setattr(task.client, "Client", lambda *place: contextlib.nullcontext(Client(*place)))
  monkeypatch.setattr(
    task, "time", types.SimpleNamespace(monotonic=lambda: next(clock), perf_counter=perf_counter)
  )
  data = makers.shards(tmp_path / "data", (5, 6), cameras=("a", "b"))
  seen.policy, seen.Server = policy, Server
  return (
    lambda: task.serve_one(tmp_path / "policy", tmp_path / "data", tmp_path / "out" / "serve.json"),
    seen,
    data,
  )


def test_one_client_asks_a_server_of_this_machine(served, tmp_path, capsys):
  serve_one, seen, data = served
  serve_one()
  assert (seen.settings[0].port, seen.settings[0].batch_size, seen.settings[0].host) == (
    0,
    1,
    "127.0.0.1",
  )
  assert seen.clients == [("127.0.0.1", 4321)] and seen.ended == [True] and len(seen.asked) == 20
  observation, read = seen.asked[0], makers.segments(data)[1]
  assert set(observation) == {IMAGE + "a", IMAGE + "b", STATE, TASK}
  np.testing.assert_array_equal(observation[IMAGE + "b"], read.images(0, "b", [0])[0])
  np.testing.assert_array_equal(observation[STATE], read.numbers(0, "state", 0, 1)[0])
  assert observation[TASK] == "task 0"
  said = json.loads((tmp_path / "out" / "serve.json").read_text())
  assert said == {
    "requests": 20,
    "chunk": 8,
    "action_dim": 3,
    "first_ms": pytest.approx(4),
    "round_trip_ms": pytest.approx(1),
    "warm_up_s": 5.0,
  }
  assert (tmp_path / "out" / "serve.json").read_text().startswith('{\n  "requests": 20')
  assert (
    capsys.readouterr().out
    == "served: 20 requests over a websocket, chunks [8, 3], 1.0 ms a round trip\n"
  )
  seen.policy.state_dim = 0
  serve_one()
  state = seen.asked[-1][STATE]
  assert state.shape == (0,) and state.dtype == np.float32


def test_a_server_that_does_not_start_keeps_nobody_waiting(served, tmp_path, monkeypatch):
  serve_one, seen, _ = served
  seen.Server.fails, said = True, queue.Queue()
  monkeypatch.setattr(threading, "excepthook", said.put)
  with pytest.raises(RuntimeError, match="^the policy server did not start; its error is above$"):
    serve_one()
  assert (
    not (tmp_path / "out").exists()
    and str(said.get(timeout=limits.SAFETY_NET).exc_value) == "no port"
  )
