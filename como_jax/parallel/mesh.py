"""The device mesh: axes data, fsdp, tensor. One CPU device is a mesh of one."""

import math

import jax
import numpy as np

from como_jax import errors

AXES = ("data", "fsdp", "tensor")


def make(*, data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> jax.sharding.Mesh:
  """A mesh over all devices, with Auto axis types (explicit ones break logical activation constraints).

  Args:
    data, fsdp, tensor: axis sizes; one of them may be -1, for "what is left".
    devices: the devices (default: all).

  Raises:
    errors.UserError: when the sizes do not fill the devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = [data, fsdp, tensor]
  if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
    raise errors.UserError(f"config.train.mesh: data={data}, fsdp={fsdp}, tensor={tensor}: sizes are positive, one may be -1")
  if -1 in sizes:
    known = math.prod(size for size in sizes if size != -1)
    sizes[sizes.index(-1)] = len(devices) // known
  if math.prod(sizes) != len(devices):
    raise errors.UserError(f"config.train.mesh: data x fsdp x tensor = {' x '.join(map(str, sizes))} does not fill the {len(devices)} devices")
  auto = (jax.sharding.AxisType.Auto,) * len(AXES)
  return jax.sharding.Mesh(np.asarray(devices).reshape(sizes), AXES, axis_types=auto)


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """The leading axis split over data and fsdp."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """The same value on every device."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def check_batch(mesh: jax.sharding.Mesh, batch_size: int, *, accumulate: int = 1) -> None:
  """Refuses a global batch that the mesh cannot split evenly."""
  ways = mesh.shape["data"] * mesh.shape["fsdp"] * accumulate
  if batch_size % ways:
    raise errors.UserError(f"config.train.batch_size={batch_size} is not divisible by data x fsdp x accumulate = {ways}")
