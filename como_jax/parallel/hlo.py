"""What a compiled program does, read from its text: collectives and their bytes, and the traffic
with memory.

The text is XLA's HLO after partitioning: the program of one device. A loop's body is in it once, so
everything is multiplied by how often it runs. XLA's own `cost_analysis` does not do that, and its
`optimal_seconds` can be negative: neither is used here. Bytes are those of the arrays, without the
padding of tiles.
"""

import collections
import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BETWEEN = " between slices"  # end of the kind of a transfer that only crosses from slice to slice
KINDS = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
  "collective-broadcast",
)
# beginning of the name of the fusion in which an all-reduce is a reduce-scatter
_SCATTER = "all-reduce-scatter"
_BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]+[a-z0-9]*)\[([\d,<=]*)\](\{[^}]*\})?")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation; `shape`, `inside` (the brackets) and `attributes` are text."""

  name: str
  opcode: str
  shape: str
  inside: str
  operands: tuple[str, ...]
  attributes: str
  root: bool

  def called(self, *keys: str) -> list[str]:
    """Names of the computations in attributes like `calls=%f`, `branch_computations={%f, %g}`."""
    found: list[str] = []
    for key in keys:
      match = re.search(rf"\b{key}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.attributes)
      if match:
        found += re.findall(r"[\w.\-]+", match[1].replace("%", ""))
    return found


Computation = dict[str, Instruction]


class Program(NamedTuple):
  """A parsed program.

  Attributes:
    computations: by name and in order of the text, callees first.
    entry: name of the one that is called.
    times: how often each runs in one call of the program.
    unknown: loops whose number of turns the text does not tell; they count as one turn.
    partitions: devices that the numbers in groups refer to: all, or those of one slice where XLA
      compiles each slice for itself.
  """

  computations: dict[str, Computation]
  entry: str
  times: dict[str, int]
  unknown: tuple[str, ...]
  partitions: int


def parse(text: str) -> Program:
  """A compiled program's `as_text()`."""
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
  """Place of the bracket that closes the one at `start`."""
  depth = 0
  for place in range(start, len(text)):
    depth += {"(": 1, ")": -1}.get(text[place], 0)
    if not depth:
      return place
  return len(text)


def size(shape: str, *, memory: bool = False) -> int:
  """Bytes of a shape or tuple of shapes; with `memory` only of arrays in main memory, not of those
  kept on the chip (space 1 and up).
  """
  total = 0.0
  for dtype, dims, layout in _ARRAY.findall(shape):
    if memory and re.search(r"S\([1-9]", layout):
      continue
    bits = re.fullmatch(r"[a-z]+(\d+)\w*", dtype)
    each = _BYTES[dtype] if dtype in _BYTES else int(bits[1]) / 8 if bits else 0
    total += each * np.prod(
      [int(dim.lstrip("<=")) for dim in dims.split(",") if dim], dtype=np.float64
    )
  return int(total)


def _times(
  computations: dict[str, Computation], entry: str
) -> tuple[dict[str, int], tuple[str, ...]]:
  times: dict[str, int] = collections.defaultdict(int)
  times[entry] = 1
  unknown = []
  for name in reversed(computations):  # callers come after what they call
    if not times[name]:
      continue
    for one in computations[name].values():
      if one.opcode == "while":
        turns = _turns(one, computations)
        if turns is None:
          unknown.append(one.name)
        for body in one.called("body", "condition"):
          times[body] += times[name] * (turns or 1)
      else:
        for callee in one.called(
          "calls",
          "to_apply",
          "called_computations",
          "branch_computations",
          "true_computation",
          "false_computation",
        ):
          times[callee] += times[name]
  return dict(times), tuple(unknown)


def _turns(loop: Instruction, computations: dict[str, Computation]) -> int | None:
  """Turns of a loop: as the compiler noted, or the bound its counter is compared with (JAX counts
  up from 0).
  """
  noted = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', loop.attributes)
  if noted:
    return int(noted[1])
  for name in loop.called("condition"):
    body = computations.get(name, {})
    # A compare may hide in a fusion; the bound is then the condition's only whole number.
    bounds = {
      int(one.inside)
      for one in body.values()
      if one.opcode == "constant" and one.shape[0] in "su" and one.inside.isdecimal()
    }
    if len(bounds) == 1 and not re.search(
      r"direction=(EQ|NE|GT|GE)", " ".join(one.attributes for one in body.values())
    ):
      return bounds.pop()
  return None


class Collective(NamedTuple):
  """One collective of the program.

  Attributes:
    kind: of KINDS, or such a name with BETWEEN.
    bytes: of the whole array that is reduced, gathered, scattered or sent, on one device.
    times: runs a call of the program.
    groups: numbers of the devices that take part together (for a permute, pairs); () = all devices
      at once.
    where: the operation it came from, as JAX names it.
  """

  kind: str
  bytes: int
  times: int
  groups: tuple[tuple[int, ...], ...]
  where: str


def collectives(program: Program) -> list[Collective]:
  """All collectives.

  An all-reduce of which each device keeps only its part (a fusion of the TPU compiler) is a
  reduce-scatter.
  """
  found: dict[object, Collective] = {}
  fused = _fused(program)
  for name, computation in program.computations.items():
    if not program.times.get(name):
      continue
    for one in computation.values():
      new = _collective(one, name, computation, program.times[name])
      if new is None:
        continue
      # One that runs beside other work is in the text several times, in fusions, with one channel.
      channel = re.search(r"channel_id=(\d+)", one.attributes)
      apart = name in fused and channel and not name.startswith(_SCATTER)
      key = (channel[1], new.kind, new.bytes) if apart else (name, one.name)
      if key not in found or found[key].times < new.times:
        found[key] = new
  return list(found.values())


def _collective(
  one: Instruction, name: str, computation: Computation, times: int
) -> Collective | None:
  kind = one.opcode.removesuffix("-start")
  kind = "all-to-all" if kind == "ragged-all-to-all" else kind
  operands = sum(
    size(computation[operand].shape) for operand in one.operands if operand in computation
  )
  where = re.search(r'op_name="([^"]*)"', one.attributes)
  if kind == "send":  # slices are compiled apart; the runtime moves data between them
    between = re.search(r'_xla_megascale_transfer_type="([A-Z_]+)"', one.attributes)
    return (
      Collective(between[1].lower().replace("_", "-") + BETWEEN, operands, times, (), "")
      if between
      else None
    )
  if kind not in KINDS:
    return None
  if kind == "all-reduce" and name.startswith(_SCATTER):
    kind = "reduce-scatter"
  # The result of a -start holds the operands too.
  results = size(one.shape) - (operands if one.opcode == "all-gather-start" else 0)
  groups = _groups(one.attributes, permute=kind == "collective-permute")
  return Collective(
    kind, results if kind == "all-gather" else operands, times, groups, where[1] if where else ""
  )


def _groups(attributes: str, *, permute: bool) -> tuple[tuple[int, ...], ...]:
  """Groups of devices in each of the notations: lists, `[2,4]<=[4,2]T(1,0)`, and axes of a mesh."""
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
    chosen = [list(axes).index(name) for name in re.findall(r"'([^']+)'", match[3]) if name in axes]
    ids = np.moveaxis(ids, chosen, range(ids.ndim - len(chosen), ids.ndim))
    return _rows(
      ids.reshape(-1, int(np.prod([list(axes.values())[axis] for axis in chosen], dtype=int)))
    )
  return ()


def _lists(text: str) -> tuple[tuple[int, ...], ...]:
  return tuple(
    tuple(int(number) for number in row.split(",")) for row in re.findall(r"\{([\d,]+)\}", text)
  )


def _iota(text: str) -> np.ndarray:
  """`[4,2]T(1,0)`: 0, 1, 2, ... in that shape, transposed."""
  shape, _, order = text.partition("T")
  ids = np.arange(np.prod(dims := [int(n) for n in re.findall(r"\d+", shape)])).reshape(dims)
  return ids.transpose([int(n) for n in re.findall(r"\d+", order)]) if order else ids


def _rows(ids: np.ndarray) -> tuple[tuple[int, ...], ...]:
  return tuple(tuple(int(number) for number in row) for row in ids)


class Sent(NamedTuple):
  """Bytes that one device sends in one run of a collective, at the least: inside its slice (ICI),
  and to other slices (DCN).
  """

  ici: float
  dcn: float


def sent(one: Collective, slices: Sequence[int], *, partitions: int = 0) -> Sent:
  """Bytes a device sends, on average, by the best known algorithms: rings inside a slice first,
  then across slices.

  Args:
    one: the collective.
    slices: slice of each device, in the order of the mesh.
    partitions: the program's, where they are fewer than the devices: then it is the program of the
      first slice.
  """
  count = len(set(slices))
  if one.kind.endswith(BETWEEN):
    rounds = {
      "all-reduce": 2 * (count - 1) / count,
      "all-gather": count - 1,
      "reduce-scatter": (count - 1) / count,
      "all-to-all": (count - 1) / count,
    }
    return Sent(0.0, one.bytes * rounds.get(one.kind.removesuffix(BETWEEN), 1))
  slices = slices[: partitions or len(slices)]
  if one.kind == "collective-permute":
    moved = [(a, b) for a, b in one.groups if a != b]
    far = sum(slices[a] != slices[b] for a, b in moved)
    return Sent(one.bytes * (len(moved) - far) / len(slices), one.bytes * far / len(slices))
  groups = one.groups or (tuple(range(len(slices))),)
  ici = dcn = 0.0
  for group in groups:
    members, spans = len(group), len({slices[i] for i in group})
    near = members / spans
    inside, across = one.bytes * (near - 1) / near, one.bytes / near * (spans - 1) / spans
    # a reduce-scatter and an all-gather, of a part of it between the slices
    if one.kind == "all-reduce":
      inside, across = 2 * inside, 2 * across
    elif one.kind == "all-to-all":
      inside, across = one.bytes * (near - 1) / members, one.bytes * (members - near) / members
    ici, dcn = ici + inside * members, dcn + across * members
  return Sent(ici / len(slices), dcn / len(slices))


_FREE = {
  "parameter",
  "constant",
  "tuple",
  "get-tuple-element",
  "bitcast",
  "while",
  "conditional",
  "call",
  "after-all",
  "partition-id",
  "replica-id",
  "opt-barrier",
  "async-start",
  "async-update",
  "async-done",
  "add-dependency",
  "get-dimension-size",
  "",
}
# inside a fusion, where nothing of it is written
_PASS = {"bitcast", "reshape", "copy", "convert", "get-tuple-element"}


def _fused(program: Program) -> set[str]:
  """Names of the computations whose operations do not stand alone."""
  return {
    name
    for computation in program.computations.values()
    for one in computation.values()
    if one.opcode != "call"
    for name in one.called("calls", "to_apply")
  }


def traffic(program: Program) -> int:
  """Bytes read from and written to memory by one device in a call of the program: an estimate.

  Every operation outside fusions reads its operands and writes its result; slices of a stack that a
  fusion reads or writes in place count as slices. What a chip keeps near its units between
  operations, where the text does not say so, is counted all the same.
  """
  total, fused = 0, _fused(program)
  for name, computation in program.computations.items():
    if name in fused or not program.times.get(name):
      continue
    total += program.times[name] * sum(
      _moved(one, computation, program) for one in computation.values()
    )
  return total


def _moved(one: Instruction, computation: Computation, program: Program) -> int:
  if one.opcode in _FREE or one.opcode.endswith("-done") or "AllocateBuffer" in one.attributes:
    return 0

  def stored(name: str) -> int:
    return size(computation[name].shape, memory=True) if name in computation else 0

  if one.opcode.endswith("-start"):  # the result holds the operands too
    return size(one.shape, memory=True)
  if one.opcode in ("dynamic-slice", "gather", "slice"):
    return 2 * size(one.shape, memory=True)
  if one.opcode == "dynamic-update-slice":
    return 2 * stored(one.operands[1])
  inner = _inner(one, program)
  if not inner:
    return size(one.shape, memory=True) + sum(map(stored, one.operands))
  read = sum(
    _read(inner, number, program) for number, name in enumerate(one.operands) if stored(name)
  )
  return read + min(_written(inner, program), size(one.shape, memory=True))


def _inner(one: Instruction, program: Program) -> Computation:
  """What a fusion computes; {} for anything else."""
  return (
    program.computations.get((one.called("calls") or [""])[0], {}) if one.opcode == "fusion" else {}
  )


def _read(inner: Computation, number: int, program: Program) -> int:
  """Bytes a fusion reads of its operand `number`: of a slice only the slice, also in fusions inside
  it.
  """
  parameter = next(
    (one for one in inner.values() if one.opcode == "parameter" and one.inside == str(number)), None
  )
  if parameter is None:
    return 0
  read, queue, whole = 0, [parameter.name], size(parameter.shape)
  while queue and read < whole:
    name = queue.pop()
    for user in inner.values():
      if name not in user.operands:
        continue
      if user.opcode in ("dynamic-slice", "gather", "slice") and user.operands[0] == name:
        read += size(user.shape)
      elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
        pass  # in place: the rest is not touched
      elif user.opcode == "fusion":
        read += sum(
          _read(_inner(user, program), place, program)
          for place, operand in enumerate(user.operands)
          if operand == name
        )
      elif user.opcode in _PASS and not user.root:
        queue.append(user.name)
      else:
        return whole
  return min(read, whole)


def _written(inner: Computation, program: Program) -> int:
  """Bytes a fusion writes: of a stack updated in place only the part that is new."""

  def one(name: str) -> int:
    instruction = inner[name]
    while (
      instruction.opcode in ("bitcast", "reshape")
      and instruction.operands
      and instruction.operands[0] in inner
    ):
      instruction = inner[instruction.operands[0]]
    if instruction.opcode == "dynamic-update-slice" and instruction.operands[1] in inner:
      return size(inner[instruction.operands[1]].shape)
    return _written(_inner(instruction, program), program) or size(instruction.shape)

  root = next((instruction for instruction in inner.values() if instruction.root), None)
  if root is None:
    return 0
  return sum(map(one, root.operands)) if root.opcode == "tuple" else one(root.name)
