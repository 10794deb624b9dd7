"""The device mesh: axes data, fsdp, tensor.

One CPU device is a mesh of one; several hosts and several TPU slices are one mesh too.

Devices are laid out slice by slice, and inside a slice process by process: `data` (outermost) spans
the slices over the slow network between them, `fsdp` and `tensor` stay inside a slice, `tensor`
inside a process. So every process holds one contiguous block of the rows of a batch, which is what
the data pipeline gives it, whatever the topology. (The layouts of jax.experimental.mesh_utils
follow the chips' torus instead and scatter a process's rows over the batch.)
"""

import collections
import math

import jax
import numpy as np

from como_jax import errors

AXES = ("data", "fsdp", "tensor")


def make(*, data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> jax.sharding.Mesh:
  """A mesh over all devices of all processes, with Auto axis types (explicit ones break logical
  activation constraints).

  Args:
    data, fsdp, tensor: axis sizes; one of them may be -1, for "what is left".
    devices: the devices (default: all).

  Raises:
    errors.UserError: when the sizes do not fill the devices, or an axis would leave its slice or
      process.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = [data, fsdp, tensor]
  if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
    raise errors.UserError(
      f"config.train.mesh: data={data}, fsdp={fsdp}, tensor={tensor}: sizes are positive, one "
      "may be -1"
    )
  if -1 in sizes:
    known = math.prod(size for size in sizes if size != -1)
    sizes[sizes.index(-1)] = len(devices) // known
  if math.prod(sizes) != len(devices):
    raise errors.UserError(
      f"config.train.mesh: data x fsdp x tensor = {' x '.join(map(str, sizes))} does not fill "
      f"the {len(devices)} devices"
    )
  _check_places(devices, *sizes)
  # stable: the given order inside a process
  ordered = sorted(devices, key=lambda device: (_slice(device), device.process_index))
  auto = (jax.sharding.AxisType.Auto,) * len(AXES)
  return jax.sharding.Mesh(np.asarray(ordered).reshape(sizes), AXES, axis_types=auto)


def _slice(device) -> int:
  """Number of a TPU device's slice; 0 elsewhere (GPU hosts call themselves slices, but share one
  network).
  """
  return (getattr(device, "slice_index", 0) or 0) if device.platform == "tpu" else 0


def _check_places(devices, data: int, fsdp: int, tensor: int) -> None:
  """Refuses axes that leave the place they are meant for."""
  slices = collections.Counter(_slice(device) for device in devices)
  if len(set(slices.values())) > 1:
    raise errors.UserError(
      f"config.train.mesh: the {len(slices)} slices have different numbers of devices: "
      f"{dict(slices)}"
    )
  if data % len(slices):
    raise errors.UserError(
      f"config.train.mesh: data={data} does not divide by the {len(slices)} slices: data spans "
      f"the slices, fsdp x tensor = {fsdp} x {tensor} stays inside one of "
      f"{len(devices) // len(slices)} devices"
    )
  processes = collections.Counter(device.process_index for device in devices)
  if len(set(processes.values())) > 1:
    raise errors.UserError(
      f"config.train.mesh: the {len(processes)} processes have different numbers of devices: "
      f"{dict(processes)}"
    )
  each = len(devices) // len(processes)
  if each % tensor:
    raise errors.UserError(
      f"config.train.mesh: tensor={tensor} does not divide the {each} devices of each of the "
      f"{len(processes)} processes: it stays inside a process (use fsdp across them, or start one "
      "process a host)"
    )


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """The leading axis split over data and fsdp."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))


def put_batch(mesh: jax.sharding.Mesh, batch):
  """The global arrays of a batch, from this process's rows of it (numpy, leading axis)."""
  sharding = batch_sharding(mesh)
  processes = len({device.process_index for device in mesh.devices.flat})
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(
      sharding, x, (x.shape[0] * processes, *x.shape[1:])
    ),
    batch,
  )


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """The same value on every device."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def check_batch(mesh: jax.sharding.Mesh, batch_size: int, *, accumulate: int = 1) -> None:
  """Refuses a global batch that the mesh cannot split evenly."""
  ways = mesh.shape["data"] * mesh.shape["fsdp"] * accumulate
  if batch_size % ways:
    raise errors.UserError(
      f"config.train.batch_size={batch_size} is not divisible by data x fsdp x accumulate = {ways}"
    )
