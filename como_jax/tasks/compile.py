"""Plans a run without the hardware: compiles its programs for a machine that is not present.

Nothing is run. It computes whether the run fits into memory, memory by kind, operations, bytes over
each network, and from these a lower bound of the time of a step. Real times are longer: contention,
the input pipeline and the host are not included.
"""

import json
import math
import shlex
from collections.abc import Callable
from typing import Any

from como_jax import config as config_lib
from como_jax import errors
from como_jax.assembly import plan_options, programs
from como_jax.parallel import flops, topology
from como_jax.parallel import mesh as mesh_lib
from como_jax.report import plan_page
from como_jax.train import atomic, compiled, rundir


def run(command: config_lib.CommandLine) -> int:
  """Writes plan.json and plan.md into the workdir, and prints plan.md."""
  config, workdir = command.config, command.workdir
  rundir.check(workdir, config, resume=command.resume, overwrite=command.overwrite)
  options = plan_options.from_config(config)
  with compiled.compiler(effort=options.effort):
    topology.devices(options.machine)  # must run before JAX initializes its backends
    plans = plan(options)
    rundir.open_run(workdir, config, resume=command.resume, overwrite=command.overwrite)
  result = {
    "command": "python -m como_jax.main " + shlex.join(command.words),
    "topology": options.machine.name,
    "machine": options.machine.describe(),
    "of": config.of,
    "changes": config.changes,
    "effort": options.effort,
    "programs": plans,
    "versions": rundir.versions(),
  }
  text = plan_page.text(result)
  atomic.write(workdir / "plan.json", json.dumps(result, indent=2))
  atomic.write(workdir / "plan.md", text)
  print(text + f"\nwritten: {workdir / 'plan.json'}, {workdir / 'plan.md'}")
  return 0


def plan(options: plan_options.Options) -> list[dict[str, Any]]:
  """Plans each program of the planned config: its memory, operations and times.

  Raises:
    errors.UserError: the planned config has none of the programs, or one cannot be compiled.
  """
  planned, machine = options.planned, options.machine
  host = machine.host()
  per_device = options.batch_per_device
  batch = per_device * machine.count if per_device else planned.train.batch_size
  builders: dict[str, tuple[topology.Topology, int, Callable[..., compiled.Program]]] = {
    "train": (machine, batch, programs.train),
    "extract": (host, options.extract_batch * host.count, programs.extract),
    "policy": (machine.one(), options.policy_batch, programs.policy),
  }
  plans = []
  for name in programs.KINDS[planned.task]:
    if name not in options.programs:
      continue
    target, size, build = builders[name]
    print(f"compiling {name} for {target.name}, batch {size}: minutes for a large model")
    memory = options.memory or target.chip.hbm
    program = build(planned, target, batch_size=size)
    result = compiled.measure(program, target, memory=memory, name=name)
    useful = build(planned, target, batch_size=size, useful=True).trace().jaxpr
    compiled.add_roofline(result, target, model_flops=flops.count(useful), unit=result["unit"])
    if options.largest and name == "train" and math.isfinite(memory):
      result["largest"] = compiled.largest_batch(
        lambda rows: programs.train(planned, machine, batch_size=rows),
        machine,
        memory=memory,
        start=max(1, size // machine.count),
        multiple=mesh_lib.rows_multiple(program.mesh, accumulate=planned.train.accumulate),
      )
    plans.append(result)
  if not plans:
    raise errors.UserError(
      f"config.programs={options.programs}: a config of task {planned.task!r} has only "
      f"{', '.join(programs.KINDS[planned.task])}"
    )
  return plans
