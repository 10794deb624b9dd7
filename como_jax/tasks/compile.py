"""Plans a run without the hardware: compiles its real programs for a machine that is not there and
says what they would need.

What it says is computed, nothing runs: whether it fits, memory by kind, operations, bytes over each
wire, and from those the time that a step takes at the least. Real times are longer; contention, the
input pipeline and the host are not part of it.
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
from como_jax.tasks import plan_page, programs
from como_jax.train import atomic, rundir

GIB = topology.GIB
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# of a CPU: machine code that will not run
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
_MOST = 2**16  # rows of a device the search for the largest batch goes up to


def run(command: config_lib.CommandLine) -> int:
  """Writes plan.json and plan.md into the workdir and prints the latter."""
  config, workdir = command.config, command.workdir
  rundir.check(workdir, config, resume=command.resume, overwrite=command.overwrite)
  machine = topology.parse(config.topology)
  planned = config_lib.parse(
    ["main", f"--config={config.of}", *(f"--config.{word}" for word in shlex.split(config.changes))]
  ).config
  check(config, planned)
  with compiler(effort=config.effort):
    topology.devices(machine)  # before jax starts on its own
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
  """Refuses numbers and names that no plan can have. Raises `errors.UserError`."""
  programs.check(planned)
  known = sorted({name for names in programs.KINDS.values() for name in names})
  for name in config.programs:
    if name not in known:
      raise errors.UserError(f"config.programs: {name!r} is unknown: {errors.nearest(name, known)}")


@contextlib.contextmanager
def compiler(*, effort: float):
  """The compiler's settings while planning: how hard it tries, and no cache (programs for absent
  machines can be written to it, not read).
  """
  wanted = {"jax_exec_time_optimization_effort": effort, "jax_enable_compilation_cache": False}
  before = {name: getattr(jax.config, name) for name in wanted}
  try:
    for name, value in wanted.items():
      jax.config.update(name, value)
    yield
  finally:
    for name, value in before.items():
      jax.config.update(name, value)


def plan(config, planned, machine: topology.Topology) -> list[dict[str, Any]]:
  """What each program of the planned config needs."""
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
    where, size, build = builders[name]
    print(f"compiling {name} for {where.name}, batch {size}: minutes for a large model")
    memory = config.memory or where.chip.hbm
    one = measure(build(planned, where, batch_size=size), where, memory=memory, name=name)
    model = build(planned, where, batch_size=size, useful=True).trace().jaxpr
    finish(one, where, model_flops=flops.count(model), unit=one["unit"])
    if config.largest and name == "train" and math.isfinite(memory):
      one["largest"] = search(planned, where, memory=memory, start=max(1, size // where.count))
    plans.append(one)
  if not plans:
    raise errors.UserError(
      f"config.programs={tuple(config.programs)}: a config of task {planned.task!r} has only "
      f"{', '.join(programs.KINDS[planned.task])}"
    )
  return plans


def measure(
  program: programs.Program, machine: topology.Topology, *, memory: float, name: str
) -> dict[str, Any]:
  """Compiles one program: its memory, operations, collectives and traffic.

  Args:
    program: what to compile.
    machine: what for.
    memory: GiB a device can use.
    name: of the program, for messages.
  """
  begin = time.monotonic()
  traced = program.trace()
  one: dict[str, Any] = {
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
    return one | {
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
  return one | {
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
  """Bytes that a program needs at the least, from the TPU compiler's refusal; None for another
  error.
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
  """Collectives by kind: how often in a step, bytes of their arrays on one device, and what it
  sends on each network.
  """
  rows: dict[str, dict[str, Any]] = {}
  for one in hlo.collectives(program):
    row = rows.setdefault(
      one.kind, {"kind": one.kind, "count": 0, "bytes": 0, "ici": 0.0, "dcn": 0.0}
    )
    sent = hlo.sent(one, slices, partitions=program.partitions)
    row["count"] += one.times
    row["bytes"] += one.bytes * one.times
    row["ici"] += sent.ici * one.times
    row["dcn"] += sent.dcn * one.times
  return sorted(rows.values(), key=lambda row: -row["bytes"])


def finish(
  one: dict[str, Any], machine: topology.Topology, *, model_flops: float, unit: str
) -> None:
  """Adds the operations without recomputation and, where the machine's rates are known, the least
  time of a step.

  What must pass through memory is the arguments and results, once; what this program passes is
  more, by how much depends on what the compiler keeps on the chip. With little effort (-1) it keeps
  nothing there, so that time is an upper estimate.
  """
  one["model_flops"] = model_flops
  chip, devices = machine.chip, one["devices"]
  if not chip.tflops or "collectives" not in one:
    return
  peak, memory = chip.tflops * 1e12, chip.hbm_rate * 1e9
  touched = (one["memory"]["arguments"] + one["memory"]["outputs"]) * GIB
  parts = {"compute": one["flops"] / devices / peak, "memory": touched / memory}
  for wire, rate in (("ici", chip.ici_rate), ("dcn", chip.dcn_rate)):
    parts[wire] = sum(row[wire] for row in one["collectives"]) / (rate * 1e9)
  seconds = max(parts.values())
  traffic = max(seconds, one["hbm_bytes"] / memory)
  one["roofline"] = {
    "seconds": seconds,
    "parts": parts,
    "bound": max(parts, key=lambda name: parts[name]),
    "mfu": model_flops / devices / peak / seconds,
    f"{unit}_per_s": one["batch"] / seconds,
    "traffic_seconds": traffic,
    "traffic_mfu": model_flops / devices / peak / traffic,
  }


def search(planned, machine: topology.Topology, *, memory: float, start: int) -> dict[str, int]:
  """The largest batch of a device that fits, to an eighth: doubling, then bisection; each try
  compiles the step.
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
    "per_device": largest(fits, start=max(1, start // unit), most=_MOST // unit) * unit,
    "compiles": len(tried),
  }


def unit_of(planned, tensor: int) -> int:
  """Rows of a device come in multiples of this, so that the batch divides into its accumulated
  parts.
  """
  return planned.train.accumulate // math.gcd(planned.train.accumulate, tensor)


def largest(fits: Callable[[int], bool], *, start: int, most: int) -> int:
  """The largest whole number that fits, to an eighth below; 0 when 1 does not."""
  low, high = 0, start
  while high <= most and fits(high):
    low, high = high, 2 * high
  while high - low > max(1, low // 8):
    middle = (low + high) // 2
    if fits(middle):
      low = middle
    else:
      high = middle
  return low
