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
      return types.SimpleNamespace(trace=lambda: types.SimpleNamespace(jaxpr=(name, useful)))

    return build

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
  monkeypatch.setattr(
    task, "search", lambda planned, machine, **more: told.searched.append(more) or "LARGEST"
  )

  def plans(
    name="cpu-4x2",
    *,
    kind="motion",
    wanted=("train", "extract", "policy"),
    per_device=0,
    memory=0.0,
    largest=False,
  ):
    config = types.SimpleNamespace(
      batch_per_device=per_device,
      extract_batch=5,
      policy_batch=3,
      programs=wanted,
      memory=memory,
      largest=largest,
    )
    planned = types.SimpleNamespace(task=kind, train=types.SimpleNamespace(batch_size=24))
    return task.plan(config, planned, topology.parse(name)), capsys.readouterr().out.splitlines()

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
    dict(memory=15.75, start=6)
  ]
  assert plans.told.measured[0][1]["memory"] == 15.75
  plans(largest=True)
  assert len(plans.told.searched) == 1, "a CPU has none"
  plans(largest=True, memory=2.0, wanted=("train",))
  assert plans.told.searched[1] == dict(memory=2.0, start=3)
  plans("cpu-256", largest=True, memory=2.0, wanted=("train",))
  assert plans.told.searched[2]["start"] == 1


@pytest.mark.parametrize(
  "accumulate, tensor, unit", [(1, 1, 1), (8, 1, 8), (8, 2, 4), (6, 4, 3), (2, 8, 1)]
)
def test_rows_of_a_device_come_in_parts(accumulate, tensor, unit):
  planned = types.SimpleNamespace(train=types.SimpleNamespace(accumulate=accumulate))
  assert task.unit_of(planned, tensor) == unit


def test_the_search_for_the_largest_batch(monkeypatch, capsys):
  asked = []

  def train(planned, machine, *, batch_size):
    asked.append(batch_size)
    return types.SimpleNamespace(
      rows=batch_size // machine.count, mesh=types.SimpleNamespace(shape={"tensor": 2})
    )

  monkeypatch.setattr(task.programs, "train", train)
  monkeypatch.setattr(
    task.compiled,
    "measure",
    lambda program, machine, *, memory, name: {
      "fits": program.rows <= memory if name == "train" else None
    },
  )
  planned = types.SimpleNamespace(train=types.SimpleNamespace(accumulate=4))
  found = task.search(planned, topology.parse("v5e-4"), memory=22, start=5)
  assert found == {"per_device": 22, "compiles": 7}
  assert asked == [4 * 4, *(4 * 2 * rows for rows in (2, 4, 8, 16, 12, 10, 11))], (
    "the first one only shows the mesh"
  )
  assert capsys.readouterr().out.splitlines()[:3] == [
    "  4 a device: fits",
    "  8 a device: fits",
    "  16 a device: fits",
  ]
  assert task.search(planned, topology.parse("v5e-4"), memory=0, start=1)["per_device"] == 0
  assert capsys.readouterr().out == "  2 a device: does not fit\n"
  assert task.search(planned, topology.parse("v5e-4"), memory=2**40, start=2**14)[
    "per_device"
  ] == 2 * (2**15 + 2**14 + 2**13 + 2**12), "an end there is"


def test_names_that_no_plan_has():
  planned = config_lib.ConfigDict({"task": "motion"})
  task.check(types.SimpleNamespace(programs=("train", "extract", "policy")), planned)
  assert text_of(lambda: task.check(types.SimpleNamespace(programs=("trian",)), planned)) == (
    "config.programs: 'trian' is unknown: did you mean 'train'? (valid: extract, policy, train)"
  )
  for given in ({"task": "probe"}, {}):
    assert text_of(
      lambda given=given: task.check(
        types.SimpleNamespace(programs=()), config_lib.ConfigDict(given)
      )
    ) == (
      f"config.of: the task {given.get('task', '')!r} trains nothing, one of motion, mae, "
      "policy is expected"
    )


def test_the_compiler_is_as_before_afterwards():
  names = ("jax_exec_time_optimization_effort", "jax_enable_compilation_cache")
  before = [getattr(jax.config, name) for name in names]
  with pytest.raises(RuntimeError), task.compiler(effort=-0.5):
    assert [getattr(jax.config, name) for name in names] == [-0.5, False]
    raise RuntimeError
  assert [getattr(jax.config, name) for name in names] == before


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
    lambda config, planned, machine: (
      order.append((planned.train.steps, machine.name, (tmp_path / "plan").exists())) or ["PLAN"]
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
