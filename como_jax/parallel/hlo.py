"""Analysis of a compiled program's text: collectives, their bytes, and memory traffic.

The text is XLA's HLO after partitioning: the program of one device. It contains a loop's body once,
so all counts are multiplied by the number of executions. XLA's own `cost_analysis` does not do
that, and its `optimal_seconds` can be negative, so neither is used here. Bytes are those of the
arrays, without the padding of tiles.
"""

import collections
import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BETWEEN = " between slices"  # suffix of the kind of a transfer that is only between slices
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
KINDS += ("collective-permute", "collective-broadcast")
# prefix of the name of a fusion whose all-reduce is really a reduce-scatter
_SCATTER = "all-reduce-scatter"
# attributes that name the computations of an operation
_CALLS = ("calls", "to_apply", "called_computations", "branch_computations", "true_computation")
_CALLS += ("false_computation",)
_BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]+[a-z0-9]*)\[([\d,<=]*)\](\{[^}]*\})?")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name: of the result.
    opcode: of the operation; "" when the line has none.
    shape: text of the result's shape.
    inside: text inside the brackets.
    operands: names in the brackets.
    attributes: text after the brackets.
    root: whether it is the result of the computation.
  """

  name: str
  opcode: str
  shape: str
  inside: str
  operands: tuple[str, ...]
  attributes: str
  root: bool

  def called(self, *keys: str) -> list[str]:
    """Names of the computations in attributes like `calls=%f`, `branch_computations={%f, %g}`."""
    names: list[str] = []
    for key in keys:
      match = re.search(rf"\b{key}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.attributes)
      if match:
        names += re.findall(r"[\w.\-]+", match[1].replace("%", ""))
    return names


Computation = dict[str, Instruction]


class Program(NamedTuple):
  """A parsed program.

  Attributes:
    computations: by name, in the order of the text (callees first).
    entry: name of the main computation.
    times: number of executions of each computation in one call of the program.
    unknown: loops whose number of iterations is not in the text; they count as one iteration.
    partitions: number of devices that the indices in groups refer to: all devices, or those of one
      slice where XLA compiles each slice separately.
  """

  computations: dict[str, Computation]
  entry: str
  times: dict[str, int]
  unknown: tuple[str, ...]
  partitions: int


def parse(text: str) -> Program:
  """Parses the `as_text()` of a compiled program."""
  computations: dict[str, Computation] = {}
  current: Computation = {}
  entry = ""
  for line in text.splitlines():
    if line and not line[0].isspace():
      head = _HEAD.match(line)
      if head:
        current = computations.setdefault(head[2], {})
        entry = head[2] if head[1] else entry
      continue
    match = _LINE.match(line)
    if match:
      instruction = _instruction(match[2], line[match.end() :], bool(match[1]))
      current[instruction.name] = instruction
  times, unknown = _times(computations, entry)
  partitions = re.search(r"\bnum_partitions=(\d+)", text.partition("\n")[0])
  return Program(computations, entry, times, unknown, int(partitions[1]) if partitions else 1)


def _instruction(name: str, rest: str, root: bool) -> Instruction:
  """Parses the text after `name = `."""
  end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
  shape, rest = rest[:end], rest[end:]
  match = _OPCODE.match(rest)
  if not match:
    return Instruction(name, "", shape, "", (), rest, root)
  stop = _closing(rest, match.end() - 1)
  inside = rest[match.end() : stop]
  return Instruction(
    name, match[1], shape, inside, tuple(_NAME.findall(inside)), rest[stop + 1 :], root
  )


def _closing(text: str, start: int) -> int:
  """Index of the bracket that closes the one at `start`."""
  depth = 0
  for index in range(start, len(text)):
    depth += {"(": 1, ")": -1}.get(text[index], 0)
    if not depth:
      return index
  return len(text)


def size(shape: str, *, memory: bool = False) -> int:
  """Bytes of a shape or a tuple of shapes.

  Args:
    shape: text of the shape.
    memory: whether to count only arrays in main memory (space 0), not those in on-chip memory.
  """
  total = 0.0
  for dtype, dims, layout in _ARRAY.findall(shape):
    if memory and re.search(r"S\([1-9]", layout):
      continue
    bits = re.fullmatch(r"[a-z]+(\d+)\w*", dtype)
    item_bytes = _BYTES[dtype] if dtype in _BYTES else int(bits[1]) / 8 if bits else 0
    sizes = [int(dim.lstrip("<=")) for dim in dims.split(",") if dim]
    total += item_bytes * np.prod(sizes, dtype=np.float64)
  return int(total)


def _times(
  computations: dict[str, Computation], entry: str
) -> tuple[dict[str, int], tuple[str, ...]]:
  """Returns the fields `times` and `unknown` of a Program."""
  times: dict[str, int] = collections.defaultdict(int)
  times[entry] = 1
  unknown = []
  for name in reversed(computations):  # in the text, callers come after their callees
    if not times[name]:
      continue
    for op in computations[name].values():
      if op.opcode == "while":
        iterations = _iterations(op, computations)
        if iterations is None:
          unknown.append(op.name)
        for body in op.called("body", "condition"):
          times[body] += times[name] * (iterations or 1)
      else:
        for callee in op.called(*_CALLS):
          times[callee] += times[name]
  return dict(times), tuple(unknown)


def _iterations(loop: Instruction, computations: dict[str, Computation]) -> int | None:
  """Number of iterations of a loop; None when the text does not contain it.

  It is the compiler's note, or the bound of the loop's counter (JAX counts up from 0).
  """
  match = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', loop.attributes)
  if match:
    return int(match[1])
  for name in loop.called("condition"):
    body = computations.get(name, {})
    # The comparison may be inside a fusion; the bound is then the condition's only integer.
    bounds = {
      int(op.inside)
      for op in body.values()
      if op.opcode == "constant" and op.shape[0] in "su" and op.inside.isdecimal()
    }
    attributes = " ".join(op.attributes for op in body.values())
    if len(bounds) == 1 and not re.search(r"direction=(EQ|NE|GT|GE)", attributes):
      return bounds.pop()
  return None


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


def collectives(program: Program) -> list[Collective]:
  """Lists all collectives.

  An all-reduce of which each device keeps only its part (a fusion of the TPU compiler) is listed as
  a reduce-scatter.
  """
  result: dict[object, Collective] = {}
  fused = _fused(program)
  for name, computation in program.computations.items():
    if not program.times.get(name):
      continue
    for op in computation.values():
      new = _collective(op, name, computation, program.times[name])
      if new is None:
        continue
      # An asynchronous collective occurs several times, in several fusions with the same channel.
      channel = re.search(r"channel_id=(\d+)", op.attributes)
      asynchronous = name in fused and channel and not name.startswith(_SCATTER)
      key = (channel[1], new.kind, new.bytes) if asynchronous else (name, op.name)
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


# opcodes that move no bytes; "" = a line without one
_FREE = {"", "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while"}
_FREE |= {"conditional", "call", "after-all", "partition-id", "replica-id", "opt-barrier"}
_FREE |= {"async-start", "async-update", "async-done", "add-dependency", "get-dimension-size"}
# opcodes that write nothing to memory inside a fusion
_PASS = {"bitcast", "reshape", "copy", "convert", "get-tuple-element"}


def _fused(program: Program) -> set[str]:
  """Names of the computations that are parts of other instructions, such as fusions."""
  return {
    name
    for computation in program.computations.values()
    for op in computation.values()
    if op.opcode != "call"
    for name in op.called("calls", "to_apply")
  }


def traffic(program: Program) -> int:
  """Estimates the bytes that one device reads from and writes to memory in one call.

  Every operation outside fusions reads its operands and writes its result. Where a fusion reads or
  writes slices of a stack in place, only the slices count. Arrays that stay on the chip between
  operations count too, unless the text marks them.
  """
  total, fused = 0, _fused(program)
  for name, computation in program.computations.items():
    if name in fused or not program.times.get(name):
      continue
    total += program.times[name] * sum(
      _moved_bytes(op, computation, program) for op in computation.values()
    )
  return total


def _moved_bytes(op: Instruction, computation: Computation, program: Program) -> int:
  """Bytes that one instruction reads and writes."""
  if op.opcode in _FREE or op.opcode.endswith("-done") or "AllocateBuffer" in op.attributes:
    return 0

  def stored(name: str) -> int:
    return size(computation[name].shape, memory=True) if name in computation else 0

  if op.opcode.endswith("-start"):  # the result contains the operands too
    return size(op.shape, memory=True)
  if op.opcode in ("dynamic-slice", "gather", "slice"):
    return 2 * size(op.shape, memory=True)
  if op.opcode == "dynamic-update-slice":
    return 2 * stored(op.operands[1])
  inner = _inner(op, program)
  if not inner:
    return size(op.shape, memory=True) + sum(map(stored, op.operands))
  read = sum(
    _read_bytes(inner, index, program) for index, name in enumerate(op.operands) if stored(name)
  )
  return read + min(_written_bytes(inner, program), size(op.shape, memory=True))


def _inner(op: Instruction, program: Program) -> Computation:
  """The computation of a fusion; {} for other instructions."""
  return (
    program.computations.get((op.called("calls") or [""])[0], {}) if op.opcode == "fusion" else {}
  )


def _read_bytes(inner: Computation, index: int, program: Program) -> int:
  """Bytes that a fusion reads of its operand `index`.

  Where it uses only slices of the operand, only the slices count, also in nested fusions.
  """
  parameters = [op for op in inner.values() if (op.opcode, op.inside) == ("parameter", str(index))]
  if not parameters:
    return 0
  read, queue, whole = 0, [parameters[0].name], size(parameters[0].shape)
  while queue and read < whole:
    name = queue.pop()
    for user in inner.values():
      if name not in user.operands:
        continue
      if user.opcode in ("dynamic-slice", "gather", "slice") and user.operands[0] == name:
        read += size(user.shape)
      elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
        pass  # updated in place: the other elements are not read
      elif user.opcode == "fusion":
        read += sum(
          _read_bytes(_inner(user, program), position, program)
          for position, operand in enumerate(user.operands)
          if operand == name
        )
      elif user.opcode in _PASS and not user.root:
        queue.append(user.name)
      else:
        return whole
  return min(read, whole)


def _written_bytes(inner: Computation, program: Program) -> int:
  """Bytes that a fusion writes; of a stack updated in place, only the new part counts."""

  def written(name: str) -> int:
    instruction = inner[name]
    while (
      instruction.opcode in ("bitcast", "reshape")
      and instruction.operands
      and instruction.operands[0] in inner
    ):
      instruction = inner[instruction.operands[0]]
    if instruction.opcode == "dynamic-update-slice" and instruction.operands[1] in inner:
      return size(inner[instruction.operands[1]].shape)
    return _written_bytes(_inner(instruction, program), program) or size(instruction.shape)

  root = next((instruction for instruction in inner.values() if instruction.root), None)
  if root is None:
    return 0
  return sum(map(written, root.operands)) if root.opcode == "tuple" else written(root.name)
