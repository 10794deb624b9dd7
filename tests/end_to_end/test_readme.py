"""Every command in the bash blocks of README and docs/ is run, once and in order, in a copy of the
project whose path holds a space.
"""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests import limits
from tests.docs import pages
from tests.end_to_end import program

# Commands that take minutes run in their short form; anything else runs as it is printed.
SHORT = {
  "launch/quickstart.sh --workdir runs/first": "launch/quickstart.sh --debug --workdir runs/first",
  "launch/test.sh": "launch/test.sh --version",
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
  """The project's files and an environment that is this one, below a path with a space."""
  root = tmp_path_factory.mktemp("a path") / "como jax"
  shutil.copytree(
    program.ROOT,
    root,
    ignore=shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".pytest_cache"),
  )
  environment = root / ".venv" / "bin"
  environment.mkdir(parents=True)
  # no second installation: the requirements are those of this interpreter
  wrapper = environment / "python"
  wrapper.write_text(
    f'#!/bin/sh\nif [ "$2" = pip ]; then exit 0; fi\nexec {shlex.quote(sys.executable)} "$@"\n'
  )
  wrapper.chmod(0o755)
  return root


def test_there_are_commands():
  assert len(pages.commands()) >= 8 and set(SHORT) <= set(pages.commands())


@pytest.mark.flow
def test_every_command_runs(clone):
  env = program.environment(
    PATH=os.pathsep.join([str(clone / ".venv" / "bin"), os.environ["PATH"]])
  )
  for line in pages.commands():
    line = SHORT.get(line, line)
    done = subprocess.run(
      ["bash", "-c", line],
      cwd=clone,
      env=env,
      capture_output=True,
      text=True,
      timeout=limits.SAFETY_NET,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
  first = clone / "runs" / "first"
  summary = json.loads((first / "summary.json").read_text())
  for key in (
    "lp_mse",
    "lp_mse_random",
    "s_pcfc",
    "psnr",
    "psnr_copy_last",
    "pairs_per_s",
    "seconds",
  ):
    assert isinstance(summary[key], float), key
  assert pathlib.Path(summary["report"]).read_text().startswith("<!doctype html>")
  stages = 7 - len(summary["left_out"])  # without a simulator there is no rollout
  assert (
    set(summary["left_out"]) <= {"rollout"}
    and np.isfinite([summary["action_mse"], summary["round_trip_ms"]]).all()
  )
  assert (summary["success"] is None) == ("rollout" in summary["left_out"])
  again = subprocess.run(
    ["bash", "-c", "launch/quickstart.sh --debug --workdir=runs/first"],
    cwd=clone,
    env=env,
    capture_output=True,
    text=True,
    timeout=limits.SAFETY_NET,
  )
  assert again.returncode == 0 and again.stdout.count("done already") == stages, (
    again.stdout[-2000:] + again.stderr[-2000:]
  )
  check_products(clone / "runs")


def check_products(runs):
  """What the step-by-step section leaves behind."""
  metrics = json.loads((runs / "probe" / "metrics.json").read_text())["rows"]
  assert {"trained", "untrained", "copy-current-frame"} <= set(metrics)
  assert (
    json.loads((runs / "vq" / "config.json").read_text())["model"]["bottleneck"]["kind"] == "vq"
  )
  lines = [
    json.loads(line) for line in (runs / "motion" / "metrics.jsonl").read_text().splitlines()
  ]
  assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3]
  assert any(line["kind"] == "validation" for line in lines)
  policy = json.loads((runs / "policy2" / "weights" / "policy.json").read_text())
  assert list(policy["robots"]) == ["other", "sawyer"] and policy["robots"]["other"]["action"] == 4


@pytest.mark.parametrize(
  "script",
  sorted((program.ROOT / "launch").glob("*.sh")) + [program.ROOT / ".ci" / "run"],
  ids=lambda path: path.name,
)
def test_scripts_parse(script):
  subprocess.run(["bash", "-n", script], check=True)


def test_quickstart_refuses_what_it_does_not_know():
  done = subprocess.run(
    [program.ROOT / "launch" / "quickstart.sh", "--worksdir", "x"], capture_output=True, text=True
  )
  assert done.returncode == 2 and "unknown argument '--worksdir'" in done.stderr
