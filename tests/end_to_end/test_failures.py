"""Bad input: one clear line, exit code 2, nothing written."""

import json

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import main, weights
from tests.end_to_end import program

MOTION = "configs/motion.py:debug"


@pytest.fixture(name="fails")
def fails_fixture(tmp_path, capsys, monkeypatch):
  """Runs the program in this process (a subprocess spends its time on imports); returns the error
  line.
  """
  monkeypatch.chdir(program.ROOT)

  def fails(config, *words):
    before = sorted(tmp_path.rglob("*"))
    code = main.main(["main", f"--config={config}", f"--workdir={tmp_path / 'run'}", *words])
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and lines[-1].startswith("error: "), lines
    assert sorted(tmp_path.rglob("*")) == before, "something was written"
    return lines[-1]

  return fails


def test_in_a_process_of_its_own(tmp_path):
  done = program.run(MOTION, tmp_path / "run", "--config.train.stesp=3", code=2)
  assert done.stderr.strip().splitlines() == [
    (
      "error: config key --config.train.stesp is unknown: config.train has no 'stesp': did you "
      "mean 'steps'? "
    )
    + done.stderr.strip().partition("? ")[2]
  ]
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "config, words, expected",
  [
    (MOTION, ["--config.train.stesp=3"], "'steps'"),
    (MOTION, ["--config.train.steps=many"], "train.steps"),
    (MOTION, ["--config.data.path=no/such/folder"], "no/such/folder"),
    (MOTION, ["--config.encoder_weights=no/such/weights"], "no/such/weights"),
    (MOTION, ["--config.model.idm.inputs=feature_dif"], "feature_diff"),
    (MOTION, ["--config.model.bottleneck.kind=vqq"], "vq"),
    (MOTION, ["--config.train.batch_size=7", "--config.train.accumulate=2"], "batch_size=7"),
    (MOTION, ["--config.train.mesh.fsdp=3"], "config.train.mesh"),
    (MOTION, ["--config.train.optimizer.name=adm"], "adam"),
    (MOTION, ["--config.data.offset_seconds=60.0"], "no window fits"),
    (MOTION, ["--config.objectives.perceptual.weights_path=lpips.npz"], "lpips.npz"),
    (MOTION, ["--resume"], "no run to go on with"),
    (MOTION, ["--config.data.frames=40"], "no window fits"),
    (MOTION, ["--config.model.image_size=128"], "config.data.image_size=64"),
    (MOTION, ["--config.train.accumulate=0"], "config.train.accumulate=0"),
    (MOTION, ["--config.train.ema=1.0"], "config.train.ema=1.0"),
    (MOTION, ["--config.objectives.contrastive.weight=-1.0"], "contrastive"),
    (MOTION, ["--config.train.wandb=project"], "wandb is not installed"),
    ("configs/motion.py:debgu", [], "debug"),
    ("configs/probe.py:debug", [], "config.checkpoint"),
    ("configs/probe.py:debug", ["--config.checkpoint=no/such/run"], "no/such/run"),
    ("configs/ingest.py:debug", ["--config.source.path=no/such/folder"], "no/such/folder"),
    ("configs/ingest.py:debug", ["--config.source.format=lerobt"], "lerobot"),
  ],
)
def test_mistakes(fails, config, words, expected):
  assert expected in fails(config, *words)


def test_a_directory_in_use_is_refused(tmp_path, fails):
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "thesis.txt").write_text("precious")
  assert "is not empty" in fails(MOTION)
  assert "holds no run of ours" in fails(MOTION, "--overwrite")
  assert (tmp_path / "run" / "thesis.txt").read_text() == "precious"


def test_a_checkpoint_of_another_model_is_refused(tmp_path, fails):
  weights.save(
    tmp_path / "mae",
    {"encoder": {"cls": np.zeros((1, 1, 8), np.float32)}},
    {"model": {"kind": "mae"}},
  )
  assert "kind 'mae'" in fails("configs/probe.py:debug", f"--config.checkpoint={tmp_path / 'mae'}")
  assert "cls is (1, 1, 8), expected (1, 1, 128)" in fails(
    MOTION, f"--config.encoder_weights={tmp_path / 'mae'}"
  )
  (tmp_path / "mae" / "params.safetensors").write_bytes(b"\x00" * 20)
  assert "params.safetensors" in fails(MOTION, f"--config.encoder_weights={tmp_path / 'mae'}")


def test_a_changed_config_is_refused_on_resume(tmp_path, fails):
  run = tmp_path / "run"
  run.mkdir()
  command = config_lib.parse(["main", f"--config={program.ROOT}/{MOTION}", f"--workdir={run}"])
  (run / "config.json").write_text(config_lib.to_json(command.config))
  (run / "versions.json").write_text("{}")
  line = fails(MOTION, "--resume", "--config.train.optimizer.b2=0.5")
  assert "train.optimizer.b2: 0.99 before, 0.5 now" in line
  assert json.loads((run / "config.json").read_text())["train"]["optimizer"]["b2"] == 0.99


def test_overwrite_deletes_only_runs_of_its_own_task(tmp_path, fails):
  run = tmp_path / "run"
  run.mkdir()
  (run / "config.json").write_text('{"task": "mae", "model_type": "vit_mae"}')
  assert "holds no run of ours" in fails(MOTION, "--overwrite")
  (run / "versions.json").write_text("{}")
  assert "holds a run of task 'mae'" in fails(MOTION, "--overwrite")
  (run / "config.json").write_text('{"task": "motion"}')
  assert "would delete" in fails(MOTION, "--overwrite", f"--config.encoder_weights={run}")
