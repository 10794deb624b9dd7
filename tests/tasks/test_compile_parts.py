"""Plans piece by piece: which programs for which machine, what is read off a compiled one, the
least time of a step, the largest batch.
"""

import json
import types

import jax
import pytest

from como_jax import config as config_lib
from como_jax import errors
from como_jax.parallel import hlo, topology
from como_jax.tasks import compile as task

GIB = 2**30


def text_of(call):
  with pytest.raises(errors.UserError) as caught:
    call()
  return str(caught.value)


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
    task,
    "measure",
    lambda program, machine, **more: told.measured.append((machine.name, more)) or {"unit": "u"},
  )
  monkeypatch.setattr(task.flops, "count", lambda jaxpr: 77.0 if jaxpr[1] else None)
  monkeypatch.setattr(
    task, "finish", lambda one, machine, **more: told.finished.append((machine.name, more))
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


STATS = types.SimpleNamespace(
  argument_size_in_bytes=4 * GIB,
  output_size_in_bytes=3 * GIB,
  alias_size_in_bytes=2 * GIB,
  temp_size_in_bytes=GIB,
  generated_code_size_in_bytes=GIB // 2,
)


def program(monkeypatch, *, compile, asked=None):
  """A program of paper that is compiled by this function, and what is read off it."""
  clock = iter((10.0, 13.5))
  monkeypatch.setattr(task, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
  monkeypatch.setattr(task.flops, "count", lambda jaxpr: 55.0)
  monkeypatch.setattr(
    task.hlo, "parse", lambda text: types.SimpleNamespace(text=text, unknown=["a", "b"])
  )
  monkeypatch.setattr(task.hlo, "traffic", lambda parsed: 99)
  monkeypatch.setattr(
    task.topology, "slice_numbers", lambda machine, mesh: (machine.name, mesh.size)
  )
  monkeypatch.setattr(task, "summary", lambda parsed, slices: [parsed.text, slices])
  traced = types.SimpleNamespace(jaxpr=None, lower=lambda: types.SimpleNamespace(compile=compile))
  mesh = types.SimpleNamespace(size=4, shape={"data": 4})
  return task.programs.Program(lambda: traced, mesh, 10, "clips", 3, 7)


def test_what_is_read_off_a_compiled_program(monkeypatch):
  options = []

  def compiled(cost):
    return types.SimpleNamespace(
      memory_analysis=lambda: STATS, as_text=lambda: "TEXT", cost_analysis=lambda: cost
    )

  def make(cost):
    return program(monkeypatch, compile=lambda given: options.append(given) or compiled(cost))

  one = task.measure(make({"flops": 44.0}), topology.parse("v5e-4"), memory=6.5, name="train")
  facts = {
    "program": "train",
    "topology": "v5e-4",
    "devices": 4,
    "mesh": {"data": 4},
    "batch": 10,
    "batch_per_device": 2.5,
    "unit": "clips",
    "parameters": 7,
    "trainable": 3,
    "flops": 55.0,
    "compile_seconds": 3.5,
  }
  sizes = dict(arguments=4.0, outputs=3.0, aliased=2.0, temporaries=1.0, code=0.5)
  rest = {"collectives": ["TEXT", ("v5e-4", 4)], "hbm_bytes": 99, "loops_unknown": 2}
  assert one == {
    **facts,
    **rest,
    "xla_flops_loops_once": 44.0,
    "fits": True,
    "memory": dict(available=6.5, needed=6.5, refused=False, **sizes),
  }
  assert task.measure(make({}), topology.parse("v5e-4"), memory=6.4, name="train")["fits"] is False
  one = task.measure(make(None), topology.parse("cpu-4"), memory=float("inf"), name="train")
  assert (
    one["fits"] is None
    and one["memory"]["available"] is None
    and one["xla_flops_loops_once"] is None
  )
  assert options == [
    None,
    None,
    {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
  ]


def test_what_the_compiler_refuses(monkeypatch):
  def refuse(text):
    def compile(options):
      raise jax.errors.JaxRuntimeError(text)

    return program(monkeypatch, compile=compile)

  one = task.measure(
    refuse("RESOURCE_EXHAUSTED: Used 31.5G of 15.75G hbm"),
    topology.parse("v5e-4"),
    memory=15.75,
    name="train",
  )
  assert (one["fits"], one["compile_seconds"], one["memory"]) == (
    False,
    3.5,
    {"available": 15.75, "needed": 31.5, "refused": True},
  ) and one["flops"] == 55.0
  assert text_of(
    lambda: task.measure(
      refuse("INTERNAL: " + "x" * 400 + "\nmore"), topology.parse("v5e-4"), memory=1, name="train"
    )
  ) == (f"train cannot be compiled for v5e-4: INTERNAL: {'x' * 290}")
  assert (
    text_of(lambda: task.measure(refuse(""), topology.parse("v5e-4"), memory=1, name="train"))
    == "train cannot be compiled for v5e-4: "
  )


@pytest.mark.parametrize(
  "unit, size", [("", 1), ("K", 2**10), ("M", 2**20), ("G", 2**30), ("T", 2**40)]
)
def test_units_of_a_refusal(unit, size):
  assert task.out_of_memory(f"Used 2.5{unit} of 1{unit} hbm") == 2.5 * size


def test_collectives_are_summed_by_kind(monkeypatch):
  ones = [
    hlo.Collective("all-reduce", 100, 2, (), ""),
    hlo.Collective("all-gather", 300, 3, (), ""),
    hlo.Collective("all-reduce", 10, 5, (), ""),
  ]
  monkeypatch.setattr(
    task.hlo, "collectives", lambda given: ones if given.partitions == 4 else None
  )
  monkeypatch.setattr(
    task.hlo,
    "sent",
    lambda one, slices, *, partitions: hlo.Sent(
      one.bytes / 4 if (slices, partitions) == ("SLICES", 4) else 0, one.bytes / 10
    ),
  )
  assert task.summary(types.SimpleNamespace(partitions=4), "SLICES") == [
    {"kind": "all-gather", "count": 3, "bytes": 900, "ici": 225.0, "dcn": 90.0},
    {"kind": "all-reduce", "count": 7, "bytes": 250, "ici": 62.5, "dcn": 25.0},
  ]


def test_the_least_time_of_a_step():
  machine = topology.parse("v5e-4")

  def finished(**changes):
    one = dict(
      devices=4,
      batch=32,
      flops=4e12,
      hbm_bytes=8.19e9,
      memory=dict(arguments=0.25, outputs=0.5),
      collectives=[dict(ici=2e9, dcn=0.0), dict(ici=1e9, dcn=2.5e9)],
      **changes,
    )
    task.finish(one, machine, model_flops=3e12, unit="clips")
    return one

  one = finished()
  roof = one["roofline"]
  parts = {
    "compute": 1e12 / 197e12,
    "memory": 0.75 * GIB / 819e9,
    "ici": 3e9 / 200e9,
    "dcn": 2.5e9 / 3.125e9,
  }
  assert (
    one["model_flops"] == 3e12
    and roof["parts"] == pytest.approx(parts)
    and (roof["bound"], roof["seconds"]) == ("dcn", pytest.approx(0.8))
  )
  assert roof["mfu"] == pytest.approx(3e12 / 4 / 197e12 / 0.8) == roof["traffic_mfu"] and roof[
    "clips_per_s"
  ] == pytest.approx(40)
  assert roof["traffic_seconds"] == roof["seconds"], "memory traffic takes less than the network"
  without = dict(devices=4, batch=32)
  task.finish(without, machine, model_flops=3e12, unit="clips")
  assert "roofline" not in without and without["model_flops"] == 3e12, "the compiler refused it"
  cpu = dict(devices=4, collectives=[])
  task.finish(cpu, topology.parse("cpu-4"), model_flops=3e12, unit="clips")
  assert "roofline" not in cpu


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
    task,
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


@pytest.mark.parametrize(
  "limit, start, most, found, tried",
  [
    (0, 1, 64, 0, [1]),
    (1, 1, 64, 1, [1, 2]),
    (100, 16, 2**14, 96, [16, 32, 64, 128, 96, 112, 104]),
    (9, 4, 64, 9, [4, 8, 16, 12, 10, 9]),
    (64, 16, 64, 64, [16, 32, 64, 96, 80, 72]),
    (10**6, 16, 64, 120, [16, 32, 64, 96, 112, 120]),
    (5, 8, 64, 5, [8, 4, 6, 5]),
    (0, 8, 64, 0, [8, 4, 2, 1]),
  ],
)
def test_the_numbers_that_are_tried(limit, start, most, found, tried):
  asked = []
  assert (
    task.largest(lambda rows: asked.append(rows) or rows <= limit, start=start, limit=most) == found
    and asked == tried
  )


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
