"""Taking the exam: a model and its start, the stored rows beside it, and refusals."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from como_jax import models, weights
from como_jax.inference import exam_pictures
from como_jax.tasks import exam
from configs import probe as probe_config
from tests.end_to_end import program
from tests.exam import made_set
from tests.models import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return made_set.write_pictures(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  path = tmp_path_factory.mktemp("run") / "weights"
  config = tiny.MOTION
  weights.save(
    path,
    jax.device_get(models.build(config).init(jax.random.key(0))),
    {"model": config, "data": {}},
  )
  return path


def test_the_exam_of_a_checkpoint_and_of_foreign_latents(folder, checkpoint, tmp_path):
  np.savez(
    tmp_path / "theirs.npz",
    z=np.random.default_rng(0).normal(size=(2 * len(exam_pictures.frames(folder / "hand", 16)), 5)),
  )
  done = program.run(
    "configs/probe.py:exam",
    tmp_path / "exam",
    f"--config.checkpoint={checkpoint}",
    f"--config.exam.set={folder}",
    f"--config.exam.latents={tmp_path / 'theirs.npz'}",
  )
  rows = json.loads((tmp_path / "exam" / exam.METRICS).read_text())["rows"]
  assert list(rows) == ["trained", "untrained", "theirs.npz", "first picture"]
  assert rows["untrained"]["kind"] == "baseline" and rows["trained"][
    "minus_untrained"
  ] == pytest.approx(rows["trained"]["e_z"] - rows["untrained"]["e_z"])
  assert (
    "minus_untrained" not in rows["theirs.npz"]
    and "minus that of the untrained model" in done.stdout
  )
  assert (
    rows["theirs.npz"]["verdict"] == "no motion beyond one picture"
    and rows["theirs.npz"]["minus_components_low"] > 0.2
  )
  assert "no motion beyond one picture: S is" in done.stdout and "theirs" in done.stdout
  table = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines()}
  # the stored row was not asked of the future picture
  assert table["first picture"][-2:] == ["-", "scene"]
  assert float(table["theirs.npz"][-2]) == pytest.approx(
    rows["theirs.npz"]["future/second"], abs=0.006
  )
  page = (tmp_path / "exam" / "report.html").read_text()
  assert (
    "Motion and appearance" in page
    and "first picture" in page
    and (tmp_path / "exam" / "exam.png").stat().st_size > 10_000
  )
  with np.load(tmp_path / "exam" / exam.LATENTS) as file:
    assert file["z"].shape[0] == 2 * file["z_ac"].shape[0]


def test_a_start_from_data_that_is_gone_is_left_out(monkeypatch):
  changes = {"image_size": 32, "idm.components": 4, "idm.components_of": "flow"}
  _, params = tiny.made(tiny.MOTION, **changes)
  run = {"model": tiny.section(tiny.MOTION, **changes), "data": {"path": "/gone"}}
  monkeypatch.setattr(exam.exam_pictures, "latents", lambda *given: {"z": np.ones((4, 2))})
  config = probe_config.get_config("exam")
  found, (note,) = exam.latents_of_run(config, None, SimpleNamespace(pairs=4), params, run)
  assert list(found) == ["trained"]
  assert note.startswith("untrained: left out, a run of this model starts from its data: ")
  assert "'/gone' does not exist" in note


def test_a_start_with_a_trained_encoder_is_told(monkeypatch):
  _, params = tiny.made(tiny.MOTION)
  run = {"model": tiny.MOTION, "train": {"frozen": ("encoder/position",)}}
  monkeypatch.setattr(exam.exam_pictures, "latents", lambda *given, **more: {"z": np.ones((4, 2))})
  monkeypatch.setattr(exam.motion_start, "untrained", lambda *given, seed: params)
  config, made = probe_config.get_config("exam"), SimpleNamespace(pairs=4)
  found, (note,) = exam.latents_of_run(config, None, made, params, run)
  assert list(found) == ["trained", "untrained"]
  assert note.startswith("untrained: with the encoder that this run has trained")
  assert exam.latents_of_run(config, None, made, params, {"model": tiny.MOTION})[1] == []


def test_pairs_are_written_for_others(folder, tmp_path):
  done = program.run(
    "configs/probe.py:exam",
    tmp_path / "pairs",
    "--config.exam.pairs=True",
    f"--config.exam.set={folder}",
  )
  with np.load(tmp_path / "pairs" / "pairs.npz") as file:
    assert file["frames"].dtype == np.uint8 and file["frames"].shape[1:] == (3, 64, 64, 3)
    assert f"z [{2 * len(file['frames'])}, Z]" in done.stdout
    assert f"Row v of z_shifted [{len(file['frames'])}, Z]" in done.stdout


@pytest.mark.parametrize(
  "words, message",
  [
    ([], "config.checkpoint and config.exam.latents are empty"),
    (
      ["--config.exam.tier=hands", "--config.exam.pairs=True"],
      "config.exam.tier=hands: did you mean 'hand'?",
    ),
    (
      ["--config.exam.set=nowhere", "--config.exam.pairs=True"],
      "config.exam.set=nowhere does not exist",
    ),
  ],
)
def test_refusals(words, message, tmp_path):
  done = program.run("configs/probe.py:exam", tmp_path / "exam", *words, code=2)
  assert message in done.stderr and not (tmp_path / "exam").exists()
