"""Output heads: losses, layers, defaults, and mixtures as densities."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import models
from como_jax.models.policy import diffusion, outputs
from tests.models.policy import small

KEY = jax.random.key(0)


def test_defaults_of_objectives():
  section = {}
  assert diffusion.build(section, "w") == (diffusion.Flow("beta", 1.5, 0.999, 0.0, 1.0), 10)
  assert diffusion.build({"objective": "ddpm", "num_sampling_steps": 3}, "w") == (
    diffusion.DDPM(100, "cosine", "v", "ddim", 5.0),
    3,
  )
  motion, action = outputs.build({}, "w", diffusion.Flow())
  assert motion == action == outputs.Regression("smooth_l1") and action.zero
  motion, action = outputs.build(
    {"motion_head": "gmm", "action_head": "diffusion"}, "w", diffusion.Flow()
  )
  assert (
    motion == outputs.Mixture(5, 1.0)
    and not motion.zero
    and action == outputs.Diffusion(diffusion.Flow(), "encode", 256, 3)
    and action.zero
  )
  assert outputs.build({"motion_head": "diffusion"}, "w", diffusion.Flow())[0].layer == "noisy"
  x = jnp.array([-3.0, -1.0, -0.5, 0.0, 0.5, 2.0])
  np.testing.assert_allclose(outputs.LOSSES["smooth_l1"](x), [2.5, 0.5, 0.125, 0, 0.125, 1.5])
  np.testing.assert_allclose(outputs.LOSSES["mse"](x), [9, 1, 0.25, 0, 0.25, 4])
  gpt = models.build(small.GPT).action_head
  assert (
    gpt.prefix,
    gpt.position,
    gpt.motion_dropout,
    gpt.inference,
    gpt.action_weight,
    gpt.gripper,
    gpt.supports_guidance,
  ) == ("causal", "learned", 0.5, "decoded", 1.0, {}, False)
  section = {"width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 32}
  gpt = models.build({**small.GPT, "gpt": section}).action_head
  assert (gpt.inference, gpt.num_sampling_steps) == ("hidden", 10)
  assert (gpt.latent.num_queries, gpt.latent.latent_dim) == (2, 3)
  assert models.build(small.DIT).action_head.supports_guidance


def test_layers_of_heads():
  assert outputs.Regression().layers(16, 3) == {"decode": (16, 3)} and outputs.Mixture(4).layers(
    16, 3
  ) == {"decode": (16, 28)}
  assert outputs.Diffusion(None, "noisy", 8, 2).layers(16, 3) == {"noisy": (3, 8), "decode": (8, 3)}
  weights, means, deviations = outputs.Mixture(2)._split(jnp.arange(10.0)[None], 2)
  np.testing.assert_allclose(
    np.exp(weights[0]), [1 / (1 + math.e), math.e / (1 + math.e)], rtol=1e-6
  )
  np.testing.assert_array_equal(means[0], [[2, 3], [6, 7]])
  np.testing.assert_allclose(
    deviations[0], np.exp(3 * np.tanh(np.array([[4, 5], [8, 9]]) / 3) - 1), rtol=1e-5
  )


def test_samples_of_a_mixture():
  mixture = outputs.Mixture(2)
  # a quarter around -5, the rest around 5; deviation 1 / e
  numbers = jnp.tile(jnp.array([[0.0, math.log(3.0), -5.0, 0.0, 5.0, 0.0]]), (4000, 1))
  options = dict(dims=1, num_sampling_steps=0)
  drawn = np.asarray(mixture.sample(None, lambda layer, x: x, numbers, KEY, **options))[:, 0]
  assert (drawn > 0).mean() == pytest.approx(0.75, abs=0.03) and drawn[
    drawn > 0
  ].std() == pytest.approx(1 / math.e, abs=0.02)
  cold = dataclasses.replace(mixture, temperature=0.5).sample(
    None, lambda layer, x: x, numbers, KEY, **options
  )
  assert np.asarray(cold)[drawn > 0].std() == pytest.approx(0.5 / math.e, abs=0.02)
  np.testing.assert_array_equal(
    dataclasses.replace(mixture, temperature=0.0).sample(
      None, lambda layer, x: x, numbers[:3], KEY, **options
    ),
    5,
  )


def test_mixture_is_a_density():
  """One component: the Gaussian's own negative log-likelihood; sampling without temperature gives
  its mean.
  """
  mixture, rng = outputs.Mixture(components=1, temperature=0.0), np.random.default_rng(0)
  numbers, target = (jnp.asarray(rng.normal(size=(6, size)), jnp.float32) for size in (5, 2))
  loss = mixture.loss(None, lambda layer, x: x, numbers, target, KEY)
  mean, deviation = (
    np.asarray(numbers[:, 1:3]),
    np.exp(3 * np.tanh(np.asarray(numbers[:, 3:]) / 3) - 1),
  )
  expected = 0.5 * ((target - mean) / deviation) ** 2 + np.log(deviation) + 0.5 * np.log(2 * np.pi)
  np.testing.assert_allclose(loss.sum(-1), expected.sum(-1), rtol=1e-4)
  np.testing.assert_allclose(
    mixture.sample(None, lambda layer, x: x, numbers, KEY, dims=2, num_sampling_steps=1),
    mean,
    rtol=1e-6,
  )


def test_mixture_samples_its_components():
  mixture = outputs.Mixture(components=2)
  numbers = jnp.broadcast_to(jnp.log(jnp.array([0.25, 0.75, 1.0, 1.0, 1.0, 1.0])), (4000, 6))
  numbers = numbers.at[:, 2].set(-3.0).at[:, 4].set(3.0)  # means; then the raw deviations are 0
  z = mixture.sample(None, lambda layer, x: x, numbers, KEY, dims=1, num_sampling_steps=1)
  assert float(z.mean()) == pytest.approx(0.75 * 3 - 0.25 * 3, abs=0.15)
  assert float(jnp.abs(jnp.abs(z) - 3).mean()) == pytest.approx(
    np.exp(-1) * np.sqrt(2 / np.pi), abs=0.03
  )
