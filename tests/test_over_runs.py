"""The tables of repeated runs: the stored runs of the co-training page, and the page that its
benchmark writes.
"""

import argparse
import json
import re
import sys

import numpy as np
import pytest

from como_jax import errors
from tests.end_to_end import program

RESULTS = program.ROOT / "benchmarks" / "results"
STORED = RESULTS / "2026-11-25-co-training-cpu.json"


@pytest.fixture(name="load", scope="module")
def _load():
  with program.benchmarks("over_runs", "co_training", "variants", "common") as load:
    yield load


def runs_of(rates, *, seed=0, episodes=50):
  """Records of a benchmark: two tasks of `episodes` episodes a run."""
  rng, found = np.random.default_rng(seed), []
  for rate in rates:
    won = (rng.random((2, episodes)) < rate).tolist()
    found.append(
      {
        "tasks": {
          task: [sum(one), episodes] for task, one in zip(("push", "pull"), won, strict=True)
        },
        "outcomes": sum(won, []),
        "action_mse": 0.5,
        "latent_mse": None,
      }
    )
  return found


def test_the_page_holds_what_the_stored_runs_say(load):
  """The run is the unit: +10.2 [1.1, 19.3], p = 0.040, and 0.28 after Holm's correction for eight
  comparisons.
  """
  over_runs = load("over_runs")
  text = over_runs.text(over_runs.read(json.loads(STORED.read_text())), margin=5)
  assert (
    "| dit, + CoMo labels | 91 89 79 of 150 | 57.6 % [46.9, 68.2] | "
    "+10.2 points [+1.1, +19.3], p = 0.040, n = 3 runs | 0.28 |" in text
  )
  assert (
    "| gpt, + true motion | 109 92 86 of 150 | 63.8 % [44.0, 83.5] | "
    "-3.6 points [-28.1, +21.0], p = 0.597, n = 3 runs | 1.00 |" in text
  )
  assert (
    "standard deviation of 6.7 points): 22 points for one comparison, 62 for the first of 8" in text
  )
  assert (
    "| dit, + CoMo labels less dit, + true motion | "
    "+0.0 points [-23.4, +23.4], p = 1.000, n = 3 runs | 1.00 | not shown |" in text
  )
  assert "from 1 motion model of each kind" in text and "n = 1: no interval" in text
  page = STORED.with_suffix(".md").read_text()
  assert text.strip() in page, (
    "made again by: python benchmarks/over_runs.py "
    "benchmarks/results/2026-11-25-co-training-cpu.json"
  )


def test_equal_is_said_of_intervals_within_the_margin(load):
  over_runs = load("over_runs")
  rates = {"dit, robot only": [0.5, 0.52, 0.51], "gpt, robot only": [0.51, 0.52, 0.5]}
  wide, narrow = (over_runs.text(over_runs.Table(rates, 100), margin=margin) for margin in (5, 2))
  assert (
    "| yes |" in wide
    and "within 5 points" in wide
    and "| yes |" not in narrow
    and "| not shown |" in narrow
  )
  # no labels are compared
  assert "against robot only, runs paired" in wide and "motion model" not in wide


def test_the_motion_model_is_the_unit_where_there_are_several(load):
  """CoMo less VQ labels: 0.1 on the labels of "a" (two runs), 0.3 on those of "b": 0.2, and t of 1
  degree of freedom.
  """
  over_runs = load("over_runs")
  won = {"dit, + CoMo labels": [60, 70, 80], "dit, + VQ labels": [50, 60, 50]}
  stored = {"episodes": 100, "successes": won, "models": ["a", "a", "b"]}
  told = over_runs.text(over_runs.read(stored), margin=5)
  assert "+16.7 points [-12.0, +45.4], p = 0.130, n = 3 runs" in told
  assert (
    "2 motion models of each kind" in told
    and "for kinds of motion models n = 2: dit, + CoMo" in told
  )
  assert (
    "labels +20.0 points [-107.1, +147.1], p = 0.295, n = 2 motion models, Holm's p 0.30." in told
  )
  unknown = over_runs.text(over_runs.read(stored | {"models": None}), margin=5)
  assert "does not say which motion models" in unknown and "of each kind" not in unknown
  runs = {name: runs_of([rate / 100 for rate in rates]) for name, rates in won.items()}
  assert "from 1 motion model of each kind" in over_runs.text(over_runs.read(runs), margin=5)


