"""A model, an objective and data of paper, for the jobs of training."""

import contextlib
import types

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax.assembly import motion_data
from como_jax.tasks import mae, motion
from como_jax.train import encoder_weights, fit


@pytest.fixture(name="paper")
def _paper(monkeypatch):
  """A model, an objective and data of paper: what was asked of them."""
  told = types.SimpleNamespace(
    opened=[],
    sampled=[],
    steps=[],
    fitted=[],
    objectives=[],
    triples="TRIPLES",
    functions=("reconstruction", "contrastive", "perceptual"),
  )
  model = types.SimpleNamespace(
    linear_path=None, forward=lambda params, batch, *, key: ("out", params, batch, key)
  )

  class Objective:
    weights, constants = {"mae": 1.0}, {"net": "NET"}
    functions = property(lambda self: told.functions)

    def __call__(self, *given):
      return {"loss": given}

    def draw(self, batch, key):
      return batch

    def remarks(self):
      return [f"remark on {len(told.functions)} objectives"]

  for module in (mae, motion):
    monkeypatch.setattr(
      module.models, "build", lambda section: model if section["kind"] == "toy" else None
    )
    monkeypatch.setattr(
      module.objectives, "build", lambda section: told.objectives.append(section) or Objective()
    )
  monkeypatch.setattr(
    encoder_weights, "load", lambda path, *, model: {"encoder": (path, model)} if path else {}
  )
  monkeypatch.setattr(fit, "fit", lambda command, make: told.fitted.append((command, make())) or 4)

  class Data:
    mixture = types.SimpleNamespace(paths=["one", "two"])
    batch_spec, read_options = "SHAPES", "LOADING"

    def __init__(self, given, model, *, jitter=False):
      told.opened.append((given, model, jitter))

    def remarks(self):
      return ["remark on the data"]

    def held_out(self):
      return told.triples

    def sample_frames(self, count):
      told.sampled.append(count)
      return np.full((2, 1), 5.0, np.float32)

    def batches(self, step):
      told.steps.append(step)
      return "BATCHES"

    def first_batches(self):
      return contextlib.nullcontext("FIRST BATCHES")

  monkeypatch.setattr(motion_data, "TrainingData", Data)
  told.model = model
  return told


def config(*, weights="bundled", objectives=None):
  return config_lib.ConfigDict(
    {
      "model": {"kind": "toy"},
      "encoder_weights": weights,
      "objectives": objectives or {"mae": {"weight": 1.0}},
      "train": {"batch_size": 8, "cache_tokens": False},
      "data": {"frames": 3},
    }
  )
