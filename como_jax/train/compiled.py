"""A program that is compiled for a machine, and what is read off the compiled program.

Nothing is run. It is the memory by kind, the operations and the bytes over each network. From
these, parallel/roofline.py computes times of a step.
"""

import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from como_jax import errors
from como_jax.parallel import (
  flops,
  hlo,
  hlo_collectives,
  hlo_traffic,
  stand_ins,
  topology,
  uncached,
)

GIB = topology.GIB
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MOST = 2**16  # maximum number of rows per device in the search for the largest batch


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
  """A program for a machine.

  Attributes:
    trace: returns its `jax.stages.Traced`.
    mesh: mesh over which it is sharded.
    examples: rows of its batch over all devices.
    unit: what the rows are, for example "clips".
    trainable: number of trained parameters; 0 if nothing is trained.
    parameters: number of parameters.
  """

  trace: Callable[[], jax.stages.Traced]
  mesh: jax.sharding.Mesh
  examples: int
  unit: str
  trainable: int
  parameters: int


@contextlib.contextmanager
def compiler(*, effort: float):
  """Context manager with the compiler settings for absent machines.

  Nothing is read from the compilation cache (`uncached`).

  Args:
    effort: optimization effort of the compiler.
  """
  settings: dict[str, Any] = {}
  if hasattr(jax.config, "jax_exec_time_optimization_effort"):
    settings["jax_exec_time_optimization_effort"] = effort
  else:  # jax 0.11 and later have levels
    settings["jax_optimization_level"] = (
      "O1" if effort < 0 else "O3" if effort > 0 else "UNKNOWN"  # the compiler's default
    )
  before = {name: getattr(jax.config, name) for name in settings}
  try:
    for name, value in settings.items():
      jax.config.update(name, value)
    with uncached.compiling():
      yield
  finally:
    for name, value in before.items():
      jax.config.update(name, value)


def measure(
  program: Program, machine: topology.Topology, *, memory: float, name: str
) -> dict[str, Any]:
  """Compiles a program and computes its memory, operations, collectives and traffic.

  Args:
    program: the program.
    machine: the machine for which it is compiled.
    memory: memory that a device can use, in GiB.
    name: name of the program.

  Raises:
    errors.UserError: the program cannot be compiled, for another reason than its memory.
  """
  begin = time.monotonic()
  traced = program.trace()
  result: dict[str, Any] = {
    "program": name,
    "topology": machine.name,
    "devices": program.mesh.size,
    "mesh": dict(program.mesh.shape),
    "batch": program.examples,
    "batch_per_device": program.examples / program.mesh.size,
    "unit": program.unit,
    "parameters": program.parameters,
    "trainable": program.trainable,
    "flops": flops.count(traced.jaxpr),
  }
  gpu = machine.chip.gpu
  try:
    if gpu:
      compiled, partitioned = stand_ins.compile(traced)
    else:
      compiled = traced.lower().compile(stand_ins.QUICK if machine.kind == "cpu" else None)
      partitioned = None
  except NotImplementedError as error:
    raise errors.UserError(
      f"{name} cannot be lowered for {machine.name}: {(str(error).splitlines() or [''])[0][:300]}"
    ) from error
  except jax.errors.JaxRuntimeError as error:
    needed = out_of_memory(str(error))
    if needed is None:
      raise errors.UserError(
        f"{name} cannot be compiled for {machine.name}: "
        f"{(str(error).splitlines() or [''])[0][:300]}"
      ) from error
    return result | {
      "compile_seconds": time.monotonic() - begin,
      "fits": False,
      "memory": {"available": memory, "needed": needed / GIB, "refused": True},
    }
  text = compiled.as_text()
  if text is None:
    raise errors.UserError(f"{name}: the compiler for {machine.name} does not give its program")
  parsed = hlo.parse(text)
  program_of_one = hlo.parse(partitioned) if partitioned else parsed
  slices = tuple(topology.slice_numbers(machine, program.mesh))
  cost = compiled.cost_analysis() or {}
  sizes = memory_by_kind(compiled.memory_analysis())
  needed = sum(sizes.values()) - 2 * sizes["aliased"]  # aliased outputs are arguments
  sizes["unchanged"] = hlo_traffic.unchanged(parsed) / GIB
  available = memory if math.isfinite(memory) else None
  return result | {
    "compile_seconds": time.monotonic() - begin,
    "fits": None if available is None else needed <= available,
    "memory": {"available": available, "needed": needed, "refused": False, **sizes},
    "collectives": summary(program_of_one, slices, scatter=gpu),
    "hbm_bytes": None if gpu else hlo_traffic.traffic(parsed),
    "estimated": gpu,
    "loops_unknown": len(parsed.unknown),
    "xla_flops_loops_once": cost.get("flops"),
  }


