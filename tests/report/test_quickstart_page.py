"""The end of a quickstart: the numbers it gathers, the lines it prints, and its page."""

import json

import pytest

from como_jax.quickstart import products
from como_jax.report import quickstart_page
from como_jax.tasks import quickstart as task
from tests.data import makers
from tests.quickstart import finished
from tests.quickstart.finished import MOTION, ROWS, write


@pytest.fixture(name="half")
def _half(tmp_path):
  return finished.half(tmp_path)


@pytest.fixture(name="whole")
def _whole(tmp_path):
  return finished.whole(tmp_path)


def test_the_numbers_of_both_stages(whole):
  assert quickstart_page.motion_numbers(products.read(whole)) == MOTION | {
    "probe_report": str(whole / "probe" / "report.html"),
    "weights": str(whole / "motion" / "weights"),
  }
  assert quickstart_page.policy_numbers(products.read(whole)) == {
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
  assert quickstart_page.policy_numbers(products.read(half)) == dict.fromkeys(
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
  assert quickstart_page.policy_numbers(products.read(half))["success"] is None
  fewer = {
    name: {key: value for key, value in row.items() if "mse" not in key and key != "lp_gain"}
    for name, row in ROWS.items()
  }
  write(half / "probe" / "metrics.json", {"rows": fewer})
  found = quickstart_page.motion_numbers(products.read(half))
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
    **quickstart_page.motion_numbers(products.read(whole)),
    **quickstart_page.exam_numbers(products.read(whole)),
    **quickstart_page.policy_numbers(products.read(whole)),
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
