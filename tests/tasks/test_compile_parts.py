"""Plans piece by piece: which programs for which machine, and the search for the largest batch."""

import json
import types

import jax
import pytest

from como_jax import config as config_lib
from como_jax.parallel import topology
from como_jax.tasks import compile as task
from tests.refusals import text_of


@pytest.fixture(name="plans")
def _plans(monkeypatch, capsys):
  """`plan` on paper: the programs that were made, measured and finished."""
  told = types.SimpleNamespace(built=[], measured=[], finished=[], searched=[])

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
    task.compiled,
    "add_roofline",
    lambda one, machine, **more: told.finished.append((machine.name, more)),
  )
  monkeypatch.setattr(task.compiled, "largest_batch", largest_batch)

  def plans(
    name="cpu-4x2",
    *,
    kind="motion",
    wanted=("train", "extract", "policy"),
    per_device=0,
    memory=0.0,
    largest=False,
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
    )
    return task.plan(options), capsys.readouterr().out.splitlines()

  plans.told = told
  return plans


def test_the_programs_of_a_config_each_for_its_machine(plans):
  found, said = plans()
  assert found == [{"unit": "u"}] * 2
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
    == [(name, dict(model_flops=77.0, unit="u")) for name in ("cpu-4x2", "cpu-4")]
    and not plans.told.searched
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


def test_a_plan_is_written_and_printed(monkeypatch, tmp_path, capsys):
  order = []
  monkeypatch.setattr(task.rundir, "versions", lambda: {"jax": "1"})
  monkeypatch.setattr(task.plan_page, "text", lambda result: f"# PAGE of {result['of']}")
  monkeypatch.setattr(
    task.topology,
    "devices",
    lambda machine: order.append(f"devices {jax.config.jax_exec_time_optimization_effort}"),
  )
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
    "programs": ["PLAN"],
    "versions": {"jax": "1"},
  }
  assert (
    capsys.readouterr().out
    == f"# PAGE of configs/motion.py:debug\nwritten: {folder / 'plan.json'}, {folder / 'plan.md'}\n"
  )
  assert "is not empty" in text_of(lambda: task.run(command())) and len(order) == 2
  assert task.run(command("--overwrite")) == 0