@pytest.mark.parametrize(
  "name, content, message",
  [
    ("run.json", "", r"run.json: no such file: did you mean 'runs.json'\?"),
    ("runs.json", "{", "runs.json: expected JSON "),
    ("runs.json", "[1]", "runs.json: expected a JSON object, found list"),
    ("runs.json", '{"episode": 5}', r"episode: expected runs, each with .*did you mean 'episodes'"),
    ("runs.json", '{"successes": {"a, b": [1]}}', "episodes = None: expected how many"),
    (
      "runs.json",
      '{"successes": {"a, b": []}, "episodes": 5}',
      "a, b: expected at least one run, found none",
    ),
    (
      "runs.json",
      '{"successes": {}, "episodes": 5}',
      "successes: expected at least one run, found none",
    ),
    (
      "runs.json",
      '{"successes": {"a, b": [1, 2]}, "episodes": 5, "models": [1]}',
      "each of 2 runs, found 1",
    ),
  ],
)
def test_a_file_that_is_wrong_is_one_line(
  load, monkeypatch, tmp_path, capsys, name, content, message
):
  (tmp_path / "runs.json").write_text(content)
  monkeypatch.setattr(sys, "argv", ["over_runs.py", str(tmp_path / name)])
  assert load("over_runs").main() == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1 and lines[0].startswith("error: ") and re.search(message, lines[0]), lines


def test_rows_are_compared_over_the_runs_that_both_have(load):
  table = load("over_runs").Table({"few": [0.5, 0.6], "many": [0.5, 0.7, 0.9]}, 100)
  for one, sign in ((table.compare("few", "many"), -1), (table.compare("many", "few"), 1)):
    assert one.difference.count == 2 and one.difference.value == pytest.approx(sign * 0.05)


def test_one_run_is_about_two_trained_policies(load):
  over_runs = load("over_runs")
  stored = {"dit, robot only": runs_of([0.2]), "dit, + CoMo labels": runs_of([0.8], seed=1)}
  text = over_runs.text(over_runs.read(stored), margin=5)
  labeled, alone = (
    sum(run[0]["outcomes"]) for run in (stored["dit, + CoMo labels"], stored["dit, robot only"])
  )
  assert (
    f"| {labeled - alone:+.1f} points, n = 1 run: no interval; "
    f"these two policies: {labeled - alone:+.1f} points [+" in text
  )
  assert "cannot be told from one between seeds" in text and "each: 20 points" in text


def test_outcomes_tell_what_more_episodes_would_help(load):
  over_runs = load("over_runs")
  stored = {
    "dit, robot only": runs_of([0.5] * 4, episodes=10),
    "dit, robot x5": runs_of([0.5] * 4, seed=2, episodes=10),
  }
  found = over_runs.read(stored)
  assert found.episodes == 20 and found.rates["dit, robot only"] == [
    np.mean(run["outcomes"]) for run in stored["dit, robot only"]
  ]
  assert "with ten times the episodes 4 runs detect" in over_runs.text(found, margin=5)
  stored["dit, robot x5"] += runs_of([0.5], episodes=5)
  with pytest.raises(errors.UserError, match=r"\[10, 20\] episodes"):
    over_runs.read(stored)


def test_the_page_of_the_benchmark(load, tmp_path):
  """While the second seed is under way: a row with one run more than the others."""
  co_training = load("co_training")
  options = argparse.Namespace(
    tasks=["push", "pull"],
    episodes=50,
    labeled=10,
    steps=600,
    robot_batch=32,
    video_batch=16,
    margin=5.0,
    workdir=tmp_path,
  )
  results = {
    "dit, robot only": runs_of([0.2, 0.3, 0.2]),
    "dit, + CoMo labels": runs_of([0.6, 0.8], seed=1),
  }
  text = co_training.page(options, results, lambda row: f"<{row}>")
  first = results["dit, + CoMo labels"]
  both = [100 * sum(run["tasks"][task][0] for run in first) / 100 for task in options.tasks]
  rates = [100 * np.mean(run["outcomes"]) for run in first]
  assert (
    f"| dit, + CoMo labels | {both[0]:.0f} | {both[1]:.0f} | {np.mean(rates):.1f} | "
    f"{rates[0]:.0f} {rates[1]:.0f} | 0.500 |  | <+ CoMo labels> |" in text
  )
  assert (
    "more examples a step" in text
    and "n = 2 runs" in text
    and "2 runs of 100 episodes a row detect" in text
  )
  co_training._table(options, results)
  assert (
    json.loads((tmp_path / "co_training.json").read_text()) == results
    and "n = 2 runs" in (tmp_path / "co_training.md").read_text()
  )


