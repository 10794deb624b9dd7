"""Shardings from names and shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import errors
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules

P = jax.sharding.PartitionSpec


@pytest.fixture(scope="module")
def mesh():
  return mesh_lib.make(data=1, fsdp=4, tensor=2)


@pytest.mark.parametrize(
  "name, shape, expected",
  [
    ("fdm/blocks/attention/query/kernel", (12, 768, 768), P(None, "fsdp", "tensor")),
    ("fdm/blocks/attention/output/kernel", (12, 768, 768), P(None, "tensor", "fsdp")),
    ("fdm/blocks/mlp/up/kernel", (12, 768, 3072), P(None, "fsdp", "tensor")),
    ("fdm/blocks/mlp/up/bias", (12, 3072), P(None, "tensor")),
    ("fdm/pool/kernel", (6144, 768), P("fsdp", None)),
    ("dit/denoiser/blocks/modulation/kernel", (12, 768, 6912), P(None, None, "fsdp")),
    ("dit/denoiser/modulation_out/kernel", (768, 1536), P(None, "fsdp")),
    ("dit/denoiser/time/in/kernel", (256, 768), P("fsdp", None)),
    ("fdm/norm/scale", (768,), P()),
    ("odd/kernel", (513, 511), P()),
  ],
)
def test_spec(mesh, name, shape, expected):
  assert rules.spec(name, shape, mesh) == expected


def abstract(**sizes):
  """A mesh of any size: shardings need no devices."""
  return jax.sharding.AbstractMesh(
    tuple({"data": 1, "fsdp": 1, "tensor": 1, **sizes}.values()), mesh_lib.AXES
  )


@pytest.mark.parametrize(
  "sizes, name, shape, expected",
  [
    # 768 wide on 512: the other width, or none.
    (
      dict(fsdp=512),
      "fdm/blocks/mlp/up/kernel",
      (12, 768, 3072),
      P(None, None, ("tensor", "fsdp")),
    ),
    (
      dict(fsdp=512),
      "fdm/blocks/mlp/down/kernel",
      (12, 3072, 768),
      P(None, ("tensor", "fsdp"), None),
    ),
    (
      dict(fsdp=256, tensor=2),
      "fdm/blocks/mlp/up/kernel",
      (12, 768, 3072),
      P(None, "fsdp", "tensor"),
    ),
    # 3072 are not 4 x 512 parts
    (
      dict(fsdp=512, tensor=4),
      "fdm/blocks/mlp/up/kernel",
      (12, 768, 3072),
      P(None, None, "tensor"),
    ),
    (dict(fsdp=512), "fdm/blocks/attention/query/kernel", (12, 768, 768), P(None, None, "tensor")),
    # ViT-L: no width divides by 3, its 24 layers do.
    (
      dict(fsdp=6),
      "encoder/blocks/attention/query/kernel",
      (24, 1024, 1024),
      P("fsdp", None, "tensor"),
    ),
    (dict(fsdp=24), "encoder/blocks/mlp/down/kernel", (24, 4096, 1024), P("fsdp", "tensor", None)),
    (dict(fsdp=48), "encoder/blocks/mlp/up/kernel", (24, 1024, 4096), P(None, None, "tensor")),
    # two axes: none of layers
    (dict(fsdp=6), "dit/denoiser/time/in/kernel", (256, 768), P(None, "fsdp")),
    (dict(fsdp=5), "dit/denoiser/blocks/modulation/kernel", (10, 768, 6912), P("fsdp", None, None)),
    (dict(tensor=5), "fdm/blocks/mlp/up/bias", (10, 3072), P(None, None)),  # small: not worth it
  ],
)
def test_an_axis_that_does_not_divide_falls_to_the_next(sizes, name, shape, expected):
  assert rules.spec(name, shape, abstract(**sizes)) == expected


def test_what_does_not_divide_is_said_once(monkeypatch, recwarn):
  monkeypatch.setattr(rules, "_SAID", set())
  mesh = mesh_lib.make(data=1, fsdp=3, devices=jax.devices()[:3])
  wide = {
    f"a{i}": {"attention": {"query": {"kernel": jax.ShapeDtypeStruct((3, 256, 256), jnp.float32)}}}
    for i in range(2)
  }
  tree = {
    **wide,
    "b": {"mlp": {"up": {"kernel": jax.ShapeDtypeStruct((2, 256, 256), jnp.float32)}}},
    "c": jax.ShapeDtypeStruct((512, 512), jnp.float32),
    "d": jax.ShapeDtypeStruct((768, 512), jnp.float32),
    "e": {"attention": {"query": {"kernel": jax.ShapeDtypeStruct((2, 8, 8), jnp.float32)}}},
  }
  for _ in range(2):
    rules.shardings(tree, mesh)
  messages = [str(one.message) for one in recwarn]
  assert len(messages) == 1
  assert "config.train.mesh.fsdp=3 does not divide" in messages[0]
  assert (
    "3x256x256 is split on axis 0 (2); 2x256x256 is split on no axis (1); 512x512 is split on "
    "no axis (1)."
  ) in messages[0]
  rules.shardings({"d": tree["d"], "e": tree["e"]}, mesh)
  rules.shardings(tree, mesh_lib.make(data=1, fsdp=2, devices=jax.devices()[:2]))
  assert len(recwarn) == 1


def test_stacks_split_by_layers_compute_the_same():
  """A scan over layers whose stack is split between devices."""
  kernel, x = (
    jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(((3, 256, 256), (6, 256)))
  )
  mesh = mesh_lib.make(data=1, fsdp=3, devices=jax.devices()[:3])
  tree = {"blocks": {"attention": {"query": {"kernel": kernel / 16}}}}
  with pytest.warns(UserWarning, match="axis 0"):
    rules._SAID.clear()
    placed = rules.shardings(tree, mesh)

  def apply(tree, x):
    return jax.lax.scan(
      lambda x, k: (jnp.tanh(x @ k), None), x, tree["blocks"]["attention"]["query"]["kernel"]
    )[0].sum()

  value, gradient = jax.jit(
    jax.value_and_grad(apply), in_shardings=(placed, mesh_lib.batch_sharding(mesh))
  )(tree, x)
  expected, expected_gradient = jax.value_and_grad(apply)(tree, x)
  np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(
    *(jax.tree.leaves(one)[0] for one in (gradient, expected_gradient)), rtol=1e-3, atol=1e-4
  )


def test_optimizer_moments_follow_their_parameter(mesh):
  tree = {"mu": {"blocks": {"mlp": {"up": {"kernel": jnp.zeros((2, 64, 128))}}}}}
  placed = rules.shardings(tree, mesh)["mu"]["blocks"]["mlp"]["up"]["kernel"]
  assert placed.spec == P(None, "fsdp", "tensor")


def test_axes_are_auto_and_one_may_be_left_open():
  mesh = mesh_lib.make(data=-1, fsdp=2)
  assert dict(mesh.shape) == {"data": 4, "fsdp": 2, "tensor": 1}
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize(
  "sizes", [dict(data=3), dict(data=-1, fsdp=-1), dict(data=0), dict(data=-1, fsdp=16)]
)
def test_sizes_that_do_not_fill_the_devices_are_refused(sizes):
  with pytest.raises(errors.UserError, match="config.train.mesh"):
    mesh_lib.make(**sizes)


def test_batch_must_split_evenly(mesh):
  with pytest.raises(errors.UserError, match="batch_size=6"):
    mesh_lib.check_batch(mesh, 6)
