"""Plans a run without the hardware: compiles its programs for a machine that is not present.

Nothing is run. It computes whether the run fits into memory, memory by kind, operations, bytes over
each network, and from these a lower bound of the time of a step. Real times are longer: contention,
the input pipeline and the host are not included.
"""

import contextlib
import json
import math
import re
import shlex
import time
from collections.abc import Callable
from typing import Any

import jax

from como_jax import config as config_lib
from como_jax import errors
from como_jax.parallel import flops, hlo, topology
from como_jax.report import plan_page
from como_jax.tasks import programs
from como_jax.train import atomic, rundir

GIB = topology.GIB
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# Compiler options for CPUs: the machine code is never run, so it is not optimized.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
_MOST = 2**16  # maximum number of rows per device in the search for the largest batch


def run(command: config_lib.CommandLine) -> int:
  """Writes plan.json and plan.md into the workdir, and prints plan.md."""
  config, workdir = command.config, command.workdir
  rundir.check(workdir, config, resume=command.resume, overwrite=command.overwrite)
  machine = topology.parse(config.topology)
  planned = config_lib.parse(
    ["main", f"--config={config.of}", *(f"--config.{word}" for word in shlex.split(config.changes))]
  ).config
  check(config, planned)
  with compiler(effort=config.effort):
    topology.devices(machine)  # must run before JAX initializes its backends
    plans = plan(config, planned, machine)
    rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)
  line = "python -m como_jax.main " + shlex.join(command.words)
  result = {
    "command": line,
    "topology": machine.name,
    "machine": machine.describe(),
    "of": config.of,
    "changes": config.changes,
    "effort": config.effort,
    "programs": plans,
    "versions": rundir.versions(),
  }
  text = plan_page.text(result)
  atomic.write(workdir / "plan.json", json.dumps(result, indent=2))
  atomic.write(workdir / "plan.md", text)
  print(text + f"\nwritten: {workdir / 'plan.json'}, {workdir / 'plan.md'}")
  return 0


def check(config, planned) -> None:
  """Checks the config of the plan and the planned config.

  Raises:
    errors.UserError: the planned config trains nothing, or the name of a program is not known.
  """
  programs.check(planned)
  program_names = sorted({name for names in programs.KINDS.values() for name in names})
  for name in config.programs:
    if name not in program_names:
      raise errors.UserError(
        f"config.programs: {name!r} is unknown: {errors.nearest(name, program_names)}"
      )


@contextlib.contextmanager
def compiler(*, effort: float):
  """Context manager with the compiler settings of a plan.

  The compilation cache is off, because programs for absent machines can be written to it but not
  read from it.

  Args:
    effort: optimization effort of the compiler.
  """
  settings = {"jax_exec_time_optimization_effort": effort, "jax_enable_compilation_cache": False}
  before = {name: getattr(jax.config, name) for name in settings}
  try:
    for name, value in settings.items():
      jax.config.update(name, value)
    yield
  finally:
    for name, value in before.items():
      jax.config.update(name, value)


