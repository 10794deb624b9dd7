"""Which checkpoints hold a motion model, and what is loaded."""

import json
import types

import jax
import numpy as np
import pytest

from como_jax.inference import fingerprints, motion_checkpoint
from como_jax.train import checkpoint, goodput, step_clock
from tests.refusals import text_of


@pytest.fixture(name="stored")
def _stored(monkeypatch):
  """A checkpoint of paper: its parameters and its config."""
  told = types.SimpleNamespace(params={}, config={})
  monkeypatch.setattr(checkpoint, "find", lambda path: f"LOCATION of {path}")
  monkeypatch.setattr(
    checkpoint, "read", lambda location: {"LOCATION of C": (told.params, told.config)}[location]
  )
  return told


@pytest.mark.parametrize("read", [motion_checkpoint.read, motion_checkpoint.load])
def test_only_motion_models_are_read(stored, read):
  assert (
    text_of(lambda: read(""))
    == "config.checkpoint is empty: give the run directory or weights folder of a motion model"
  )
  for stored.config, kind in (
    ({"model": {"kind": "mae"}}, "mae"),
    ({"kind": "encoder"}, "encoder"),
    ({}, "unknown"),
    ({"model": {}, "kind": "x"}, "x"),
  ):
    assert (
      text_of(lambda: read("C"))
      == f"checkpoint 'C' holds a model of kind {kind!r}, a motion model is expected"
    )
  stored.params, stored.config = {"a": 1}, {"model": {"kind": "motion"}}
  assert motion_checkpoint.read("C") == ({"a": 1}, {"model": {"kind": "motion"}})


def test_a_model_is_loaded_as_it_was_trained_or_in_another_dtype(stored, monkeypatch):
  stored.params = {"a": np.ones(2, np.float32)}
  stored.config = {"model": {"kind": "motion", "dtype": "float32"}, "data": {"path": "D"}}
  built = []

  def build(section):
    built.append(section)
    return types.SimpleNamespace(init=lambda key: {"a": jax.numpy.zeros(2)})

  monkeypatch.setattr(motion_checkpoint.models, "build", build)
  monkeypatch.setattr(
    fingerprints, "of_parameters", lambda location, params: f"{location} {params['a'][0]:g}"
  )
  found = motion_checkpoint.load("C")
  assert built == [{"kind": "motion", "dtype": "float32"}]
  assert (found.path, found.fingerprint) == ("C", "LOCATION of C 1")
  assert found.params["a"].tolist() == [1, 1] and found.section == stored.config["model"]
  assert found.trained_on == {"path": "D"}
  del stored.config["data"]
  found = motion_checkpoint.load("C", dtype="bfloat16")
  assert built[1] == {"kind": "motion", "dtype": "bfloat16"}
  assert found.section["dtype"] == "float32" and found.trained_on == {}
  stored.params = {"b": np.ones(2, np.float32)}
  assert text_of(lambda: motion_checkpoint.load("C")).startswith("checkpoint C")


@pytest.mark.parametrize("given", ["run", "run/weights"])
def test_what_the_training_has_logged(tmp_path, given):
  (tmp_path / "run" / "weights").mkdir(parents=True)
  lines = [
    {"step": 1, "kind": "train", "loss": 2.0},
    {"step": 2, "kind": "validation", "psnr": 20.0},
  ]
  (tmp_path / "run" / "metrics.jsonl").write_text(
    "".join(json.dumps(line) + "\n" for line in lines)
  )
  found = motion_checkpoint.training_log(str(tmp_path / given))
  assert (found.name, found.speed, found.goodput) == ("run", {}, {})
  assert found.curves == {"loss": ([1], [2.0]), "validation/psnr": ([2], [20.0])}
  (tmp_path / "run" / "speed.json").write_text('{"steps": 5}')
  assert motion_checkpoint.training_log(str(tmp_path / given)).speed == {"steps": 5}
  goodput.Ledger(tmp_path / "run", step_clock.StepClock(), step=3).end()
  assert motion_checkpoint.training_log(str(tmp_path / given)).goodput["attempts"]
