"""What a finished run leaves and says."""

import json

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors, weights
from como_jax.train import export, loop
from tests.train.test_job import text_of


@pytest.fixture(name="end")
def _end(tmp_path):
  """Ends a run of paper: `export`."""
  command = config_lib.CommandLine(
    config_lib.ConfigDict({"task": "toy", "train": {"steps": 8}}),
    "toy",
    tmp_path,
    resume=False,
    overwrite=False,
  )

  def end(*, rate=12.34, unvalidated=(), value=1.0):
    outcome = loop.TrainResult(
      state=None,
      examples_per_s=rate,
      wait_share=0.25,
      stopped=False,
      failed_evaluations=unvalidated,
    )
    return export.export(
      command,
      outcome,
      {"a": np.full(2, value, np.float32)},
      unit="pairs",
      files={"policy.json": "{}"},
      seconds=3.5,
    )

  return end


def test_what_a_finished_run_leaves_and_says(end, tmp_path, capsys):
  for name in (".weights.new-1", ".weights.new-2", ".other.new-1"):
    (tmp_path / name).mkdir()
  assert end() == 0
  assert (tmp_path / "speed.json").read_text() == json.dumps(
    {"pairs_per_s": 12.34, "wait_share": 0.25, "steps": 8, "seconds": 3.5}, indent=2
  )
  params, config = weights.load(tmp_path / "weights")
  assert (tmp_path / "weights" / "policy.json").read_text() == "{}"
  assert (
    params["a"].tolist() == [1.0, 1.0]
    and config == {"task": "toy", "train": {"steps": 8}}
    and weights.read_step(tmp_path / "weights") == 8
  )
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    ".other.new-1",
    "speed.json",
    "weights",
  ]
  assert (
    capsys.readouterr().out
    == f"done: 8 steps, 12.3 pairs/s, waited for data 25.0%; weights in {tmp_path / 'weights'}\n"
  )
  (tmp_path / "speed.json").write_text("{}")
  # a finished run, resumed: nothing was measured
  assert end(rate=0.0, unvalidated=(4, 8), value=2.0) == 0
  assert (tmp_path / "speed.json").read_text() == "{}" and weights.load(tmp_path / "weights")[0][
    "a"
  ].tolist() == [2.0, 2.0]
  assert capsys.readouterr().out.endswith("; the validation failed at step 4, 8 (see above)\n")
  (tmp_path / "speed.json").unlink()
  assert (
    end(rate=0.0) == 0 and json.loads((tmp_path / "speed.json").read_text())["pairs_per_s"] == 0.0
  )
  before = (tmp_path / "weights" / weights.PARAMS).read_bytes()
  assert text_of(errors.NonFiniteError, lambda: end(value=np.nan)) == (
    "step 8: the weights are infinite or not a number and are not exported: lower "
    "config.train.optimizer.learning_rate, or go on from an earlier checkpoint"
  )
  assert (tmp_path / "weights" / weights.PARAMS).read_bytes() == before
