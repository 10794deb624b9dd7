"""Bottlenecks: values, gradients, labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.models.motion import bottleneck

HIDDEN = jax.random.normal(jax.random.key(1), (2, 3, 8))
KEY = jax.random.key(2)


def made(kind, **settings):
  module = bottleneck.BOTTLENECKS[kind](latent_dim=4, initializer="mae", **settings)
  return module, module.init(jax.random.key(0), HIDDEN, None)


def by_hand(params):
  inner = jnp.tanh(HIDDEN @ params["down_0"]["kernel"] + params["down_0"]["bias"][None, None])
  return inner @ params["down_1"]["kernel"] + params["down_1"]["bias"][None, None]


def test_continuous():
  module, variables = made("continuous")
  latent = module.apply(variables, HIDDEN, KEY)
  np.testing.assert_allclose(latent.z, by_hand(variables["params"]), rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(latent.z, latent.decoder_input)
  assert latent.terms == {}


@pytest.mark.parametrize("kind", ["vq", "pre_vq"])
def test_vector_quantization(kind):
  module, variables = made(kind, num_codes=5)
  params = variables["params"]
  assert np.abs(params["codebook"]).max() <= 1 / 5
  latent = module.apply(variables, HIDDEN, None)
  embedding = by_hand(params)
  distances = np.square(
    np.asarray(embedding)[:, :, None] - np.asarray(params["codebook"])[None, None]
  ).sum(axis=-1)
  np.testing.assert_array_equal(latent.terms["codes"], distances.argmin(axis=-1))
  chosen = np.asarray(params["codebook"])[latent.terms["codes"]]
  np.testing.assert_allclose(latent.decoder_input, chosen, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(latent.z, chosen if kind == "vq" else embedding, rtol=1e-5, atol=1e-6)
  for term in ("codebook", "commitment"):
    np.testing.assert_allclose(
      latent.terms[term], np.square(chosen - embedding).mean(axis=(1, 2)), rtol=1e-5
    )
  # Labels are read back as the codes they stand for.
  np.testing.assert_allclose(
    module.apply(variables, latent.z, method="to_decoder_input"), chosen, rtol=1e-5, atol=1e-6
  )


def test_gradients_of_vector_quantization():
  module, variables = made("vq", num_codes=5)

  def gradient(function):
    return jax.grad(lambda params: function(module.apply({"params": params}, HIDDEN, None)))(
      variables["params"]
    )

  straight = gradient(lambda latent: jnp.sum(latent.decoder_input))
  assert np.any(straight["down_1"]["kernel"]) and not np.any(straight["codebook"])
  codebook = gradient(lambda latent: jnp.sum(latent.terms["codebook"]))
  assert np.any(codebook["codebook"]) and not np.any(codebook["down_1"]["kernel"])
  commitment = gradient(lambda latent: jnp.sum(latent.terms["commitment"]))
  assert np.any(commitment["down_1"]["kernel"]) and not np.any(commitment["codebook"])


def test_kl():
  module, variables = made("kl")
  label, trained, again = (module.apply(variables, HIDDEN, key) for key in (None, KEY, KEY))
  np.testing.assert_array_equal(label.z, label.decoder_input)
  np.testing.assert_array_equal(label.z, trained.z)  # the label is the mean, sampled or not
  np.testing.assert_array_equal(trained.decoder_input, again.decoder_input)
  assert np.abs(trained.decoder_input - trained.z).max() > 0.1
  assert np.all(label.terms["kl"] > 0)
  zero = jax.tree.map(jnp.zeros_like, variables)  # mean 0, variance 1
  np.testing.assert_array_equal(module.apply(zero, HIDDEN, None).terms["kl"], 0)
  shifted = jax.tree.map(jnp.zeros_like, variables)
  shifted["params"]["down_1"]["bias"] = jnp.full(4, 2.0)
  np.testing.assert_allclose(
    module.apply(shifted, HIDDEN, None).terms["kl"], 0.5 * 4 * 12, rtol=1e-6
  )
