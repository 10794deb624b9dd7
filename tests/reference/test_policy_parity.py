"""Parity of the DiT block with its torch twin, 1e-5, on random parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import trees
from como_jax.models import specs
from como_jax.models.policy import blocks, dit
from tests.models import tiny

torch = pytest.importorskip("torch")
from tests.reference import torch_models, torch_policy

pytestmark = pytest.mark.reference


def test_dit_block():
  rng = np.random.default_rng(0)
  x, context, condition = (
    rng.normal(size=shape).astype(np.float32) for shape in ((2, 5, 12), (2, 7, 10), (2, 2, 12))
  )
  group, valid = np.array([0, 0, 0, 1, 1]), np.array([[1, 1, 0, 1, 1], [1, 1, 1, 1, 0]], bool)
  mask, seen = np.asarray(dit.group_mask(group, jnp.asarray(valid))), rng.random((2, 1, 1, 7)) < 0.7
  seen[..., 0] = True
  stack = specs.StackConfig(12, 1, 2, 24, epsilon=1e-6, initializer="mae")
  keys_and_values, block = blocks.KeysAndValues(stack), blocks.DiTBlock(stack)
  context_params = tiny.fill(
    jax.eval_shape(keys_and_values.init, jax.random.key(0), context)["params"]
  )
  context_kv = keys_and_values.apply({"params": context_params}, context)
  inputs = (x, mask, seen, condition, group, context_kv)
  params = tiny.fill(jax.eval_shape(block.init, jax.random.key(0), *inputs)["params"])
  ours = jax.jit(block.apply)({"params": params}, *inputs)

  merged = {**params, "cross_attention": {**params["cross_attention"], **context_params}}
  twin = torch_models.load(torch_policy.DiTBlock(12, 2, 24, 10), trees.flatten(merged))
  theirs = twin(*(torch.tensor(value) for value in (x, mask, context, seen, condition, group)))
  np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_time_features_are_those_of_dit():
  time = np.array([0.0, 0.013, 1.0], np.float32)
  frequency = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(128) / 128)
  angle = 1000 * torch.tensor(time)[:, None] * frequency[None]
  expected = torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)
  # angles reach 1,000
  np.testing.assert_allclose(blocks.time_features(jnp.asarray(time)), expected.numpy(), atol=1e-3)
