"""The collectives of a compiled program, and the bytes that a device sends in them.

Bytes are those of the arrays, without the padding of tiles.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from como_jax.parallel.hlo import Computation, Instruction, Program, fused, size

BETWEEN = " between slices"  # suffix of the kind of a transfer that is only between slices
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
KINDS += ("collective-permute", "collective-broadcast")
# prefix of the name of a fusion whose all-reduce is really a reduce-scatter
_SCATTER = "all-reduce-scatter"


class Collective(NamedTuple):
  """One collective of the program.

  Attributes:
    kind: one of KINDS, or such a name with the suffix BETWEEN.
    bytes: of the whole array that is reduced, gathered, scattered or sent, on one device.
    times: executions per call of the program.
    groups: indices of the devices that communicate with each other (for a permute, pairs); () = one
      group of all devices.
    where: JAX's name of the operation that caused it.
  """

  kind: str
  bytes: int
  times: int
  groups: tuple[tuple[int, ...], ...]
  where: str


def collectives(program: Program, *, scatter: bool = False) -> list[Collective]:
  """Lists all collectives.

  An all-reduce of which each device keeps only its part (a fusion of the TPU compiler) is listed as
  a reduce-scatter.

  Args:
    program: the program.
    scatter: whether all that use an all-reduce only for a part of it do the same. The compiler of
      GPUs makes them so; in a program that it has not seen they are all-reduces still.
  """
  result: dict[object, Collective] = {}
  inner = fused(program)
  for name, computation in program.computations.items():
    if not program.times.get(name):
      continue
    for op in computation.values():
      new = _collective(op, name, computation, program.times[name])
      if new is None:
        continue
      if scatter and new.kind == "all-reduce" and _only_sliced(op, computation):
        new = new._replace(kind="reduce-scatter")
      # An asynchronous collective occurs several times, in several fusions with the same channel.
      channel = re.search(r"channel_id=(\d+)", op.attributes)
      if channel and name in inner and not name.startswith(_SCATTER):
        key = (channel[1], new.kind, new.bytes)
      else:
        key = (name, op.name)
      if key not in result or result[key].times < new.times:
        result[key] = new
  return list(result.values())


def _collective(
  op: Instruction, name: str, computation: Computation, times: int
) -> Collective | None:
  """The collective of an instruction in computation `name`; None when it is no collective."""
  kind = op.opcode.removesuffix("-start")
  kind = "all-to-all" if kind == "ragged-all-to-all" else kind
  operands = sum(
    size(computation[operand].shape) for operand in op.operands if operand in computation
  )
  where = re.search(r'op_name="([^"]*)"', op.attributes)
  if kind == "send":  # slices are compiled separately; the runtime moves data between them
    between = re.search(r'_xla_megascale_transfer_type="([A-Z_]+)"', op.attributes)
    return (
      Collective(between[1].lower().replace("_", "-") + BETWEEN, operands, times, (), "")
      if between
      else None
    )
  if kind not in KINDS:
    return None
  if kind == "all-reduce" and name.startswith(_SCATTER):
    kind = "reduce-scatter"
  # The result of a -start contains the operands too.
  results = size(op.shape) - (operands if op.opcode == "all-gather-start" else 0)
  groups = _groups(op.attributes, permute=kind == "collective-permute")
  return Collective(
    kind, results if kind == "all-gather" else operands, times, groups, where[1] if where else ""
  )


def _only_sliced(op: Instruction, computation: Computation) -> bool:
  """Whether only parts of the result are used, each device its own."""
  users = [user for user in computation.values() if op.name in user.operands]
  return bool(users) and all(user.opcode == "dynamic-slice" for user in users)


def _groups(attributes: str, *, permute: bool) -> tuple[tuple[int, ...], ...]:
  """Parses groups of devices in all notations: lists, `[2,4]<=[4,2]T(1,0)`, axes of a mesh."""
  if permute:
    match = re.search(r"source_target_pairs=\{((?:\{[\d,]*\},?\s*)*)\}", attributes)
    return _lists(match[1]) if match else ()
  match = re.search(r"replica_groups=\{((?:\{[\d,]*\},?\s*)*)\}", attributes)
  if match:
    return _lists(match[1])
  match = re.search(r"replica_groups=\[(\d+),(\d+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", attributes)
  if match:
    return _rows(_iota(match[3]).reshape(int(match[1]), int(match[2])))
  match = re.search(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^{]*)\))? ?\{([^}]*)\}", attributes
  )
  if match:
    axes = {name: int(number) for name, number in re.findall(r"'([^']+)'=(\d+)", match[1])}
    ids = _iota(match[2]) if match[2] else np.arange(int(np.prod(list(axes.values()))))
    ids = ids.reshape(list(axes.values()))
    group_axes = [
      list(axes).index(name) for name in re.findall(r"'([^']+)'", match[3]) if name in axes
    ]
    ids = np.moveaxis(ids, group_axes, range(ids.ndim - len(group_axes), ids.ndim))
    return _rows(
      ids.reshape(-1, int(np.prod([list(axes.values())[axis] for axis in group_axes], dtype=int)))
    )
  return ()


def _lists(text: str) -> tuple[tuple[int, ...], ...]:
  return tuple(
    tuple(int(number) for number in row.split(",")) for row in re.findall(r"\{([\d,]+)\}", text)
  )


def _iota(text: str) -> np.ndarray:
  """Parses `[4,2]T(1,0)`: 0, 1, 2, ... in that shape, transposed."""
  shape, _, order = text.partition("T")
  ids = np.arange(np.prod(dims := [int(n) for n in re.findall(r"\d+", shape)])).reshape(dims)
  return ids.transpose([int(n) for n in re.findall(r"\d+", order)]) if order else ids


def _rows(ids: np.ndarray) -> tuple[tuple[int, ...], ...]:
  return tuple(tuple(int(number) for number in row) for row in ids)


class Sent(NamedTuple):
  """Minimum bytes that one device sends in one execution of a collective.

  Attributes:
    ici: to devices of its slice.
    dcn: to other slices.
  """

  ici: float
  dcn: float


def sent(collective: Collective, slices: Sequence[int], *, partitions: int = 0) -> Sent:
  """Average bytes that a device sends, with the best known algorithms.

  These are rings inside a slice, then across slices.

  Args:
    collective: the collective.
    slices: slice of each device, in the order of the mesh.
    partitions: of the program. If there are fewer partitions than devices, it is the program of the
      first slice. 0 = all devices.
  """
  count = len(set(slices))
  if collective.kind.endswith(BETWEEN):
    rounds = {
      "all-reduce": 2 * (count - 1) / count,
      "all-gather": count - 1,
      "reduce-scatter": (count - 1) / count,
      "all-to-all": (count - 1) / count,
    }
    return Sent(0.0, collective.bytes * rounds.get(collective.kind.removesuffix(BETWEEN), 1))
  slices = slices[: partitions or len(slices)]
  if collective.kind == "collective-permute":
    moved = [(a, b) for a, b in collective.groups if a != b]
    crossing = sum(slices[a] != slices[b] for a, b in moved)
    return Sent(
      collective.bytes * (len(moved) - crossing) / len(slices),
      collective.bytes * crossing / len(slices),
    )
  groups = collective.groups or (tuple(range(len(slices))),)
  ici = dcn = 0.0
  for group in groups:
    members, spans = len(group), len({slices[i] for i in group})
    per_slice = members / spans
    inside = collective.bytes * (per_slice - 1) / per_slice
    across = collective.bytes / per_slice * (spans - 1) / spans
    # an all-reduce is a reduce-scatter and an all-gather; only a part is sent between slices
    if collective.kind == "all-reduce":
      inside, across = 2 * inside, 2 * across
    elif collective.kind == "all-to-all":
      inside = collective.bytes * (per_slice - 1) / members
      across = collective.bytes * (members - per_slice) / members
    ici, dcn = ici + inside * members, dcn + across * members
  return Sent(ici / len(slices), dcn / len(slices))
