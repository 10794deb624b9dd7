"""Losses of a config against the objectives that exist and against the model."""

import pytest

from como_jax import errors
from como_jax.objectives import checks

MODEL = {"kind": "motion", "bottleneck": {"kind": "continuous"}, "fdm": {"features": "none"}}
GOOD = {"reconstruction": {"weight": 1.0}}


def refused(sections, model=MODEL):
  with pytest.raises(errors.UserError) as caught:
    checks.check(sections, model)
  return str(caught.value)


def test_losses_that_the_model_has():
  checks.check(GOOD, MODEL)
  checks.check(GOOD | {"kl": {"weight": 0.0}}, MODEL)
  # a KL bottleneck also learns with the weight 0
  checks.check(GOOD | {"kl": {"weight": 0.0}}, MODEL | {"bottleneck": {"kind": "kl"}})
  checks.check({"mae": {"weight": 1.0}}, {"kind": "mae"})
  loaded = {"perceptual": {"weight": 1.0, "weights_path": "/not/there/yet"}}
  checks.check(GOOD | loaded, MODEL)


def test_losses_that_the_model_does_not_have():
  assert refused(GOOD | {"kl": {"weight": 0.5}}) == (
    "config.objectives.kl.weight=0.5: it needs --config.model.bottleneck.kind=kl"
  )
  assert refused({"kl": {"weight": 0.5}}, {"kind": "mae"}) == (
    "config.objectives.kl.weight=0.5: a model of kind 'mae' has no such loss (its own: mae)"
  )


def test_parts_that_no_loss_would_train():
  quantized = MODEL | {"bottleneck": {"kind": "vq"}}
  for sections in (GOOD, GOOD | {"quantization": {"weight": 0.0}}):
    assert refused(sections, quantized).startswith(
      "config.model.bottleneck.kind=vq has a loss without a weight"
    )
  assert "config.model.bottleneck.kind=kl has a loss" in refused(
    GOOD, MODEL | {"bottleneck": {"kind": "kl"}}
  )


def test_settings_of_losses():
  quantized = MODEL | {"bottleneck": {"kind": "vq"}}
  for weighting in ("legcy", {"kind": 1}):
    sections = GOOD | {"quantization": {"weight": 1.0, "weighting": weighting}}
    assert refused(sections, quantized).startswith(
      f"config.objectives.quantization.weighting={weighting!r} is unknown: "
    )
  assert "did you mean 'temperature'" in refused(
    GOOD | {"contrastive": {"weight": 1.0, "tempreature": 1.0}}
  )
  assert "did you mean 'reconstruction'" in refused({"reconstructoin": {"weight": 1.0}})
  assert refused({"kl": 3}) == (
    "config.objectives.kl=3, expected a section with a weight: {'weight': 1.0}"
  )
  for weight in (True, None):
    assert refused({"kl": {"weight": weight}}) == (
      f"config.objectives.kl.weight is {weight}, expected a number of at least 0"
    )
