"""Shardings from names and shapes."""

import jax
import jax.numpy as jnp
import pytest

from como_jax import errors
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules

P = jax.sharding.PartitionSpec


@pytest.fixture(scope="module")
def mesh():
  return mesh_lib.make(data=1, fsdp=4, tensor=2)


@pytest.mark.parametrize("name, shape, expected", [
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
])
def test_spec(mesh, name, shape, expected):
  assert rules.spec(name, shape, mesh) == expected


def test_optimiser_moments_follow_their_parameter(mesh):
  tree = {"mu": {"blocks": {"mlp": {"up": {"kernel": jnp.zeros((2, 64, 128))}}}}}
  placed = rules.shardings(tree, mesh)["mu"]["blocks"]["mlp"]["up"]["kernel"]
  assert placed.spec == P(None, "fsdp", "tensor")


def test_axes_are_auto_and_one_may_be_left_open():
  mesh = mesh_lib.make(data=-1, fsdp=2)
  assert dict(mesh.shape) == {"data": 4, "fsdp": 2, "tensor": 1}
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


@pytest.mark.parametrize("sizes", [dict(data=3), dict(data=-1, fsdp=-1), dict(data=0), dict(data=-1, fsdp=16)])
def test_sizes_that_do_not_fill_the_devices_are_refused(sizes):
  with pytest.raises(errors.UserError, match="config.train.mesh"):
    mesh_lib.make(**sizes)


def test_batch_must_split_evenly(mesh):
  with pytest.raises(errors.UserError, match="batch_size=6"):
    mesh_lib.check_batch(mesh, 6)
