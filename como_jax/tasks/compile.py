"""Plans a run without the hardware: compiles its programs for a machine that is not present.

Nothing is run. It computes whether the run fits into memory, memory by kind, operations, bytes over
each network, and from these the best time of a step, and the likely one where a measured run says
what share of the best is reached. Contention, the input pipeline and the host are not included.
"""

import json
import math
import shlex
from collections.abc import Callable
from typing import Any

from como_jax import config as config_lib
from como_jax import errors
from como_jax.assembly import plan_calibration, plan_options, plan_proposals, programs
from como_jax.parallel import flops, roofline, topology
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
    "calibration": options.calibration,
    "programs": plans,
    "versions": rundir.versions() | topology.compiler_versions(options.machine),
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
  calibration = plan_calibration.read(options.calibration, machine) if options.calibration else None
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
    roofline.add(
      result,
      target,
      model_flops=flops.count(useful),
      unit=result["unit"],
      # of a train step: other programs have another efficiency
      calibration=calibration if name == "train" else None,
    )
    result["warnings"] = roofline.warnings(result)
    if options.proposals and name == "train" and result["warnings"]:
      result["proposals"] = proposals(options, result, calibration)
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


def proposals(
  options: plan_options.Options, result: dict[str, Any], calibration: roofline.Calibration | None
) -> list[dict[str, Any]]:
  """Plans the train step with other batches, machines, meshes and clips.

  A proposal that cannot be compiled is left out.

  Args:
    options: of the plan.
    result: the plan of the train step.
    calibration: of the machine, if there is one.

  Returns:
    The plan as it is, then each proposal; "examples_per_s" counts pairs of frames, or examples.
  """
  rows = [_proposal("as planned", result, plan_proposals.pairs(options.planned))]
  for one in plan_proposals.of(options.planned, options.machine, result):
    print(f"compiling the proposal: {one.change}, batch {one.batch}")
    memory = options.memory or one.machine.chip.hbm
    try:
      program = programs.train(one.config, one.machine, batch_size=one.batch)
      found = compiled.measure(program, one.machine, memory=memory, name="train")
      useful = programs.train(one.config, one.machine, batch_size=one.batch, useful=True)
    except errors.UserError as error:
      print(f"  left out: {error}")
      continue
    roofline.add(
      found,
      one.machine,
      model_flops=flops.count(useful.trace().jaxpr),
      unit=found["unit"],
      calibration=calibration,
    )
    rows.append(_proposal(one.change, found, one.pairs))
  return rows


def _proposal(change: str, found: dict[str, Any], pairs: int) -> dict[str, Any]:
  """What a plan with proposals says of one."""
  keys = ("topology", "devices", "mesh", "batch", "batch_per_device", "unit", "fits", "memory")
  row = {"change": change, **{key: found[key] for key in keys}}
  if "roofline" in found:
    times = found["roofline"]
    row |= {
      "roofline": times,
      "utilization": roofline.utilization(times),
      "examples_per_s": found["batch"] * pairs / times["seconds"],
    }
  return row
