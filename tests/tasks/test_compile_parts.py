"""Plans piece by piece: which programs for which machine, and the search for the largest batch."""

import json
import types

import jax
import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.parallel import topology
from como_jax.tasks import compile as task
from tests.refusals import text_of


@pytest.fixture(name="plans")
def _plans(monkeypatch, capsys):
  """`plan` on paper: the programs that were made, measured and finished."""
  told = types.SimpleNamespace(built=[], measured=[], finished=[], searched=[], calibrated=[])

  def builder(name):
    def build(planned, machine, *, batch_size, useful=False):
      told.built.append((name, machine.name, batch_size, useful))
      return types.SimpleNamespace(
        mesh=types.SimpleNamespace(shape={"tensor": 2}),
        trace=lambda: types.SimpleNamespace(jaxpr=(name, useful)),
      )

    return build

  def largest_batch(build, machine, **more):
    told.searched.append((machine.name, more))
    build(40)
    return "LARGEST"

  for name in ("train", "extract", "policy"):
    monkeypatch.setattr(task.programs, name, builder(name))
  monkeypatch.setattr(
    task.compiled,
    "measure",
    lambda program, machine, **more: told.measured.append((machine.name, more)) or {"unit": "u"},
  )
  monkeypatch.setattr(task.flops, "count", lambda jaxpr: 77.0 if jaxpr[1] else None)
  monkeypatch.setattr(
    task.roofline, "add", lambda one, machine, **more: told.finished.append((machine.name, more))
  )
  monkeypatch.setattr(task.roofline, "warnings", lambda one: [f"LOW {len(told.finished)}"])
  monkeypatch.setattr(
    task.plan_calibration,
    "read",
    lambda path, machine: told.calibrated.append((path, machine.name)) or "MEASURED",
  )
  monkeypatch.setattr(task, "proposals", lambda options, result, calibration: [calibration])
  monkeypatch.setattr(task.compiled, "largest_batch", largest_batch)

  def plans(
    name="cpu-4x2",
    *,
    kind="motion",
    wanted=("train", "extract", "policy"),
    per_device=0,
    memory=0.0,
    largest=False,
    **more,
  ):
    options = types.SimpleNamespace(
      machine=topology.parse(name),
      planned=types.SimpleNamespace(
        task=kind, train=types.SimpleNamespace(batch_size=24, accumulate=4)
      ),
      batch_per_device=per_device,
      extract_batch=5,
      policy_batch=3,
      programs=wanted,
      memory=memory,
      largest=largest,
      **{"calibration": "", "proposals": False, **more},
    )
    return task.plan(options), capsys.readouterr().out.splitlines()

  plans.told = told
  return plans


def test_the_programs_of_a_config_each_for_its_machine(plans):
  found, said = plans()
  assert found == [{"unit": "u", "warnings": [f"LOW {number}"]} for number in (1, 2)]
  assert plans.told.built == [
    ("train", "cpu-4x2", 24, False),
    ("train", "cpu-4x2", 24, True),
    ("extract", "cpu-4", 20, False),
    ("extract", "cpu-4", 20, True),
  ]
  assert said == [
    "compiling train for cpu-4x2, batch 24: minutes for a large model",
    "compiling extract for cpu-4, batch 20: minutes for a large model",
  ]
  assert plans.told.measured == [
    ("cpu-4x2", dict(memory=float("inf"), name="train")),
    ("cpu-4", dict(memory=float("inf"), name="extract")),
  ]
  assert (
    plans.told.finished
    == [(name, dict(model_flops=77.0, unit="u", calibration=None)) for name in ("cpu-4x2", "cpu-4")]
    and not plans.told.searched
    and not plans.told.calibrated
  )
  del plans.told.built[:]
  plans(kind="policy", per_device=6)
  assert plans.told.built[::2] == [("train", "cpu-4x2", 48, False), ("policy", "cpu-1", 3, False)]
  del plans.told.built[:]
  plans(kind="mae")
  assert plans.told.built[::2] == [("train", "cpu-4x2", 24, False)]
  assert (
    text_of(lambda: plans(kind="mae", wanted=("policy", "extract")))
    == "config.programs=('policy', 'extract'): a config of task 'mae' has only train"
  )


def test_a_calibration_is_of_the_train_step(plans):
  found, _ = plans("v5e-16", calibration="runs/a", proposals=True)
  assert plans.told.calibrated == [("runs/a", "v5e-16")]
  assert [more["calibration"] for _, more in plans.told.finished] == ["MEASURED", None]
  assert [one.get("proposals") for one in found] == [["MEASURED"], None]


def test_no_proposals_where_nothing_is_low(plans, monkeypatch):
  monkeypatch.setattr(task.roofline, "warnings", lambda one: [])
  assert "proposals" not in plans(proposals=True)[0][0]


