"""Several real processes (gloo on this machine) through the entry point and the launcher, compared
with one process.

The losses are those of one process up to the order of additions: the batch is split over two
devices, so each mean is a sum of two partial sums. float32 rounds those at 6e-8; a wrong, missing
or repeated sample of eight would change the loss by a per cent.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from como_jax import main, trees, weights
from como_jax.data import read_options
from como_jax.train import log
from tests import conftest, limits
from tests.end_to_end import program

pytestmark = pytest.mark.flow
STEPS, EVALUATE = 40, 8
CONFIG = "configs/mae.py:debug"
TINY = [
  "--config.model.encoder.size=32x1x2/16",
  "--config.model.decoder.width=32",
  "--config.model.decoder.depth=1",
  "--config.model.decoder.num_heads=2",
  "--config.model.decoder.mlp_dim=64",
  "--config.train.batch_size=8",
  f"--config.train.steps={STEPS}",
  "--config.train.tensorboard=False",
  "--config.train.checkpoint_every=8",
  f"--config.train.evaluate_every={EVALUATE}",
  "--config.train.ema=0.9",
]


def launch(count, workdir, *words, environment=None):
  """Starts a run of several processes; its output comes line by line."""
  command = [
    sys.executable,
    "launch/local_processes.py",
    str(count),
    "--",
    *program.command(CONFIG, workdir, *TINY, *words),
  ]
  return subprocess.Popen(
    command,
    cwd=program.ROOT,
    env=program.environment(XLA_FLAGS=conftest.QUICK, **(environment or {})),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(process, *, code):
  """The rest of the output of a run that ends with a code."""
  text = process.communicate(timeout=limits.SAFETY_NET)[0]
  assert process.returncode == code, (
    f"exit code {process.returncode}, expected {code}\n{text[-6000:]}"
  )
  return text


def started(process, count=2):
  """The processes' ids."""
  found = [
    re.fullmatch(r"\[\d\] started: pid (\d+)\n", process.stdout.readline()) for _ in range(count)
  ]
  return [int(match[1]) for match in found]


def reach(process, workdir, step):
  """Waits until the log of a run has reached a step."""
  assert limits.wait_until(lambda: program.logged(workdir) >= step, while_alive=process), (
    process.stdout.read()[-6000:]
  )


def alone(workdir, *words):
  """Runs to the end in one process."""
  subprocess.run(
    program.command(CONFIG, workdir, *TINY, *words),
    cwd=program.ROOT,
    env=program.environment(XLA_FLAGS=conftest.QUICK),
    check=True,
    capture_output=True,
  )


def test_processes_stopped_killed_and_resumed_on_any_number_equal_one_process(tmp_path):
  run, whole = tmp_path / "run", tmp_path / "whole"
  # every matrix is split over both processes of two devices
  split = ["--config.train.mesh.fsdp=4", "--config.train.mesh.data=1"]
  two_devices = {"COMO_JAX_CPU_DEVICES": "2"}
  process = launch(2, run, *split, environment=two_devices)
  second = started(process)[1]
  reach(process, run, EVALUATE + 1)
  os.kill(second, signal.SIGTERM)  # only the process that does not write
  text = finish(process, code=143)
  stopped = int(re.search(r"\[0\] stopped by SIGTERM at step (\d+): saved", text)[1])
  assert EVALUATE < stopped < STEPS and (run / "checkpoints" / str(stopped)).is_dir()
  share = max(1, read_options.cores() // 2)
  assert (
    "'fsdp': 4" in text
    and f"processes 2; data workers 0, threads 4, prefetch 8 (CPU cores {share})" in text
  )
  assert not re.search(r"^\[1\] (step|data|mae)", text, re.M)  # process 0 alone speaks
  lines = [json.loads(line) for line in (run / log.FILE).read_text().splitlines()]  # and writes
  assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, stopped + 1))

  process = launch(2, run, "--resume")  # one device each, batch split, weights whole
  pids = started(process)
  reach(process, run, stopped + 2)
  os.kill(pids[1], signal.SIGKILL)
  text = finish(process, code=137)
  assert (
    "[1] ended with signal SIGKILL" in text
    and "[0] error: another process of the run is gone (" in text
    and "Traceback" not in text
  ), text

  alone(run, "--resume")
  alone(whole)
  for kind, name, steps in (
    ("train", "loss", range(1, STEPS + 1)),
    ("validation", "mae", range(EVALUATE, STEPS + 1, EVALUATE)),
  ):
    mine, theirs = (log.read(folder, kind=kind)[name] for folder in (run, whole))
    assert mine[0] == theirs[0] == list(steps)
    np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-5)

  exported = trees.flatten(weights.load(run / "weights")[0])
  shutil.rmtree(run / "weights")
  # nothing is left to do but to gather and write
  finish(launch(2, run, "--resume", *split, environment=two_devices), code=0)
  again = trees.flatten(weights.load(run / "weights")[0])
  assert set(again) == set(exported)
  for name, leaf in again.items():
    np.testing.assert_array_equal(leaf, exported[name], err_msg=name)


@pytest.mark.parametrize(
  "mistake, expected",
  [
    # every process finds it
    (
      "--config.data.path=no/such/folder",
      "error: config.data.path 'no/such/folder' does not exist",
    ),
    ("--resume", "holds no run to go on with (process 0 of 2)"),  # only process 0 looks
  ],
)
def test_bad_input_ends_both_processes(tmp_path, mistake, expected):
  text = finish(launch(2, tmp_path / "run", mistake), code=2)
  lines = [line for line in text.splitlines() if "error:" in line]
  assert [line[:3] for line in sorted(lines)] == ["[0]", "[1]"] and all(
    expected in line for line in lines
  ), text
  assert "killing" not in text and not (tmp_path / "run").exists()


def test_a_process_that_is_done_waits_for_the_others():
  """In the program, and not in jax's end of the interpreter, which kills it after 300 s."""
  code = (
    "import os, sys, time\nfrom como_jax import main, tasks\nslow = "
    "os.environ['COMO_JAX_PROCESS_INDEX'] == '0'\ntasks.run = lambda command: time.sleep(3 * "
    "slow) or print('done', time.time(), file=sys.stderr) or 0\ncode = main.main(['main', "
    f"'--config={CONFIG}', '--workdir=unused'])\nprint('left', time.time(), file=sys.stderr)\n"
    "sys.exit(code)"
  )
  command = [sys.executable, "launch/local_processes.py", "2", "--", sys.executable, "-c", code]
  text = finish(
    subprocess.Popen(
      command,
      cwd=program.ROOT,
      env=program.environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    ),
    code=0,
  )
  done, left = (
    float(re.search(pattern, text)[1]) for pattern in (r"\[0\] done (\S+)", r"\[1\] left (\S+)")
  )
  assert left >= done, text


def test_a_process_that_finds_no_other_says_so(tmp_path, monkeypatch, capsys):
  for name, value in dict(
    COORDINATOR="localhost:1", PROCESSES="2", PROCESS_INDEX="1", JOIN_SECONDS="1"
  ).items():
    monkeypatch.setenv("COMO_JAX_" + name, value)
  assert (
    main.main(["main", f"--config={program.ROOT / CONFIG}", f"--workdir={tmp_path / 'run'}"]) == 75
  )
  assert (
    capsys.readouterr().err
    == "error: process 1 of 2 found no process 0 at localhost:1 within 1 s\n"
  )
