"""What is read off a compiled program, and the search for a batch."""

import types

import jax
import pytest

from como_jax.parallel import hlo_collectives, topology
from como_jax.train import compiled
from tests.refusals import text_of

GIB = 2**30


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
  monkeypatch.setattr(compiled, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
  monkeypatch.setattr(compiled.flops, "count", lambda jaxpr: 55.0)
  monkeypatch.setattr(
    compiled.hlo, "parse", lambda text: types.SimpleNamespace(text=text, unknown=["a", "b"])
  )
  monkeypatch.setattr(compiled.hlo_traffic, "traffic", lambda parsed: 99)
  monkeypatch.setattr(
    compiled.topology, "slice_numbers", lambda machine, mesh: (machine.name, mesh.size)
  )
  monkeypatch.setattr(compiled.hlo_traffic, "unchanged", lambda parsed: GIB // 4)
  monkeypatch.setattr(
    compiled, "summary", lambda parsed, slices, *, scatter: [parsed.text, slices, scatter]
  )
  traced = types.SimpleNamespace(jaxpr=None, lower=lambda: types.SimpleNamespace(compile=compile))
  mesh = types.SimpleNamespace(size=4, shape={"data": 4})
  return compiled.Program(lambda: traced, mesh, 10, "clips", 3, 7)


def test_what_is_read_off_a_compiled_program(monkeypatch):
  options = []

  def result(cost):
    return types.SimpleNamespace(
      memory_analysis=lambda: STATS, as_text=lambda: "TEXT", cost_analysis=lambda: cost
    )

  def make(cost):
    return program(monkeypatch, compile=lambda given: options.append(given) or result(cost))

  one = compiled.measure(make({"flops": 44.0}), topology.parse("v5e-4"), memory=6.5, name="train")
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
  sizes = dict(arguments=4.0, outputs=3.0, aliased=2.0, temporaries=1.0, code=0.5, unchanged=0.25)
  rest = {
    "collectives": ["TEXT", ("v5e-4", 4), False],
    "hbm_bytes": 99,
    "loops_unknown": 2,
    "estimated": False,
  }
  assert one == {
    **facts,
    **rest,
    "xla_flops_loops_once": 44.0,
    "fits": True,
    "memory": dict(available=6.5, needed=6.5, refused=False, **sizes),
  }
  assert (
    compiled.measure(make({}), topology.parse("v5e-4"), memory=6.4, name="train")["fits"] is False
  )
  one = compiled.measure(make(None), topology.parse("cpu-4"), memory=float("inf"), name="train")
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


def test_what_is_read_off_a_program_for_gpus(monkeypatch):
  """The sizes are those of the program for CPUs; the collectives those of the partitioned one."""
  made = types.SimpleNamespace(
    memory_analysis=lambda: STATS, as_text=lambda: "TEXT", cost_analysis=lambda: {}
  )
  monkeypatch.setattr(
    compiled.stand_ins, "compile", lambda traced: compiled.stand_ins.Compiled(made, "PARTITIONED")
  )
  given = program(monkeypatch, compile=None)
  one = compiled.measure(given, topology.parse("h100-4"), memory=6.4, name="train")
  assert one["collectives"] == ["PARTITIONED", ("h100-4", 4), True]
  assert one["estimated"] and one["hbm_bytes"] is None and one["fits"] is False
  assert one["memory"]["needed"] == 6.5

  def refuse(traced):
    raise NotImplementedError("no rule for 'x'\nmore")

  monkeypatch.setattr(compiled.stand_ins, "compile", refuse)
  given = program(monkeypatch, compile=None)
  assert (
    text_of(lambda: compiled.measure(given, topology.parse("h100-4"), memory=1, name="train"))
    == "train cannot be lowered for h100-4: no rule for 'x'"
  )


def test_what_the_compiler_refuses(monkeypatch):
  def refuse(text):
    def compile(options):
      raise jax.errors.JaxRuntimeError(text)

    return program(monkeypatch, compile=compile)

  one = compiled.measure(
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
    lambda: compiled.measure(
      refuse("INTERNAL: " + "x" * 400 + "\nmore"), topology.parse("v5e-4"), memory=1, name="train"
    )
  ) == (f"train cannot be compiled for v5e-4: INTERNAL: {'x' * 290}")
  assert (
    text_of(lambda: compiled.measure(refuse(""), topology.parse("v5e-4"), memory=1, name="train"))
    == "train cannot be compiled for v5e-4: "
  )


def test_a_compiler_that_does_not_give_its_program(monkeypatch):
  result = types.SimpleNamespace(as_text=lambda: None)
  assert (
    text_of(
      lambda: compiled.measure(
        program(monkeypatch, compile=lambda options: result),
        topology.parse("v5e-4"),
        memory=1,
        name="train",
      )
    )
    == "train: the compiler for v5e-4 does not give its program"
  )


@pytest.mark.parametrize(
  "unit, size", [("", 1), ("K", 2**10), ("M", 2**20), ("G", 2**30), ("T", 2**40)]
)
def test_units_of_a_refusal(unit, size):
  assert compiled.out_of_memory(f"Used 2.5{unit} of 1{unit} hbm") == 2.5 * size


def test_collectives_are_summed_by_kind(monkeypatch):
  ones = [
    hlo_collectives.Collective("all-reduce", 100, 2, (), ""),
    hlo_collectives.Collective("all-gather", 300, 3, (), ""),
    hlo_collectives.Collective("all-reduce", 10, 5, (), ""),
  ]
  monkeypatch.setattr(
    compiled.hlo_collectives,
    "collectives",
    lambda given, *, scatter: ones if (given.partitions, scatter) == (4, True) else None,
  )
  monkeypatch.setattr(
    compiled.hlo_collectives,
    "sent",
    lambda one, slices, *, partitions: hlo_collectives.Sent(
      one.bytes / 4 if (slices, partitions) == ("SLICES", 4) else 0, one.bytes / 10
    ),
  )
  assert compiled.summary(types.SimpleNamespace(partitions=4), "SLICES", scatter=True) == [
    {"kind": "all-gather", "count": 3, "bytes": 900, "ici": 225.0, "dcn": 90.0},
    {"kind": "all-reduce", "count": 7, "bytes": 250, "ici": 62.5, "dcn": 25.0},
  ]


@pytest.mark.parametrize(
  "message, expected",
  [
    (
      (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (749.62G) exceeds available HBM (15.75G)."
      ),
      749.62 * 2**30,
    ),
    (
      "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
      "hbm. Used 31.02G of 15.75G hbm. Exceeded hbm capacity by 15.27G.",
      31.02 * 2**30,
    ),
    ("RESOURCE_EXHAUSTED: something else", 0.0),
    ("INTERNAL: a failure", None),
  ],
)
def test_refusals_of_the_compiler(message, expected):
  assert compiled.out_of_memory(message) == expected


@pytest.mark.parametrize("limit, start", [(1, 1), (7, 1), (100, 16), (100, 3), (0, 8), (5000, 64)])
def test_the_largest_batch_is_found_to_an_eighth(limit, start):
  tried = []
  found = compiled.largest(
    lambda rows: tried.append(rows) or rows <= limit, start=start, limit=2**14
  )
  assert limit * 7 / 8 - 1 <= found <= limit and len(tried) == len(set(tried)) <= 16


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
    compiled.largest(lambda rows: asked.append(rows) or rows <= limit, start=start, limit=most)
    == found
    and asked == tried
  )


def test_the_search_for_the_largest_batch(monkeypatch, capsys):
  asked = []

  def build(batch_size):
    asked.append(batch_size)
    return types.SimpleNamespace(rows=batch_size // 4)

  monkeypatch.setattr(
    compiled,
    "measure",
    lambda program, machine, *, memory, name: {
      "fits": program.rows <= memory if name == "train" else None
    },
  )

  def search(**given):
    return compiled.largest_batch(build, topology.parse("v5e-4"), multiple=2, **given)

  assert search(memory=22, start=5) == {"per_device": 22, "compiles": 7}
  assert asked == [4 * 2 * count for count in (2, 4, 8, 16, 12, 10, 11)]
  assert capsys.readouterr().out.splitlines()[:3] == [
    "  4 a device: fits",
    "  8 a device: fits",
    "  16 a device: fits",
  ]
  assert search(memory=0, start=1)["per_device"] == 0
  assert capsys.readouterr().out == "  2 a device: does not fit\n"
  assert search(memory=2**40, start=2**14)["per_device"] == 2 * (2**15 + 2**14 + 2**13 + 2**12), (
    "an end there is"
  )


def test_the_compiler_is_as_before_afterwards():
  levels = not hasattr(jax.config, "jax_exec_time_optimization_effort")  # jax 0.11 and later
  name = "jax_optimization_level" if levels else "jax_exec_time_optimization_effort"
  names = (name, "jax_enable_compilation_cache")
  before = [getattr(jax.config, name) for name in names]
  with pytest.raises(RuntimeError), compiled.compiler(effort=-0.5):
    assert [getattr(jax.config, name) for name in names] == ["O1" if levels else -0.5, False]
    raise RuntimeError
  assert [getattr(jax.config, name) for name in names] == before


@pytest.mark.parametrize("effort, level", [(-1.0, "O1"), (0.0, "UNKNOWN"), (0.5, "O3")])
def test_the_effort_where_jax_has_levels(monkeypatch, effort, level):
  class Config:
    jax_optimization_level = "O2"
    jax_enable_compilation_cache = True

    def update(self, name, value):
      assert hasattr(self, name)
      setattr(self, name, value)

  config = Config()
  monkeypatch.setattr(compiled.jax, "config", config)
  with compiled.compiler(effort=effort):
    assert (config.jax_optimization_level, config.jax_enable_compilation_cache) == (level, False)
  assert (config.jax_optimization_level, config.jax_enable_compilation_cache) == ("O2", True)
