"""The benchmark of the fast recipe's quality: which runs it makes, and what it says of them."""

import importlib.util
import json
import math
import pathlib
import sys

import pytest

SOURCE = pathlib.Path(__file__).parent.parent / "benchmarks" / "fast_quality.py"


@pytest.fixture
def benchmark():
  spec = importlib.util.spec_from_file_location("fast_quality", SOURCE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


class Program:
  """Stands in for como_jax.main: trains nothing, and writes an exam."""

  def __init__(self):
    self.calls, self.seconds = [], 0.0

  def __call__(self, *words):
    given = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    self.calls.append(given)
    folder = pathlib.Path(given["workdir"])
    folder.mkdir(parents=True, exist_ok=True)
    if "probe" in given["config"]:
      fast = "fast" in folder.parent.name
      seed = int(given["config.seed"])
      row = {"s": 0.5 + 0.1 * seed - 0.02 * fast, "e_z": 0.4, "excess/scene": 0.01 + 0.03 * fast}
      row |= {f"excess/{name}": 0.0 for name in ("camera", "objects", "palette")}
      (folder / "exam.json").write_text(json.dumps({"rows": {"trained": row}}))
    else:  # 10 s to start; a step takes 2 s, or 1 s of the fast recipe
      fast = "config.objectives.contrastive.fraction" in given
      self.seconds += 10 + int(given["config.train.steps"]) * (1 if fast else 2)


def run(benchmark, monkeypatch, workdir, program, *words):
  monkeypatch.setattr(benchmark, "_main_words", program)
  monkeypatch.setattr(benchmark, "_processor", lambda: program.seconds)
  monkeypatch.setattr(sys, "argv", ["fast_quality.py", f"--workdir={workdir}", *words])
  workdir.mkdir(exist_ok=True)
  benchmark.main()


def test_runs_are_paired_equally_long_and_kept(benchmark, monkeypatch, tmp_path, capsys):
  program = Program()
  run(benchmark, monkeypatch, tmp_path, program, "--steps=100", "--seeds=2")
  trained = [call for call in program.calls if "motion.py" in call["config"]]
  # a run of one step tells what the start costs
  assert [call["config.train.steps"] for call in trained[:8]] == ["1", "100"] * 3 + ["1", "200"]
  assert [call["config.seed"] for call in trained] == ["0"] * 8 + ["1"] * 8
  for call in trained:
    pairs = int(call["config.train.batch_size"]) * (int(call["config.data.frames"]) - 1)
    assert pairs == benchmark.PAIRS
  stored = json.loads((tmp_path / "fast_quality.json").read_text())
  assert stored["fast, longer"][1]["pairs"] == 2 * stored["published"][1]["pairs"]
  assert math.isclose(stored["fast, longer"][0]["seconds"], stored["published"][0]["seconds"])
  again = Program()
  run(benchmark, monkeypatch, tmp_path, again, "--steps=100", "--seeds=2")
  assert again.calls == [] and json.loads((tmp_path / "fast_quality.json").read_text()) == stored
  # one exam is lost: only it is made again
  (tmp_path / "clips-100-1" / "exam" / "exam.json").unlink()
  run(benchmark, monkeypatch, tmp_path, again, "--steps=100", "--seeds=2")
  assert [call["config"] for call in again.calls] == ["configs/probe.py:exam"]
  text = capsys.readouterr().out
  # the same difference for each seed: the bound is the mean
  assert "| fast | 2 | -0.020 (90 %: -0.020) | +0.030 (90 %: +0.030) | yes |" in text
  assert "| clips | 2 | +0.000 (90 %: +0.000) | +0.000 (90 %: +0.000) | yes |" in text


def test_a_bound_is_one_sided_students(benchmark):
  # mean 2, standard error 0.577, t(0.9, 2) = 1.886
  assert math.isclose(benchmark.bound([1.0, 2.0, 3.0]), 2 + 1.8856 * 3**-0.5, rel_tol=1e-4)
  assert benchmark.bound([1.0]) == math.inf


def test_what_is_not_shown_and_what_is_withheld(benchmark):
  def runs(*scores):
    return [
      {
        "s": s,
        "leakage": 0.0,
        "e_z": 0.5,
        "steps": 1,
        "pairs": 56,
        "seconds": 1.0,
        "seconds_a_step": 1.0,
      }
      for s in scores
    ]

  published = runs(0.5, 0.6, 0.7)
  worse = benchmark.table({"published": published, "fast": runs(0.4, 0.6, 0.7)}, 0.05)
  assert "| fast | 3 | -0.033 (90 %: -0.096) |" in worse and "not shown" in worse
  withheld = benchmark.table({"published": published, "fast": runs(None, 0.6, 0.7)}, 0.05)
  assert "| fast | 2 | +0.000" in withheld
  single = benchmark.table({"published": published[:1], "fast": runs(0.5)}, 0.05)
  assert "(90 %: -inf)" in single and "not shown" in single


def test_equal_seconds_need_both_speeds(benchmark, monkeypatch, tmp_path, capsys):
  with pytest.raises(SystemExit):
    run(benchmark, monkeypatch, tmp_path, Program(), "--only", "fast, longer")
  assert "needs 'published' and 'fast'" in capsys.readouterr().err
