"""Objectives: values by hand, masks and counts, the table, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors, models, objectives
from tests.models import tiny
from tests.objectives.means import BATCH, mean


@pytest.mark.parametrize(
  "config, text",
  [
    ({"reconstructoin": {"weight": 1.0}}, "reconstruction"),
    ({"contrastive": {"weight": 1.0, "temprature": 1}}, "temperature"),
    ({"kl": {"wieght": 1.0}}, "weight"),
    ({"kl": {"weight": -1.0}}, "kl.weight"),
    ({"mae": {"settings": 1}}, "mae.settings"),
    ({"perceptual": {"weight": 1.0, "weights": {}}}, "perceptual.weights"),
  ],
)
def test_bad_settings_are_named(config, text):
  with pytest.raises(errors.UserError, match=text):
    objectives.build(config)


@pytest.mark.parametrize("name", [name for name in objectives.OBJECTIVES if name != "perceptual"])
def test_missing_outputs_are_named(name):
  with pytest.raises(errors.UserError, match=name):
    objectives.build({name: {"weight": 1.0}})({}, BATCH)


def test_off_and_logged_only():
  objective = objectives.build({"kl": None, "reconstruction": {"weight": 0.0}})
  assert objective.weights == {"reconstruction": 0.0, "copy_current": None} and set(
    objective.functions
  ) == {"reconstruction"}


def test_an_objective_with_weight_0_is_not_active():
  section = {"kl": {"weight": 0.0}, "off": {"weight": 0}, "mae": {"weight": 0.5, "more": 1}}
  assert objectives.active(config_lib.ConfigDict(section)) == {"mae": section["mae"]}


def test_what_is_left_out_is_said():
  assert objectives.Objective({"perceptual": lambda *given: {}}, {}, {}).remarks() == []
  assert objectives.Objective({"mae": lambda *given: {}}, {}, {}).remarks() == [
    "perceptual loss: off (config.objectives.perceptual.weights_path is empty)"
  ]


@pytest.mark.parametrize(
  "base, names, changes",
  [
    (
      tiny.MOTION,
      ("reconstruction", "contrastive", "features", "quantization"),
      {"fdm.features": "direct", "bottleneck.kind": "vq"},
    ),
    (tiny.MOTION, ("reconstruction", "kl"), {"bottleneck.kind": "kl"}),
    (tiny.MAE, ("mae",), {}),
  ],
)
def test_table_fits_the_models(base, names, changes):
  """Every objective reads what a model writes, and returns float32 scalars."""
  model = models.build(tiny.section(base, **changes))
  spec = (
    model.inputs_spec(2, 3, jittered=True) if base["kind"] == "motion" else model.inputs_spec(2)
  )
  objective = objectives.build({name: {"weight": 1.0} for name in names})
  params = jax.eval_shape(model.init, jax.random.key(0))
  terms = jax.eval_shape(
    lambda p, b: objective(model.forward(p, b, key=jax.random.key(1)), b), params, spec
  )
  # what is logged beside them is declared
  assert set(names) <= set(terms) == set(objective.weights)
  assert all(leaf.shape == () and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(terms))


def test_the_loss_of_a_model_is_that_of_its_outputs():
  target = tiny.frames((1, 1, 4, 4))

  class Model:
    def forward(self, params, batch, *, key):
      pixels = target + params["shift"] * (1.0 if key == "KEY" else 0.0)
      return {"target": target, "pixels": pixels, "current": target}

  objective = objectives.build({"reconstruction": {"weight": 1.0}})
  loss = objectives.model_loss(Model(), objective)
  np.testing.assert_allclose(
    mean(loss({"shift": 3.0}, BATCH, "KEY")["reconstruction"]), 9.0, rtol=1e-5
  )
  given = []
  objective = objectives.Objective(
    {"perceptual": lambda outputs, batch, *, weights: given.append(weights) or {}},
    {},
    {"perceptual": "OWN"},
  )
  loss = objectives.model_loss(Model(), objective)
  loss({"shift": 3.0}, BATCH, "KEY"), loss({"shift": 3.0}, BATCH, "KEY", {"perceptual": "ARGUMENT"})
  assert given == ["OWN", "ARGUMENT"]
