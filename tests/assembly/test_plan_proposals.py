"""Which changes a plan proposes, and that each changes one thing."""

import pytest

from como_jax import config as config_lib
from como_jax.assembly import plan_proposals
from como_jax.parallel import topology


def config(name="motion:debug", **changes):
  if name.startswith("motion"):
    changes = {"data.frames": 2, **changes}
  words = [f"--config.{key}={value}" for key, value in changes.items()]
  return config_lib.parse(["main", f"--config={name}", *words]).config


def program(machine, rows, *, fsdp=1, tensor=1, memory=0.008):
  """A plan of a train step: computing takes 1 ms, memory more."""
  return {
    "unit": "clips",
    "batch": rows * machine.count,
    "batch_per_device": float(rows),
    "mesh": {"data": machine.count // fsdp // tensor, "fsdp": fsdp, "tensor": tensor},
    "roofline": {"parts": {"compute": 0.001, "memory": memory, "ici": 0.0, "dcn": 0.0}},
  }


def test_one_clip_a_chip():
  """8 ms of memory and 1 ms of computing: a batch eight times as large, or an eighth of chips."""
  machine, planned = topology.parse("v5e-256"), config()
  found = plan_proposals.of(planned, machine, program(machine, 1))
  assert [(one.change, one.machine.name, one.batch) for one in found] == [
    ("8 clips a device", "v5e-256", 2048),
    ("the same batch on v5e-32", "v5e-32", 256),
    ("train.mesh.fsdp=8", "v5e-256", 256),
    ("data.frames=8", "v5e-256", 256),
  ]
  differences = [config_lib.differences(planned.to_dict(), one.config.to_dict()) for one in found]
  assert differences == [{}, {}, {"train.mesh.fsdp": (1, 8)}, {"data.frames": (2, 8)}]
  assert [one.pairs for one in found] == [1, 1, 1, 7]
  assert planned.train.mesh.fsdp == 1, "the plan's own config stays as it is"


@pytest.mark.parametrize("memory, factor", [(0.0005, 1), (0.001, 1), (0.0011, 2), (0.0041, 8)])
def test_the_batch_grows_by_a_power_of_two(memory, factor):
  machine = topology.parse("v5e-16")
  found = plan_proposals.of(config(), machine, program(machine, 3, memory=memory))
  batches = [one.batch for one in found if one.change.endswith("a device")]
  assert batches == ([] if factor == 1 else [3 * 16 * factor])


def test_a_mesh_that_is_spread_already_and_clips_that_are_long():
  machine = topology.parse("h100-4x2")
  planned = config(**{"train.mesh.fsdp": 4, "data.frames": 8})
  found = plan_proposals.of(planned, machine, program(machine, 1, fsdp=4, memory=0.002))
  assert [(one.change, one.machine.name) for one in found] == [
    ("2 clips a device", "h100-4x2"),
    ("the same batch on h100-4", "h100-4"),
    ("train.mesh.fsdp=1", "h100-4x2"),
  ]
  assert found[1].config.train.mesh.to_dict() == {"data": -1, "fsdp": 4, "tensor": 1}
  assert found[2].config.train.mesh.to_dict() == {"data": -1, "fsdp": 1, "tensor": 1}


def test_a_smaller_machine_that_the_mesh_does_not_fit():
  machine = topology.parse("v5e-16")
  planned = config(**{"train.mesh.fsdp": 16, "train.mesh.data": 1})
  found = plan_proposals.of(planned, machine, program(machine, 1, fsdp=16, memory=0.0035))
  smaller = next(one for one in found if one.change.startswith("the same batch"))
  assert smaller.machine.name == "v5e-4"
  assert smaller.config.train.mesh.to_dict() == {"data": -1, "fsdp": 1, "tensor": 1}


def test_where_there_is_no_smaller_machine():
  machine = topology.parse("h100-8")
  found = plan_proposals.of(config(), machine, program(machine, 1, memory=0.016))
  assert not [one for one in found if one.change.startswith("the same batch")]
  single = topology.parse("v5e-1")
  found = plan_proposals.of(config("mae:debug"), single, program(single, 4, memory=0.0005))
  assert not found, "one chip, enough rows, and no clips"


def test_without_times_nothing_is_proposed():
  machine = topology.parse("cpu-4")
  refused = program(machine, 1)
  del refused["roofline"]
  assert plan_proposals.of(config(), machine, refused) == []


def test_pairs_of_examples():
  assert plan_proposals.pairs(config("motion:debug", **{"data.frames": 5})) == 4
  assert plan_proposals.pairs(config("mae:debug")) == 1
