"""Forward dynamics: every output, condition and features setting."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.models import pixels
from tests.models import tiny


def outputs_of(**changes):
  model, params = tiny.made(tiny.MOTION, **changes)
  batch = tiny.batch_of(model.inputs_spec(2))
  return model, params, jax.jit(lambda p: model.forward(p, batch, key=jax.random.key(7)))(params)


@pytest.mark.parametrize("condition", ["add", "concat"])
def test_residual_starts_as_the_copy_baseline(condition):
  model, params = tiny.made(tiny.MOTION, **{"fdm.output": "residual", "fdm.condition": condition})
  frames, latent = tiny.frames((2, 16, 16)), jax.random.normal(jax.random.key(3), (2, 3, 4))
  params = jax.jit(model.fdm.init)(jax.random.key(0), frames, latent)["params"]
  assert ("pool" in params) == (condition == "add") and ("latent_position" in params) == (
    condition == "concat"
  )

  def error(params):
    pixels = model.fdm.apply({"params": params}, frames, latent)["pixels"]
    return (pixels**2).sum(), pixels

  gradient, predicted = jax.jit(jax.grad(error, has_aux=True))(params)
  np.testing.assert_array_equal(predicted, frames)
  assert np.abs(gradient["head"]["kernel"]).max() > 0  # and can leave it


@pytest.mark.parametrize("condition", ["add", "concat"])
def test_prediction_depends_on_the_latent(condition):
  model, params = tiny.made(tiny.MOTION, **{"fdm.condition": condition})
  decode = jax.jit(lambda z: model.decode(params, tiny.frames((2, 16, 16)), z)["pixels"])
  a, b = (decode(jax.random.normal(jax.random.key(seed), (2, 12))) for seed in range(2))
  assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("features", ["none", "direct", "residual"])
def test_features(features):
  model, params, outputs = outputs_of(**{"fdm.features": features})
  names = {"features_predicted", "features_target"}
  if features == "none":
    assert not names & set(outputs) and "features_head" not in params["fdm"]
    return
  chex.assert_shape([outputs[name] for name in names], (2, 1, 4, 32))
  batch = tiny.batch_of(model.inputs_spec(2))
  tokens = jax.jit(model.encode_frames)(params, pixels.normalize(batch["frames"]))
  np.testing.assert_allclose(outputs["features_target"], tokens[:, 1:, 1:], rtol=1e-4, atol=1e-5)
  decode = jax.jit(
    lambda params: model.decode(params, outputs["current"][:, 0], outputs["z"][:, 0])
  )
  decoded = decode(params)
  if features == "residual":
    zero = jax.tree.map(jnp.zeros_like, params["fdm"]["features_head"])
    still = {**params, "fdm": {**params["fdm"], "features_head": zero}}
    np.testing.assert_allclose(decode(still)["features"], tokens[:, 0, 1:], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
    decoded["features"], outputs["features_predicted"][:, 0], rtol=1e-4, atol=1e-5
  )


def test_features_target_has_no_gradient():
  model, params = tiny.made(tiny.MOTION, **{"fdm.features": "direct"})
  batch = tiny.batch_of(model.inputs_spec(1))
  total = jax.grad(
    lambda p: model.forward(p, batch, key=jax.random.key(7))["features_target"].sum()
  )
  gradient = jax.jit(total)(params)
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))
