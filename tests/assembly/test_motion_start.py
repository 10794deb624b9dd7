"""The untrained model beside a trained one."""

import contextlib
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from como_jax.assembly import motion_start
from como_jax.train import rng
from tests.models import tiny

TRAINED = {"encoder": {"a": np.ones(2)}, "idm": {"b": np.full(2, 5.0)}}


def model(linear_path=None):
  """A model on paper."""

  def init(key):
    return {part: {"a": jax.random.normal(key, (2,))} for part in ("encoder", "idm")}

  return SimpleNamespace(init=init, linear_path=linear_path)


def test_it_has_the_encoder_of_the_trained_model_and_parameters_of_its_own():
  found = motion_start.untrained(model(), TRAINED, lambda: pytest.fail("no data"), seed=3)
  assert found["encoder"] is TRAINED["encoder"]
  expected = jax.random.normal(rng.key(3, "untrained"), (2,))
  np.testing.assert_allclose(found["idm"]["a"], expected)


def test_a_linear_path_starts_from_the_training_windows(monkeypatch):
  asked, given = [], model("PATH")

  def start(model, params, batches, *, pairs):
    asked.append((model, params["encoder"] is TRAINED["encoder"], batches, pairs))
    return {"idm": {"components": "KERNEL"}}

  monkeypatch.setattr(motion_start.linear_path_init, "init_from_pairs", start)
  windows = SimpleNamespace(size=7, batches=lambda: contextlib.nullcontext("BATCHES"))
  found = motion_start.untrained(given, TRAINED, lambda: windows, seed=0)
  assert asked == [(given, True, "BATCHES", 14)]
  assert list(found["idm"]) == ["a", "components"]
  windows.size = 5_000
  motion_start.untrained(given, TRAINED, lambda: windows, seed=0)
  assert asked[1][-1] == motion_start.linear_path_init.PAIRS


@pytest.mark.parametrize(
  "train, trained",
  [
    ({}, False),
    ({"frozen": None}, False),
    ({"frozen": ("encoder/.*",)}, False),
    ({"frozen": ("encoder/position",)}, True),
  ],
)
def test_a_trained_encoder_is_told(train, trained):
  _, params = tiny.made(tiny.MOTION)
  found = motion_start.encoder_is_trained({"model": tiny.MOTION, "train": train}, params)
  assert found == trained
