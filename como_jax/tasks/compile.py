"""Plans a run without the hardware: compiles its programs for a machine that is not present.

Nothing is run. It computes whether the run fits into memory, memory by kind, operations, bytes over
each network, and from these a lower bound of the time of a step. Real times are longer: contention,
the input pipeline and the host are not included.
"""

import contextlib
import json
import math
import shlex
from collections.abc import Callable
from typing import Any

import jax

from como_jax import config as config_lib
from como_jax import errors
from como_jax.parallel import flops, topology
from como_jax.report import plan_page
from como_jax.tasks import programs
from como_jax.train import atomic, compiled, rundir

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
    program = compiled.measure(
      build(planned, target, batch_size=size), target, memory=memory, name=name
    )
    model = build(planned, target, batch_size=size, useful=True).trace().jaxpr
    compiled.add_roofline(program, target, model_flops=flops.count(model), unit=program["unit"])
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
    tried[rows] = bool(compiled.measure(program, machine, memory=memory, name="train")["fits"])
    print(f"  {rows * unit} a device: {'fits' if tried[rows] else 'does not fit'}")
    return tried[rows]

  return {
    "per_device": compiled.largest(fits, start=max(1, start // unit), limit=_MOST // unit) * unit,
    "compiles": len(tried),
  }


def unit_of(planned, tensor: int) -> int:
  """The number of which rows per device must be a multiple, so that microbatches have equal size.

  Args:
    planned: the planned config.
    tensor: size of the mesh axis "tensor".
  """
  return planned.train.accumulate // math.gcd(planned.train.accumulate, tensor)
