"""A model, an objective and data of paper, for the jobs of training."""

import contextlib
import types

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax.assembly import motion_data
from como_jax.tasks import mae, motion
from como_jax.train import encoder_weights, fit, reading


@pytest.fixture(name="paper")
def _paper(monkeypatch):
  """A model, an objective and data of paper: what was asked of them."""
  told = types.SimpleNamespace(
    checked=[],
    windows=[],
    sampled=[],
    batches=[],
    fitted=[],
    objectives=[],
    reading=None,
    functions=("reconstruction", "contrastive", "perceptual"),
  )
  model = types.SimpleNamespace(
    components=None,
    forward=lambda params, batch, *, key: ("out", params, batch, key),
    inputs_spec=lambda size, frames=0, jittered=None: {"frames": (size, frames, jittered)},
  )

  class Objective:
    weights, constants = {"mae": 1.0}, {"net": "NET"}
    functions = property(lambda self: told.functions)

    def __call__(self, *given):
      return {"loss": given}

  for module in (mae, motion):
    monkeypatch.setattr(
      module.models, "build", lambda section: model if section["kind"] == "toy" else None
    )
    monkeypatch.setattr(
      module.objectives, "build", lambda section: told.objectives.append(section) or Objective()
    )
  monkeypatch.setattr(encoder_weights, "load", lambda path, *, model: {"encoder": (path, model)})
  monkeypatch.setattr(fit, "fit", lambda command, make: told.fitted.append((command, make())) or 4)

  class Data:
    mixture = types.SimpleNamespace(paths=["one", "two"])
    augment = ("AUGMENT",)

    def __init__(self, given):
      assert given.data.frames == 3

    def check(self, **more):
      told.checked.append(more)

    def windows(self, split, **more):
      told.windows.append((split, more))
      return "WINDOWS"

    def sample_frames(self, split, *, count):
      told.sampled.append((split, count))
      return np.full((2, 1), 5.0, np.float32)

    def choose_read_options(self, batch):
      return told.reading or ("READING", batch)

    def batches(self, batching, reading, **more):
      told.batches.append((batching, reading, more))
      return contextlib.nullcontext("BATCHES") if told.reading else "BATCHES"

  monkeypatch.setattr(motion_data, "MotionData", Data)
  monkeypatch.setattr(reading, "local_rows", lambda batch_size: batch_size // 2)
  monkeypatch.setattr(reading, "batching", lambda config, step: ("FROM", step))
  told.model = model
  return told


def config(*, fraction=0.25, weights="bundled", objectives=None):
  return config_lib.ConfigDict(
    {
      "model": {"kind": "toy", "image_size": 16},
      "seed": 7,
      "encoder_weights": weights,
      "objectives": objectives or {"mae": {"weight": 1.0}},
      "train": {"batch_size": 8, "cache_tokens": False},
      "data": {"validation_fraction": fraction, "frames": 3},
      "evaluation": {"batch_size": 6, "windows": 50},
    }
  )