def plan(config, planned, machine: topology.Topology) -> list[dict[str, Any]]:
  """Plans each program of the planned config: its memory, operations and times."""
  per_device = config.batch_per_device
  batch = per_device * machine.count if per_device else planned.train.batch_size
  builders: dict[str, tuple[topology.Topology, int, Callable]] = {
    "train": (machine, batch, programs.train),
    "extract": (machine.host(), config.extract_batch * machine.host().count, programs.extract),
    "policy": (machine.one(), config.policy_batch, programs.policy),
  }
  plans = []
  for name in programs.KINDS[planned.task]:
    if name not in config.programs:
      continue
    target, size, build = builders[name]
    print(f"compiling {name} for {target.name}, batch {size}: minutes for a large model")
    memory = config.memory or target.chip.hbm
    program = measure(build(planned, target, batch_size=size), target, memory=memory, name=name)
    model = build(planned, target, batch_size=size, useful=True).trace().jaxpr
    finish(program, target, model_flops=flops.count(model), unit=program["unit"])
    if config.largest and name == "train" and math.isfinite(memory):
      program["largest"] = search(
        planned, target, memory=memory, start=max(1, size // target.count)
      )
    plans.append(program)
  if not plans:
    raise errors.UserError(
      f"config.programs={tuple(config.programs)}: a config of task {planned.task!r} has only "
      f"{', '.join(programs.KINDS[planned.task])}"
    )
  return plans


def measure(
  program: programs.Program, machine: topology.Topology, *, memory: float, name: str
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
  try:
    compiled = traced.lower().compile(_QUICK if machine.kind == "cpu" else None)
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
  stats = compiled.memory_analysis()
  kinds = {
    "arguments": stats.argument_size_in_bytes,
    "outputs": stats.output_size_in_bytes,
    "aliased": stats.alias_size_in_bytes,
    "temporaries": stats.temp_size_in_bytes,
    "code": stats.generated_code_size_in_bytes,
  }
  needed = sum(kinds.values()) - 2 * kinds["aliased"]  # aliased outputs are arguments
  parsed = hlo.parse(compiled.as_text())
  slices = topology.slice_numbers(machine, program.mesh)
  cost = compiled.cost_analysis() or {}
  available = memory if math.isfinite(memory) else None
  return result | {
    "compile_seconds": time.monotonic() - begin,
    "fits": None if available is None else needed / GIB <= available,
    "memory": {
      "available": available,
      "needed": needed / GIB,
      "refused": False,
      **{key: value / GIB for key, value in kinds.items()},
    },
    "collectives": summary(parsed, slices),
    "hbm_bytes": hlo.traffic(parsed),
    "loops_unknown": len(parsed.unknown),
    "xla_flops_loops_once": cost.get("flops"),
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


def summary(program: hlo.Program, slices) -> list[dict[str, Any]]:
  """Sums the collectives of a program by kind.

  Args:
    program: the compiled program.
    slices: slice number of each partition.

  Returns:
    For each kind, its count in a step, the bytes of its arrays on one device, and the bytes that a
    device sends over each network ("ici", "dcn").
  """
  rows: dict[str, dict[str, Any]] = {}
  for collective in hlo.collectives(program):
    row = rows.setdefault(
      collective.kind, {"kind": collective.kind, "count": 0, "bytes": 0, "ici": 0.0, "dcn": 0.0}
    )
    sent = hlo.sent(collective, slices, partitions=program.partitions)
    row["count"] += collective.times
    row["bytes"] += collective.bytes * collective.times
    row["ici"] += sent.ici * collective.times
    row["dcn"] += sent.dcn * collective.times
  return sorted(rows.values(), key=lambda row: -row["bytes"])


def finish(
  result: dict[str, Any], machine: topology.Topology, *, model_flops: float, unit: str
) -> None:
  """Adds the operations without recomputation, and the minimum time of a step.

  The time is added only if the rates of the machine are known. It assumes that arguments and
  results pass through memory once. The real traffic is larger, depending on what the compiler keeps
  on the chip. With low effort (-1), it keeps nothing on the chip, so "traffic_seconds" is an upper
  estimate.

  Args:
    result: result of `measure`, which is changed.
    machine: the machine.
    model_flops: operations without recomputation.
    unit: unit of the examples.
  """
  result["model_flops"] = model_flops
  chip, devices = machine.chip, result["devices"]
  if not chip.tflops or "collectives" not in result:
    return
  peak, memory = chip.tflops * 1e12, chip.hbm_rate * 1e9
  touched = (result["memory"]["arguments"] + result["memory"]["outputs"]) * GIB
  parts = {"compute": result["flops"] / devices / peak, "memory": touched / memory}
  for wire, rate in (("ici", chip.ici_rate), ("dcn", chip.dcn_rate)):
    parts[wire] = sum(row[wire] for row in result["collectives"]) / (rate * 1e9)
  seconds = max(parts.values())
  traffic = max(seconds, result["hbm_bytes"] / memory)
  result["roofline"] = {
    "seconds": seconds,
    "parts": parts,
    "bound": max(parts, key=lambda name: parts[name]),
    "mfu": model_flops / devices / peak / seconds,
    f"{unit}_per_s": result["batch"] / seconds,
    "traffic_seconds": traffic,
    "traffic_mfu": model_flops / devices / peak / traffic,
  }


def search(planned, machine: topology.Topology, *, memory: float, start: int) -> dict[str, int]:
  """Finds the largest batch per device that fits, to within 1/8, by doubling and bisection.

  Each attempt compiles the train step.

  Args:
    planned: the planned config.
    machine: the machine.
    memory: memory that a device can use, in GiB.
    start: batch per device of the first attempt.

  Returns:
    {"per_device": the batch, "compiles": number of attempts}.
  """
  mesh = programs.train(planned, machine, batch_size=unit_of(planned, 1) * machine.count).mesh
  unit = unit_of(planned, mesh.shape["tensor"])
  tried: dict[int, bool] = {}

  def fits(rows: int) -> bool:
    program = programs.train(planned, machine, batch_size=rows * unit * machine.count)
    tried[rows] = bool(measure(program, machine, memory=memory, name="train")["fits"])
    print(f"  {rows * unit} a device: {'fits' if tried[rows] else 'does not fit'}")
    return tried[rows]

  return {
    "per_device": largest(fits, start=max(1, start // unit), limit=_MOST // unit) * unit,
    "compiles": len(tried),
  }


def unit_of(planned, tensor: int) -> int:
  """The number of which rows per device must be a multiple, so that microbatches have equal size.

  Args:
    planned: the planned config.
    tensor: size of the mesh axis "tensor".
  """
  return planned.train.accumulate // math.gcd(planned.train.accumulate, tensor)


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
