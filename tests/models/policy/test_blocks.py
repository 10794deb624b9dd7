"""A modulation layer on a mesh: the same numbers, and its kernel stays where it is."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.models.policy import blocks
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules

PARTS = 9


def build(width, mesh):
  """(parameters with values, conditions, loss that is traced for the mesh or for one device)."""
  layer, random = blocks.Modulation(PARTS), np.random.default_rng(0)
  condition = random.normal(size=(16, 2, width)).astype(np.float32)
  shapes = jax.eval_shape(layer.init, jax.random.key(0), condition)
  params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes)
  params = {"modulation": params["params"]}

  def loss(params, condition):
    parts = layer.apply({"params": params["modulation"]}, condition)
    return sum(jax.numpy.sum((i + 1) * part**2) for i, part in enumerate(parts)), parts

  def on_mesh(params, condition):
    with rules.activations(mesh):
      return loss(params, condition)

  return params, condition, loss, on_mesh


@pytest.mark.parametrize("width", [32, 10])  # 90 columns do not divide by four
def test_numbers_do_not_depend_on_the_mesh(width):
  mesh = mesh_lib.make(data=2, fsdp=4)
  params, condition, loss, on_mesh = build(width, mesh)
  expected = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, condition)
  placed = (
    jax.device_put(params, rules.shardings(params, mesh, small=1)),
    jax.device_put(condition, mesh_lib.batch_sharding(mesh)),
  )
  found = jax.jit(jax.value_and_grad(on_mesh, has_aux=True))(*placed)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), found, expected)


def test_the_kernel_is_not_gathered():
  mesh, width = mesh_lib.make(data=2, fsdp=4), 32
  params, condition, _, on_mesh = build(width, mesh)
  shardings = rules.shardings(params, mesh, small=1)
  assert shardings["modulation"]["kernel"].spec == jax.sharding.PartitionSpec(None, "fsdp")
  given = (shardings, mesh_lib.batch_sharding(mesh))
  text = (
    jax.jit(jax.grad(on_mesh, has_aux=True), in_shardings=given, out_shardings=(shardings, None))
    .lower(params, condition)
    .compile()
    .as_text()
  )
  gathered = [
    tuple(map(int, shape.split(",")))
    for shape in re.findall(r"= f32\[([\d,]+)\]\S* all-gather\(", text)
  ]
  assert gathered, "the conditions of a group are gathered"
  assert not [shape for shape in gathered if np.prod(shape) >= width * PARTS * width], gathered


def test_diffusion_times_as_features():
  found = np.asarray(blocks.time_features(jnp.array([0.0, 0.5])))
  angle = 500 * np.exp(-np.log(10000) * np.arange(128) / 128)
  np.testing.assert_array_equal(found[0], [1] * 128 + [0] * 128)
  np.testing.assert_allclose(found[1], np.concatenate([np.cos(angle), np.sin(angle)]), atol=2e-4)
  assert blocks.time_features(jnp.zeros((2, 3))).shape == (2, 3, 256)
  x = jnp.array([[1.0, 3.0, 5.0, 7.0]])
  np.testing.assert_allclose(
    blocks.modulated_norm(x, jnp.full((1, 4), 10.0), jnp.full((1, 4), 1.0), epsilon=4.0),
    # variance 5, and 4
    10 + 2 * np.array([[-3, -1, 1, 3]]) / 3,
    rtol=1e-6,
  )
