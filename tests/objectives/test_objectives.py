"""Objectives: values by hand, masks and counts, the table, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors, models, objectives
from como_jax.models import pixels as pixels_lib
from como_jax.objectives import contrastive, perceptual
from tests.models import tiny

BATCH = {}


def mean(term):
  return float(term[0] / term[1])


def test_reconstruction_and_copy_baseline():
  target = tiny.frames((2, 3, 4, 4))
  outputs = {"target": target, "pixels": target + 2.0, "current": target - 3.0}
  terms = objectives.build({"reconstruction": {"weight": 1.0}})(outputs, BATCH)
  np.testing.assert_allclose(mean(terms["reconstruction"]), 4.0, rtol=1e-5)
  np.testing.assert_allclose(mean(terms["copy_current"]), 9.0, rtol=1e-5)
  assert terms["reconstruction"][1] == 6


def test_padding_counts_for_nothing():
  target = tiny.frames((2, 3, 4, 4))
  outputs = {"target": target, "pixels": (target + 2.0).at[1].set(jnp.nan), "current": target}
  terms = objectives.build({"reconstruction": {"weight": 1.0}})(
    outputs, {"valid": jnp.array([True, False])}
  )
  np.testing.assert_allclose(mean(terms["reconstruction"]), 4.0, rtol=1e-5)
  assert terms["reconstruction"][1] == 3
  none = objectives.build({"reconstruction": {"weight": 1.0}})(
    outputs, {"valid": jnp.array([False, False])}
  )
  assert none["reconstruction"] == (0, 0)


def test_contrastive_by_hand():
  """Jittered = forward, reverse opposite to one and at right angles to the other."""
  forward = jnp.array([[[1.0, 0.0], [3.0, 0.0]]])
  jittered = jnp.array([[[2.0, 0.0], [0.0, 1.0]]])
  reverse = jnp.array([[[-5.0, 0.0], [0.0, 7.0]]])
  outputs = {"z": forward, "z_jittered": jittered, "z_reversed": reverse}
  terms = objectives.build({"contrastive": {"weight": 0.004}})(outputs, BATCH)
  first = -np.log(np.exp(10.0) / (np.exp(10.0) + np.exp(-10.0) + np.exp(-10.0)))
  second = -np.log(1.0 / (1.0 + np.exp(10.0) + 1.0))  # S1 = 0, S2 = 1, S3 = 0
  np.testing.assert_allclose(terms["contrastive"][0], first + second, rtol=1e-5)
  assert terms["contrastive"][1] == 2
  for name, value in (
    ("jittered_forward", 0.5),
    ("jittered_reversed", 0.0),
    ("forward_reversed", -0.5),
  ):
    np.testing.assert_allclose(mean(terms[f"similarity_{name}"]), value, atol=1e-6)


def test_contrastive_temperature_and_no_other_negatives():
  rng = np.random.default_rng(0)
  outputs = {
    name: jnp.asarray(rng.normal(size=(3, 2, 4)), jnp.float32)
    for name in ("z", "z_jittered", "z_reversed")
  }
  cold, warm = (
    objectives.build({"contrastive": {"weight": 1.0, "temperature": temperature}})(outputs, BATCH)
    for temperature in (0.1, 1e6)
  )
  np.testing.assert_allclose(mean(warm["contrastive"]), np.log(3), rtol=1e-4)
  assert abs(mean(cold["contrastive"]) - np.log(3)) > 0.1
  alone = [
    objectives.build({"contrastive": {"weight": 1.0}})(
      jax.tree.map(lambda x, i=i: x[i : i + 1], outputs), BATCH
    )
    for i in range(3)
  ]
  np.testing.assert_allclose(
    cold["contrastive"][0], sum(terms["contrastive"][0] for terms in alone), rtol=1e-5
  )


def test_still_pairs_are_left_out_of_the_contrastive_mean():
  """Four pairs of 10 x 10 pixels: noise everywhere, nothing, 2 of 100 pixels moving, 3 of 100
  moving in a clip of padding.
  """
  std = np.array([0.229, 0.224, 0.225], np.float32)
  current = np.asarray(tiny.frames((2, 2, 10, 10)))
  change = np.zeros((2, 2, 10, 10, 3), np.float32)
  change[0, 0] = 0.049 * np.random.default_rng(0).choice([-1, 1], (10, 10, 3))
  change[1, 0, 0, :2, 2] = -0.051
  change[1, 1, 0, :3, 1] = 0.5
  rng = np.random.default_rng(0)
  z = {
    name: jnp.asarray(rng.normal(size=(2, 2, 4)), jnp.float32)
    for name in ("z", "z_jittered", "z_reversed")
  }
  frames = {"current": jnp.asarray(current), "target": jnp.asarray(current + change / std)}
  np.testing.assert_allclose(contrastive.moving_share(frames), [[0, 0], [0.02, 0.03]], atol=1e-6)

  def terms(gate, z=z, batch=BATCH):
    return objectives.build({"contrastive": {"weight": 1.0, "gate": gate}})({**z, **frames}, batch)

  single = [
    float(terms(0.0, jax.tree.map(lambda x, i=i: x[1:, i : i + 1], z))["contrastive"][0])
    for i in (0, 1)
  ]
  off, low, high = terms(0.0), terms(0.015), terms(0.025)
  assert (
    off["contrastive_gated"] == (0, 4)
    and low["contrastive_gated"] == (2, 4)
    and high["contrastive_gated"] == (3, 4)
  )
  assert (off["contrastive"][1], low["contrastive"][1], high["contrastive"][1]) == (4, 2, 1)
  np.testing.assert_allclose(low["contrastive"][0], sum(single), rtol=1e-5)
  np.testing.assert_allclose(high["contrastive"][0], single[1], rtol=1e-5)
  np.testing.assert_allclose(
    mean(low["similarity_forward_reversed"]), mean(off["similarity_forward_reversed"])
  )
  padded = terms(0.015, batch={"valid": jnp.array([True, False])})
  assert padded["contrastive"] == (0, 0) and padded["contrastive_gated"] == (2, 2)
  gradient = jax.grad(lambda z: terms(0.015, z)["contrastive"][0])(z)
  for name, value in gradient.items():
    assert not value[0].any() and value[1].all(), name


def test_contrastive_is_finite_at_zero():
  zeros = jnp.zeros((1, 1, 4))
  objective = objectives.build({"contrastive": {"weight": 1.0}})

  def loss(z):
    return objective({"z": z, "z_jittered": z, "z_reversed": z}, BATCH)["contrastive"][0]

  value, gradient = jax.value_and_grad(loss)(zeros)
  np.testing.assert_allclose(value, np.log(3), rtol=1e-6)
  assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
  "weighting, expected", [("legacy", 0.25 * 8 + 2), ("standard", 8 + 0.25 * 2)]
)
def test_quantization_weighting(weighting, expected):
  outputs = {"codebook": jnp.full((2, 2), 8.0), "commitment": jnp.full((2, 2), 2.0)}
  objective = objectives.build({"quantization": {"weight": 1.0, "weighting": weighting}})
  terms = objective(outputs, BATCH)
  assert mean(terms["quantization"]) == expected
  assert mean(terms["codebook"]) == 8 and mean(terms["commitment"]) == 2
  assert objective.weights == {"quantization": 1.0, "codebook": None, "commitment": None}


def test_kl_and_features():
  terms = objectives.build({"kl": {"weight": 0.1}, "features": {"weight": 1.0}})(
    {
      "kl": jnp.array([[3.0, 5.0]]),
      "features_predicted": jnp.ones((1, 2, 4, 8)),
      "features_target": jnp.zeros((1, 2, 4, 8)),
    },
    BATCH,
  )
  assert mean(terms["kl"]) == 4 and mean(terms["features"]) == 1
  assert terms["kl"][1] == 2


def test_mae_counts_hidden_patches_only():
  target = jnp.zeros((2, 4, 6))
  patches = target.at[:, 0].set(100.0).at[:, 1].set(3.0).at[0, 2].set(1.0)
  mask = jnp.array([[0.0, 1, 1, 0], [0, 1, 0, 0]])
  objective = objectives.build({"mae": {"weight": 1.0}})
  terms = objective({"patches": patches, "target": target, "mask": mask}, BATCH)
  assert terms["mae"] == (9 + 1 + 9, 3)
  terms = objective(
    {"patches": patches, "target": target, "mask": mask}, {"valid": jnp.array([False, True])}
  )
  assert terms["mae"] == (9, 1)


def random_weights():
  """Small random VGG16 and heads with the real structure but four channels a block, in the file's
  layout.
  """
  stored, inputs, rng = {}, 3, np.random.default_rng(0)
  for number, block in enumerate(perceptual.CONVOLUTIONS):
    for i in block:
      stored[f"features.{i}.weight"] = rng.normal(size=(4, inputs, 3, 3), scale=0.4).astype(
        np.float32
      )
      stored[f"features.{i}.bias"] = rng.normal(size=4, scale=0.1).astype(np.float32)
      inputs = 4
    stored[f"lin{number}.model.1.weight"] = rng.uniform(size=(1, 4, 1, 1)).astype(np.float32)
  return stored


@pytest.fixture(scope="module")
def lpips(tmp_path_factory):
  path = tmp_path_factory.mktemp("lpips") / "weights.npz"
  np.savez(path, **random_weights())
  return objectives.build({"perceptual": {"weight": 0.5, "weights_path": str(path)}})


def test_perceptual(lpips):
  target = tiny.frames((1, 2, 16, 16))

  def value(pixels, constants):
    return lpips({"pixels": pixels, "target": target}, BATCH, constants)["perceptual"][0]

  step = jax.jit(jax.value_and_grad(value))
  same, _ = step(target, lpips.constants)
  assert same < 1e-10
  other, gradient = step(tiny.frames((1, 2, 16, 16), 9), lpips.constants)
  assert other > 0 and np.all(np.isfinite(gradient)) and np.abs(gradient).max() > 0
  assert lpips({"pixels": target, "target": target}, BATCH)["perceptual"][1] == 2
  _, flat = step(jnp.zeros_like(target), lpips.constants)
  assert np.all(np.isfinite(flat))
  assert lpips.weights == {"perceptual": 0.5}


def test_perceptual_scale_is_that_of_the_models_pixels():
  np.testing.assert_array_equal(perceptual.IMAGENET_MEAN, pixels_lib.MEAN)
  np.testing.assert_array_equal(perceptual.IMAGENET_STD, pixels_lib.STD)


def test_perceptual_is_off_without_weights():
  objective = objectives.build(
    {"perceptual": {"weight": 1.0, "weights_path": ""}, "kl": {"weight": 1.0}}
  )
  assert (
    objective.weights == {"kl": 1.0}
    and set(objective.functions) == {"kl"}
    and objective.constants == {}
  )


def test_perceptual_files(tmp_path):
  def build(path):
    return objectives.build({"perceptual": {"weight": 1.0, "weights_path": str(path)}})

  with pytest.raises(errors.UserError, match="no file"):
    build(tmp_path / "none.npz")
  (tmp_path / "weights.pth").write_bytes(b"")
  with pytest.raises(errors.UserError, match="neither"):
    build(tmp_path / "weights.pth")
  stored = random_weights()
  lacking = {name: value for name, value in stored.items() if name != "features.10.bias"}
  np.savez(tmp_path / "lacking.npz", **lacking)
  with pytest.raises(errors.UserError, match="features.10.bias"):
    build(tmp_path / "lacking.npz")
  import safetensors.numpy

  short = {name.replace("model.1.", ""): value for name, value in stored.items()}
  safetensors.numpy.save_file(short, tmp_path / "w.safetensors")
  constants = build(tmp_path / "w.safetensors").constants["perceptual"]
  assert constants["conv2/kernel"].shape == (3, 3, 4, 4) and constants["head4"].shape == (4,)


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


def test_unknown_weighting():
  with pytest.raises(errors.UserError, match="legacy"):
    objectives.build({"quantization": {"weight": 1.0, "weighting": "legasy"}})({}, BATCH)


def test_off_and_logged_only():
  objective = objectives.build({"kl": None, "reconstruction": {"weight": 0.0}})
  assert objective.weights == {"reconstruction": 0.0, "copy_current": None} and set(
    objective.functions
  ) == {"reconstruction"}


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
