"""The bytes that a compiled program reads from and writes to memory.

XLA's own `cost_analysis` counts the body of a loop once, and its `optimal_seconds` can be negative,
so neither is used here. Bytes are those of the arrays, without the padding of tiles.
"""

import re

from como_jax.parallel.hlo import Computation, Instruction, Program, fused, size

# opcodes that move no bytes; "" = a line without one
_FREE = {"", "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while"}
_FREE |= {"conditional", "call", "after-all", "partition-id", "replica-id", "opt-barrier"}
_FREE |= {"async-start", "async-update", "async-done", "add-dependency", "get-dimension-size"}
# opcodes that write nothing to memory inside a fusion
_PASS = {"bitcast", "reshape", "copy", "convert", "get-tuple-element"}


def traffic(program: Program) -> int:
  """Estimates the bytes that one device reads from and writes to memory in one call.

  Every operation outside fusions reads its operands and writes its result. Where a fusion reads or
  writes slices of a stack in place, only the slices count. Arrays that stay on the chip between
  operations count too, unless the text marks them.
  """
  total, inner = 0, fused(program)
  for name, computation in program.computations.items():
    if name in inner or not program.times.get(name):
      continue
    total += program.times[name] * sum(
      _moved_bytes(op, computation, program) for op in computation.values()
    )
  return total


def unchanged(program: Program) -> int:
  """Bytes of the results of a program that are its arguments, as they were.

  Such results of donated arguments, for example frozen weights, are not written.
  """
  computation = program.computations.get(program.entry, {})
  root = next((op for op in computation.values() if op.root), None)
  if root is None:
    return 0
  names = root.operands if root.opcode == "tuple" else (root.name,)
  sources = [_source(name, computation) for name in names if name in computation]
  return sum(size(op.shape) for op in sources if op.opcode == "parameter")


def _source(name: str, computation: Computation) -> Instruction:
  """The instruction that made a value, through the tuples that the compiler of TPUs puts it in."""
  op = computation[name]
  while op.opcode == "get-tuple-element" and op.operands[0] in computation:
    outer, index = computation[op.operands[0]], re.search(r"index=(\d+)", op.attributes)
    if outer.opcode == "get-tuple-element":
      outer = _source(outer.name, computation)
    if outer.opcode != "tuple" or not index or outer.operands[int(index[1])] not in computation:
      break
    op = computation[outer.operands[int(index[1])]]
  return op


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
