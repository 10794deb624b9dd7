"""GELU and its slope; query, key and value in one product."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.models import specs, transformer
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules


def test_gelu_and_its_slope():
  x = jnp.linspace(-4, 4, 41)
  np.testing.assert_allclose(transformer.gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)
  np.testing.assert_allclose(
    jax.vmap(jax.grad(transformer.gelu))(x),
    jax.vmap(jax.grad(lambda x: jax.nn.gelu(x, approximate=False)))(x),
    atol=1e-6,
  )


STACK = specs.StackConfig(width=12, depth=1, num_heads=2, mlp_dim=24, initializer="mae")
X = jax.random.normal(jax.random.key(1), (2, 5, 12))


@pytest.mark.parametrize("num_outputs", [None, 2])
def test_one_product_equals_three(num_outputs):
  fused, apart = (
    transformer.Attention(dataclasses.replace(STACK, fused_qkv=fused)) for fused in (True, False)
  )
  params = apart.init(jax.random.key(0), X)["params"]
  chex.assert_trees_all_equal(fused.init(jax.random.key(0), X)["params"], params)
  params = jax.tree.map(
    lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size).reshape(x.shape)), params
  )  # no trivial bias

  def run(module):
    def loss(p, x):
      out = module.apply({"params": p}, x, num_outputs=num_outputs)
      return jnp.sum(jnp.sin(out)), out

    (_, out), gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, X)
    products = str(jax.make_jaxpr(lambda p: loss(p, X)[1])(params)).count("dot_general")
    return (out, gradient), products

  (one, products), (other, more) = run(fused), run(apart)
  chex.assert_trees_all_close(one, other, rtol=1e-5, atol=1e-5)
  # query, key, value and output apart, and two of attention; queries of fewer tokens stay apart
  assert (products, more) == ((4, 6) if num_outputs is None else (5, 6))


def test_one_product_of_a_layer_that_reads_a_cache():
  module = transformer.Attention(dataclasses.replace(STACK, fused_qkv=True))
  apart = transformer.Attention(STACK)
  params = apart.init(jax.random.key(0), X)["params"]
  cache = {name: jax.random.normal(jax.random.key(2), (2, 7, 2, 6)) for name in ("key", "value")}
  for index in (None, 1):
    one, other = (
      layer.apply({"params": params}, X, cache_index=index, cache=cache)
      for layer in (module, apart)
    )
    chex.assert_trees_all_close(one, other, rtol=1e-5, atol=1e-6)


def test_one_product_keeps_the_split_of_heads():
  """On a mesh with a tensor axis no kernel is gathered for the stacked product."""
  mesh = mesh_lib.make(data=1, fsdp=1, tensor=2, devices=jax.devices()[:2])
  module = transformer.Attention(dataclasses.replace(STACK, width=256, fused_qkv=True))
  x = jax.random.normal(jax.random.key(1), (2, 5, 256))
  params = {"attention": module.init(jax.random.key(0), x)["params"]}
  stacked = jax.tree.map(lambda leaf: leaf[None], params)  # as one of a stack's layers
  placed = jax.device_put(stacked, rules.shardings(stacked, mesh))

  @jax.jit
  def run(params):
    with rules.activations(mesh):
      return module.apply({"params": jax.tree.map(lambda leaf: leaf[0], params["attention"])}, x)

  assert "all-gather" not in run.lower(placed).compile().as_text()
  np.testing.assert_allclose(
    run(placed), module.apply({"params": params["attention"]}, x), rtol=1e-4, atol=1e-5
  )