def test_gains_of_the_variants_are_corrected_for_their_number(load):
  """Z = 2 has p = 0.0455, times 3 as the second smallest of four; of several seeds the seeds
  count.
  """
  variants = load("variants")
  rows = {"a": [{"lp_gain": [0.2, 0.1], "state_lp_gain": [0.5, 0.1]}]}
  rows["b"] = [{"lp_gain": [0.0, 0.1], "state_lp_gain": [0.01, 0.1]}]
  text = variants.corrected(rows)
  assert "over these 4 (held-out episodes of one trained model a row, n = 1 seed)" in text
  assert "a, lp_gain 0.14; a, state_lp_gain 2.3e-06; b, lp_gain 1; b, state_lp_gain 1." in text
  seeds = variants.corrected({"a": [{"lp_gain": [value, 0.01]} for value in (0.1, 0.2, 0.3)]})
  # t = 3.46, 2 degrees of freedom
  assert seeds.endswith("over these 1 (3 seeds a row): a, lp_gain 0.074.")


def test_variants_train_on_the_same_pictures(load, tmp_path, monkeypatch):
  """No shifts in any row; kept tokens in all but the one that encodes other pictures."""
  variants, asked = load("variants"), []

  def main(config, folder, *words):
    asked.append((config, words))
    folder.mkdir(parents=True, exist_ok=True)
    rows = {
      "trained": {"kind": "model", "lp_mse": 0.9},
      "untrained": {"kind": "baseline"},
      "first picture": {"kind": "baseline", "e_z": 1.0},
    }
    for name in ("metrics.json", "exam.json"):
      (folder / name).write_text(json.dumps({"rows": rows}))
    (folder / "speed.json").write_text('{"pairs_per_s": 1.0}')

  monkeypatch.setattr(variants, "_main", main)
  found = {name: variants._run(tmp_path, name, 3, 7) for name in variants.VARIANTS}
  trained = [words for config, words in asked if config.startswith("configs/motion.py")]
  assert len(trained) == len(variants.VARIANTS) and all(
    "--config.data.augment.shift.on=False" in words for words in trained
  )
  cached = {
    name: "--config.train.cache_tokens=True" in words
    for name, words in zip(variants.VARIANTS, trained, strict=True)
  }
  assert [name for name, on in cached.items() if not on] == ["RGB difference"]
  assert all(
    "--config.seed=3" in words for config, words in asked if config.endswith(":exam")
  ) and list(found["Td"]["beside"]) == ["first picture"]


def test_published_directions_are_told_where_the_seeds_show_them(load):
  variants = load("variants")

  def row(lp, e):
    return {"trained": {"lp_mse": [lp, 0.1], "s_pcfc": 0.5, "e_z": e}}

  rows = {
    "Td": [row(0.80 + 0.01 * i, 0.9 + 0.01 * i) for i in range(5)],
    "none (w/o VQ)": [row(0.90 + 0.011 * i, 0.9 + 0.01 * (i % 2)) for i in range(5)],
  }
  told = variants.directions(rows).splitlines()
  assert "| Td - none (w/o VQ) | lp_mse | -0.102 [-0.104, -0.100] | 5 |" in told[2] and told[
    2
  ].endswith("| lower |")
  # s_pcfc is the same in all
  assert (
    "| Td - none (w/o VQ) | e_z | +0.016" in told[3]
    and told[3].endswith("| not shown |")
    and len(told) == 4
  )
  rows["Td"] = [row(1.0 + 0.01 * i, 0.9) for i in range(5)]
  assert variants.directions(rows).splitlines()[2].endswith("| higher |")
  assert (
    variants.directions({"Td": rows["Td"][:1], "none (w/o VQ)": rows["Td"][1:2]})
    == "No comparison has two seeds yet."
  )