def test_proposals_are_planned_like_the_plan(monkeypatch, capsys):
  """One that cannot be compiled is left out; one that does not fit has no times."""
  machine, other = topology.parse("v5e-16"), topology.parse("v5e-4")
  one = task.plan_proposals.Proposal
  clips, video = (
    types.SimpleNamespace(task="motion", data=types.SimpleNamespace(frames=frames))
    for frames in (2, 8)
  )
  given = [
    one("A", clips, machine, 64),
    one("refused", clips, machine, 65),
    one("B", video, other, 16),
  ]
  asked = []

  def train(config, machine, *, batch_size, useful=False):
    if batch_size == 65:
      raise errors.UserError("does not divide")
    asked.append((config, machine.name, batch_size, useful))
    return types.SimpleNamespace(trace=lambda: types.SimpleNamespace(jaxpr="J"))

  def measured(topology_name, batch):
    facts = dict(topology=topology_name, devices=4, mesh={}, batch=batch, batch_per_device=1.0)
    return {**facts, "unit": "clips", "fits": True, "memory": {"needed": 1.0}}

  def add(found, machine, *, model_flops, unit, calibration):
    assert (model_flops, unit, calibration) == (5.0, "clips", "MEASURED")
    if machine is not other:
      found["roofline"] = {"seconds": 0.5, "likely": None, "mfu": 0.2, "traffic_mfu": None}

  memories = []
  monkeypatch.setattr(task.plan_proposals, "of", lambda *asked: given)
  monkeypatch.setattr(task.programs, "train", train)
  monkeypatch.setattr(
    task.compiled,
    "measure",
    lambda program, machine, *, memory, name: (
      memories.append(memory) or measured(machine.name, asked[-1][2])
    ),
  )
  monkeypatch.setattr(task.flops, "count", lambda jaxpr: 5.0)
  monkeypatch.setattr(task.roofline, "add", add)
  options = types.SimpleNamespace(planned=clips, machine=machine, memory=0.0)
  planned = {
    **measured("v5e-16", 32),
    "roofline": {"seconds": 0.25, "likely": None, "mfu": 0.1, "traffic_mfu": 0.05},
  }
  first, second, third = task.proposals(options, planned, "MEASURED")
  assert (first["change"], first["utilization"], first["examples_per_s"]) == (
    "as planned",
    0.05,
    128.0,
  )
  assert (second["change"], second["utilization"], second["examples_per_s"]) == ("A", 0.2, 128.0)
  assert (third["change"], third["topology"], third["batch"]) == ("B", "v5e-4", 16)
  assert "roofline" not in third and "examples_per_s" not in third
  assert asked == [
    (clips, "v5e-16", 64, False),
    (clips, "v5e-16", 64, True),
    (video, "v5e-4", 16, False),
    (video, "v5e-4", 16, True),
  ]
  assert memories == [15.75, 15.75]
  assert "  left out: does not divide\n" in capsys.readouterr().out
  planned["roofline"] |= {"seconds": 0.25}
  seven = types.SimpleNamespace(planned=video, machine=machine, memory=3.0)
  given[:] = given[2:]
  assert task.proposals(seven, planned, "MEASURED")[0]["examples_per_s"] == 7 * 128.0
  assert memories[-1] == 3.0


def test_the_largest_batch_is_looked_for_where_memory_has_a_limit(plans):
  found, _ = plans("v5e-4", largest=True, kind="policy", per_device=6)
  assert [one.get("largest") for one in found] == ["LARGEST", None] and plans.told.searched == [
    ("v5e-4", dict(memory=15.75, start=6, multiple=2))
  ]
  assert plans.told.built[2] == ("train", "v5e-4", 40, False)
  assert plans.told.measured[0][1]["memory"] == 15.75
  plans(largest=True)
  assert len(plans.told.searched) == 1, "a CPU has none"
  plans(largest=True, memory=2.0, wanted=("train",))
  assert plans.told.searched[1] == ("cpu-4x2", dict(memory=2.0, start=3, multiple=2))
  plans("cpu-256", largest=True, memory=2.0, wanted=("train",))
  assert plans.told.searched[2][1]["start"] == 1


def effort():
  """The compiler's, as jax has it: a number, or a level from jax 0.11 on."""
  return {"O1": -0.5}.get(
    jax.config.jax_optimization_level, getattr(jax.config, "jax_exec_time_optimization_effort", 0)
  )


def test_a_plan_is_written_and_printed(monkeypatch, tmp_path, capsys):
  order = []
  monkeypatch.setattr(task.topology, "compiler_versions", lambda machine: {"libtpu": machine.name})
  monkeypatch.setattr(task.rundir, "versions", lambda: {"jax": "1"})
  monkeypatch.setattr(task.plan_page, "text", lambda result: f"# PAGE of {result['of']}")
  monkeypatch.setattr(task.topology, "devices", lambda machine: order.append(f"devices {effort()}"))
  monkeypatch.setattr(
    task,
    "plan",
    lambda options: (
      order.append(
        (options.planned.train.steps, options.machine.name, (tmp_path / "plan").exists())
      )
      or ["PLAN"]
    ),
  )

  def command(*more):
    return config_lib.parse(
      [
        "main",
        "--config=compile:debug",
        f"--workdir={tmp_path / 'plan'}",
        "--config.changes=train.steps=9 data.path='a b'",
        "--config.effort=-0.5",
        *more,
      ]
    )

  assert task.run(command()) == 0
  assert order == ["devices -0.5", (9, "cpu-8", False)]
  folder = tmp_path / "plan"
  text = (folder / "plan.json").read_text()
  result = json.loads(text)
  assert (
    text == json.dumps(result, indent=2)
    and (folder / "plan.md").read_text() == "# PAGE of configs/motion.py:debug"
    and (folder / "config.json").exists()
  )
  line = (
    f"python -m como_jax.main --config=compile:debug --workdir={folder} "
    "'--config.changes=train.steps=9 data.path='\"'\"'a b'\"'\"'' --config.effort=-0.5"
  )
  assert result == {
    "command": line,
    "topology": "cpu-8",
    "machine": topology.parse("cpu-8").describe(),
    "of": "configs/motion.py:debug",
    "changes": "train.steps=9 data.path='a b'",
    "effort": -0.5,
    "calibration": "",
    "programs": ["PLAN"],
    "versions": {"jax": "1", "libtpu": "cpu-8"},
  }
  assert (
    capsys.readouterr().out
    == f"# PAGE of configs/motion.py:debug\nwritten: {folder / 'plan.json'}, {folder / 'plan.md'}\n"
  )
  assert "is not empty" in text_of(lambda: task.run(command())) and len(order) == 2
  assert task.run(command("--overwrite")) == 0
