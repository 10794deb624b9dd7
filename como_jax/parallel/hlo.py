"""Reads the text of a compiled program.

hlo_collectives.py and hlo_traffic.py count what the program moves.

The text is XLA's HLO after partitioning: the program of one device. It contains a loop's body once,
with the number of its executions. Bytes are those of the arrays, without the padding of tiles.
"""

import collections
import dataclasses
import re
from typing import NamedTuple

import numpy as np

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


def fused(program: Program) -> set[str]:
  """Names of the computations that are parts of other instructions, such as fusions."""
  return {
    name
    for computation in program.computations.values()
    for op in computation.values()
    if op.opcode != "call"
    for name in op.called("calls", "to_apply")
  }
