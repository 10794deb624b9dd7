"""Other ways to train what a plan plans, where it uses its machine little.

Each is a change of one thing: the batch, the number of devices, the mesh, or the frames of a clip.
They are to be compiled like the plan itself.
"""

import dataclasses
from typing import Any

from como_jax import config as config_lib
from como_jax.parallel import roofline, topology

_SHARDED = 8  # devices over which the mesh that is proposed spreads the state
_FRAMES = 8  # of a clip, whose 7 pairs share encoded frames


@dataclasses.dataclass(frozen=True)
class Proposal:
  """One change.

  Attributes:
    change: what it changes, for people.
    config: of the run.
    machine: for it.
    batch: over all devices.
  """

  change: str
  config: config_lib.ConfigDict
  machine: topology.Topology
  batch: int

  @property
  def pairs(self) -> int:
    """Pairs of frames of a clip; 1 for other examples."""
    return pairs(self.config)


def pairs(config: Any) -> int:
  """Pairs of frames of a clip; 1 for other examples."""
  return config.data.frames - 1 if config.task == "motion" else 1


def of(config: Any, machine: topology.Topology, program: dict[str, Any]) -> list[Proposal]:
  """Proposals for a train step; [] where its time is unknown.

  Args:
    config: of the planned run.
    machine: of the plan.
    program: the plan of the train step, with its roofline.
  """
  if "roofline" not in program:
    return []
  rows, batch = max(1, round(program["batch_per_device"])), program["batch"]
  factor = _factor(program, rows)
  mesh = program["mesh"]
  found = []
  if factor > 1:
    larger = rows * factor
    found.append(Proposal(f"{larger} {program['unit']} a device", config, machine, batch * factor))
    fewer = _fewer(machine, factor)
    if fewer and batch % fewer.count == 0:
      found.append(
        Proposal(f"the same batch on {fewer.name}", _meshed(config, fewer), fewer, batch)
      )
  sharded = min(_SHARDED, machine.slice_devices)
  if mesh["fsdp"] == 1 and sharded > 1 and mesh["tensor"] == 1:
    changed = _changed(config, {"train.mesh.data": -1, "train.mesh.fsdp": sharded})
    found.append(Proposal(f"train.mesh.fsdp={sharded}", changed, machine, batch))
  elif mesh["fsdp"] > 1:
    changed = _changed(config, {"train.mesh.data": -1, "train.mesh.fsdp": 1})
    found.append(Proposal("train.mesh.fsdp=1", changed, machine, batch))
  if config.task == "motion" and config.data.frames < _FRAMES:
    changed = _changed(config, {"data.frames": _FRAMES})
    found.append(Proposal(f"data.frames={_FRAMES}", changed, machine, batch))
  return found


def _factor(program: dict[str, Any], rows: int) -> int:
  """Power of two by which a batch must grow until computing takes as long as the other parts."""
  enough, factor = roofline.least_rows(program), 1
  while rows * factor < enough:
    factor *= 2
  return factor


def _fewer(machine: topology.Topology, factor: int) -> topology.Topology | None:
  """The machine with so many times fewer devices, first in slices; None where there is none."""
  slices = max(1, machine.slices // factor)
  chips = machine.chips * machine.slices // slices // factor
  names = topology.names(machine.kind)
  found = next((one for one in map(topology.parse, names) if one.chips == chips), None)
  return found and dataclasses.replace(found, slices=slices)


def _meshed(config: Any, machine: topology.Topology) -> config_lib.ConfigDict:
  """The config with a mesh that fills the machine."""
  mesh = config.train.mesh
  fits = mesh.fsdp > 0 and machine.slice_devices % (mesh.fsdp * max(1, mesh.tensor)) == 0
  return _changed(config, {"train.mesh.data": -1, **({} if fits else {"train.mesh.fsdp": 1})})


def _changed(config: Any, changes: dict[str, Any]) -> config_lib.ConfigDict:
  """A copy of the config with other values."""
  copy = config_lib.ConfigDict(config.to_dict())
  for key, value in changes.items():
    *path, name = key.split(".")
    section = copy
    for part in path:
      section = section[part]
    section[name] = value
  return copy
