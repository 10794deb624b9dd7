"""The device mesh: axes data, fsdp, tensor.

One CPU device is a mesh of one device. Several hosts and several TPU slices are one mesh too.

Devices are ordered slice by slice, and inside a slice process by process. `data` (outermost) spans
the slices over the slow network between them. `fsdp` and `tensor` stay inside a slice, and `tensor`
inside a process. Every process therefore holds one contiguous block of the rows of a batch, as the
data pipeline provides it, on any topology. (The layouts of jax.experimental.mesh_utils follow the
torus of the chips instead, which scatters the rows of a process over the batch.)
"""

import collections
import math

import jax
import numpy as np

from como_jax import errors

AXES = ("data", "fsdp", "tensor")


def make(*, data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> jax.sharding.Mesh:
  """Builds a mesh over all devices of all processes.

  Its axis types are Auto, because explicit ones break logical activation constraints. One of the
  three sizes may be -1: it is computed from the others and the number of devices.

  Args:
    data: size of the axis `data`.
    fsdp: size of the axis `fsdp`.
    tensor: size of the axis `tensor`.
    devices: the devices (default: all).

  Raises:
    errors.UserError: the sizes do not fill the devices, or an axis would leave its slice or
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
  _check_axes(devices, *sizes)
  # the sort is stable, so the order inside a process stays
  ordered = sorted(devices, key=lambda device: (_slice(device), device.process_index))
  auto = (jax.sharding.AxisType.Auto,) * len(AXES)
  return jax.sharding.Mesh(np.asarray(ordered).reshape(sizes), AXES, axis_types=auto)


def _slice(device) -> int:
  """Index of a TPU device's slice; 0 for other devices.

  jax reports GPU hosts as slices, but they share one network.
  """
  return (getattr(device, "slice_index", 0) or 0) if device.platform == "tpu" else 0


def _check_axes(devices, data: int, fsdp: int, tensor: int) -> None:
  """Refuses axes that would leave their slice or process."""
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
  per_process = len(devices) // len(processes)
  if per_process % tensor:
    raise errors.UserError(
      f"config.train.mesh: tensor={tensor} does not divide the {per_process} devices of each "
      f"of the {len(processes)} processes: it stays inside a process (use fsdp across them, or "
      "start one process a host)"
    )


def batch_sharding(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Sharding of a batch: the leading axis is split over data and fsdp."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))


def put_batch(mesh: jax.sharding.Mesh, batch):
  """Builds the global arrays of a batch from this process's rows (numpy, leading axis)."""
  sharding = batch_sharding(mesh)
  processes = len({device.process_index for device in mesh.devices.flat})
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(
      sharding, x, (x.shape[0] * processes, *x.shape[1:])
    ),
    batch,
  )


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
  """Sharding of a value that is the same on every device."""
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def check_batch(mesh: jax.sharding.Mesh, batch_size: int, *, accumulate: int = 1) -> None:
  """Refuses a global batch that the mesh cannot split evenly."""
  parts = mesh.shape["data"] * mesh.shape["fsdp"] * accumulate
  if batch_size % parts:
    raise errors.UserError(
      f"config.train.batch_size={batch_size} is not divisible by data x fsdp x accumulate = {parts}"
    )


def rows_multiple(mesh: jax.sharding.Mesh, *, accumulate: int) -> int:
  """The number of which rows per device must be a multiple, so that microbatches have equal size.

  Devices of the axis "tensor" have the same rows.
  """
  return accumulate // math.gcd(accumulate, mesh.shape["tensor"])