def memory_by_kind(stats: Any) -> dict[str, float]:
  """GiB on a device of each kind, from `jax.stages.Compiled.memory_analysis`."""
  return {
    "arguments": stats.argument_size_in_bytes / GIB,
    "outputs": stats.output_size_in_bytes / GIB,
    "aliased": stats.alias_size_in_bytes / GIB,
    "temporaries": stats.temp_size_in_bytes / GIB,
    "code": stats.generated_code_size_in_bytes / GIB,
  }


def out_of_memory(message: str) -> float | None:
  """Minimum bytes that a program needs, from an error message of the TPU compiler.

  0 if the message has no number; None if the error is another one.
  """
  forms = (
    r"total memory required for [\w ]+ \(([\d.]+)([KMGT]?)\) exceeds available HBM",
    r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm",
  )
  for form in forms:
    match = re.search(form, message)
    if match:
      return float(match[1]) * _UNITS[match[2]]
  return 0.0 if "RESOURCE_EXHAUSTED" in message else None


def summary(
  program: hlo.Program, slices: Sequence[int], *, scatter: bool = False
) -> list[dict[str, Any]]:
  """Sums the collectives of a program by kind.

  Args:
    program: the compiled program.
    slices: slice number of each partition.
    scatter: as for `hlo_collectives.collectives`.

  Returns:
    For each kind, its count in a step, the bytes of its arrays on one device, and the bytes that a
    device sends over each network ("ici", "dcn").
  """
  rows: dict[str, dict[str, Any]] = {}
  for collective in hlo_collectives.collectives(program, scatter=scatter):
    row = rows.setdefault(
      collective.kind, {"kind": collective.kind, "count": 0, "bytes": 0, "ici": 0.0, "dcn": 0.0}
    )
    sent = hlo_collectives.sent(collective, slices, partitions=program.partitions)
    row["count"] += collective.times
    row["bytes"] += collective.bytes * collective.times
    row["ici"] += sent.ici * collective.times
    row["dcn"] += sent.dcn * collective.times
  return sorted(rows.values(), key=lambda row: -row["bytes"])


def largest_batch(
  build: Callable[[int], Program],
  machine: topology.Topology,
  *,
  memory: float,
  start: int,
  multiple: int,
) -> dict[str, int]:
  """Finds the largest batch per device that fits, to within 1/8, by doubling and bisection.

  Each attempt compiles the train step.

  Args:
    build: makes the train step for a number of rows over all devices.
    machine: the machine.
    memory: memory that a device can use, in GiB.
    start: batch per device of the first attempt.
    multiple: only its multiples are tried.

  Returns:
    {"per_device": the batch, "compiles": number of attempts}.
  """
  tried: dict[int, bool] = {}

  def fits(count: int) -> bool:
    program = build(count * multiple * machine.count)
    tried[count] = bool(measure(program, machine, memory=memory, name="train")["fits"])
    print(f"  {count * multiple} a device: {'fits' if tried[count] else 'does not fit'}")
    return tried[count]

  found = largest(fits, start=max(1, start // multiple), limit=_MOST // multiple)
  return {"per_device": found * multiple, "compiles": len(tried)}


def largest(fits: Callable[[int], bool], *, start: int, limit: int) -> int:
  """The largest integer that fits, or up to 1/8 less; 0 if 1 does not fit.

  Args:
    fits: whether a number fits.
    start: the first number to try.
    limit: numbers above are not tried.
  """
  low, high = 0, start
  while high <= limit and fits(high):
    low, high = high, 2 * high
  while high - low > max(1, low // 8):
    middle = (low + high) // 2
    if fits(middle):
      low = middle
    else:
      high = middle
  return low
