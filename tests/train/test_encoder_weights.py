"""An encoder that is given is taken alone, and must fit."""

import types

import numpy as np
import pytest

from como_jax import errors
from como_jax.models.backbones import mae_vit
from como_jax.train import encoder_weights
from tests.train.test_job import text_of


@pytest.fixture(name="given")
def _given(monkeypatch):
  """`load` with a checkpoint of these parameters and config."""
  model = types.SimpleNamespace(
    init=lambda key: {
      "encoder": {"a": {"kernel": np.zeros((2, 3), np.float32)}},
      "head": {"b": np.zeros(1)},
    },
    config={"encoder": {"epsilon": 1e-6}, "image_size": 32},
  )
  loaded = []

  def given(path="FOLDER", *, params=None, **config):
    params = (
      {"encoder": {"a": {"kernel": np.ones((2, 3), np.float32)}}, "other": {}}
      if params is None
      else params
    )
    monkeypatch.setattr(
      encoder_weights.checkpoint,
      "load",
      lambda folder: loaded.append(str(folder)) or (params, config),
    )
    return encoder_weights.load(path, model=model)

  given.loaded = loaded
  return given


def test_a_given_encoder_is_taken_alone_and_must_fit(given, monkeypatch):
  assert given("") == {} and not given.loaded
  for config in (
    {},
    {"layer_norm_epsilon": 1e-6},
    {"model": {"encoder": {"epsilon": 1e-6}}},
    {"model": {}},
  ):
    found = given(**config)
    assert (
      set(found) == {"encoder"}
      and np.asarray(found["encoder"]["a"]["kernel"]).tolist() == np.ones((2, 3)).tolist()
    )
  given("bundled")
  assert given.loaded[-2:] == ["FOLDER", str(encoder_weights.BUNDLED)]
  assert (
    text_of(errors.UserError, lambda: given(params={"head": {}, "idm": {}}))
    == "encoder weights 'FOLDER' hold no encoder, only: head, idm"
  )
  other = (
    "encoder weights 'FOLDER' were trained with a LayerNorm epsilon of 1e-05, the config has "
    "1e-06: give --config.model.encoder.epsilon=1e-05"
  )
  for config in ({"layer_norm_epsilon": 1e-5}, {"model": {"encoder": {"epsilon": 1e-5}}}):
    assert text_of(errors.UserError, lambda config=config: given(**config)) == other
  assert text_of(
    errors.UserError,
    lambda: given(params={"encoder": {"a": {"kernel": np.ones((2, 4), np.float32)}}}),
  ).startswith("encoder weights 'FOLDER'")
  refitted = []
  monkeypatch.setattr(
    mae_vit,
    "refit_positions",
    lambda encoder, size: (
      refitted.append(size) or {"a": {"kernel": np.full((2, 3), 5, np.float32)}}
    ),
  )
  given()
  assert not refitted
  found = given(params={"encoder": {"patch": {"kernel": np.ones(1)}, "position": np.ones(1)}})
  assert refitted == [32] and np.asarray(found["encoder"]["a"]["kernel"]).max() == 5


def test_a_random_encoder_is_said():
  assert encoder_weights.remarks({"encoder": {}}) == []
  (line,) = encoder_weights.remarks({})
  assert line.startswith(
    "encoder: random and frozen, which is not CoMo; set config.encoder_weights"
  )
