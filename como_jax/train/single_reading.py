"""Restoring with many processes: one copy of the state is read, and sent to all over the network.

Of R equal groups of whole processes that each hold the whole state (replicas), the first one reads.
All others would read the same bytes from the same storage.

Legend: R replicas.
"""

import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from como_jax import errors
from como_jax.parallel import distributed

_AXIS = "replica"
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}  # bytes of a number -> its bits


def replicas(target: Any) -> int:
  """R of a state; 1 where every process has a part of its own to read.

  Args:
    target: pytree of shapes with shardings.
  """
  leaves = jax.tree.leaves(target)
  shardings = [leaf.sharding for leaf in leaves]
  if not leaves or not all(isinstance(one, jax.sharding.NamedSharding) for one in shardings):
    return 1
  mesh = shardings[0].mesh
  split_over_data = any("data" in _axes(one.spec) for one in shardings)
  wide = any(leaf.dtype.itemsize not in _WORDS for leaf in leaves)
  if split_over_data or wide or any(one.mesh != mesh for one in shardings):
    return 1
  owners = [owner(device) for device in mesh.devices.flat]
  group = math.lcm(mesh.size // mesh.shape["data"], mesh.size // len(set(owners)))
  if mesh.size % group:
    return 1
  groups = [set(owners[i : i + group]) for i in range(0, mesh.size, group)]
  return len(groups) if sum(map(len, groups)) == len(set(owners)) else 1


def owner(device: Any) -> int:
  """Index of the process of a device."""
  return device.process_index


def restore(item: pathlib.Path, target: Any) -> Any:
  """Reads a state in the processes of the first replica, and sends it to the others.

  Not a bit changes. A leaf is sent at a time, as its bits: the sum of -0.0 and 0 would lose a sign.

  Args:
    item: folder of the state.
    target: pytree of shapes, types and shardings, of more than one replica.

  Raises:
    errors.SharedUserError: the state cannot be read.
  """
  leaves, structure = jax.tree.flatten(target)
  mesh = leaves[0].sharding.mesh
  devices = mesh.devices.reshape(replicas(target), -1, *mesh.devices.shape[1:])
  first = jax.sharding.Mesh(devices[0], mesh.axis_names)
  everywhere = jax.sharding.Mesh(devices, (_AXIS, *mesh.axis_names))
  readers = {device.process_index for device in first.devices.flat}

  def read() -> list[Any]:
    if jax.process_index() not in readers:
      return [None] * len(leaves)
    part = jax.tree.map(lambda leaf: _on(leaf, first), target)
    options = ocp.options.MultiprocessingOptions(
      primary_host=min(readers), active_processes=readers, barrier_sync_key_prefix=_AXIS
    )
    try:
      with ocp.StandardCheckpointer(multiprocessing_options=options) as reader:
        return jax.tree.leaves(reader.restore(item, part))
    except Exception as error:  # Orbax and TensorStore raise many types
      raise errors.UserError(distributed.first_line(error) or type(error).__name__) from error

  found = distributed.run_on_all_processes(read)
  sent = [_send(values, leaf, everywhere) for values, leaf in zip(found, leaves, strict=True)]
  return jax.tree.unflatten(structure, sent)


def _on(leaf: Any, mesh: jax.sharding.Mesh) -> jax.ShapeDtypeStruct:
  """The shape and type of a leaf, sharded over another mesh in the same way."""
  sharding = jax.sharding.NamedSharding(mesh, leaf.sharding.spec)
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _send(values: jax.Array | None, leaf: Any, mesh: jax.sharding.Mesh) -> jax.Array:
  """The leaf on all devices.

  Args:
    values: the leaf on the devices of the first replica; None in the other processes.
    leaf: its shape, type and sharding.
    mesh: of all devices, replicas first.
  """
  word = _WORDS[leaf.dtype.itemsize]
  shards = (
    {} if values is None else {_key(s.index, leaf.shape): s for s in values.addressable_shards}
  )

  def bits(index):
    """The bits of a shard in the first replica, zeros in the others: their sum is the leaf."""
    if index[0].indices(mesh.shape[_AXIS])[0] == 0:
      shard = np.asarray(shards[_key(index[1:], leaf.shape)].data)
      return shard.reshape(-1).view(word).reshape(1, *shard.shape).astype(np.uint32)
    sizes = [len(range(*one.indices(n))) for one, n in zip(index[1:], leaf.shape, strict=True)]
    return np.zeros((1, *sizes), np.uint32)

  spec = leaf.sharding.spec
  split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(_AXIS, *spec))
  parts = jax.make_array_from_callback((mesh.shape[_AXIS], *leaf.shape), split, bits)
  whole = _merge(str(leaf.dtype), jax.sharding.NamedSharding(mesh, spec))(parts)
  return jax.make_array_from_single_device_arrays(
    leaf.shape, leaf.sharding, [shard.data for shard in whole.addressable_shards]
  )


@functools.cache
def _merge(dtype: str, sharding: jax.sharding.NamedSharding) -> Any:
  """The program that adds the replicas' bits and reads them as numbers of a type."""
  kind = jnp.dtype(dtype)
  word = _WORDS[kind.itemsize]

  def merge(parts):
    total = parts.sum(axis=0, dtype=np.uint32).astype(word)
    return total.astype(bool) if str(kind) == "bool" else jax.lax.bitcast_convert_type(total, kind)

  return jax.jit(merge, out_shardings=sharding)


def _key(index: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
  """A shard's place, the same however its slices are written."""
  return tuple(one.indices(n) for one, n in zip(index, shape, strict=True))


def _axes(spec: jax.sharding.PartitionSpec) -> set[str]:
  """The mesh axes over which an array is split."""
  return {
    name for names in spec if names for name in (names if isinstance(names, tuple) else (names,))
  }
