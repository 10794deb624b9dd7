"""A compiled step comes back from its file as it was, or not at all."""

import json
import pathlib
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules, uncached
from como_jax.train import fit, saved_step, step
from tests import toy


def config(**train):
  found = config_lib.ConfigDict({"task": "toy", "seed": 7, "model": {"width": 64}})
  found.train = config_lib.train(**train)
  return found


class Made:
  """A toy step on eight devices, its state and batch, and what the file is made for."""

  def __init__(self):
    self.mesh = mesh_lib.make(data=4, fsdp=2)
    self.tx, _ = toy.make_optimizer()
    state = toy.fresh(self.tx, ema=True)
    self.shardings = rules.shardings(state, self.mesh)
    batch = mesh_lib.put_batch(self.mesh, toy.batch(0))
    self.batch = jax.tree.map(self.shape, batch)
    self.shapes = jax.tree.map(
      lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
      state,
      self.shardings,
    )
    self.step = self.new()
    self.arguments = (self.shapes, self.batch, self.step.constants)
    self.known = saved_step.identity(config(), self.mesh, self.arguments)

  def shape(self, leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)

  def new(self):
    options = step.StepOptions(toy.WEIGHTS, toy.FROZEN, seed=0, ema_decay=0.5)
    return step.TrainStep(toy.loss, self.tx, options, mesh=self.mesh, state=self.shapes)

  def two_steps(self, train_step):
    """State and metrics after two steps, with every copy between host and devices forbidden."""
    now = jax.device_put(toy.fresh(self.tx, ema=True), self.shardings)
    for i in range(2):
      batch = mesh_lib.put_batch(self.mesh, toy.batch(i))
      with jax.transfer_guard("disallow"):
        now, metrics = train_step(now, batch)
    return jax.device_get((now, metrics))


@pytest.fixture(name="made", scope="module")
def _made():
  return Made()


@pytest.fixture(name="file", scope="module")
def _file(made, tmp_path_factory):
  path = tmp_path_factory.mktemp("steps") / "new" / "step"
  made.new().compile(made.shapes, made.batch)  # in JAX's cache now, from which it is not to come
  with uncached.compiling():
    compiled = made.new().compile(made.shapes, made.batch)
  metrics = ["error", "grad_norm", "loss", "size"]
  assert saved_step.try_save(path, compiled, made.known, metrics) == "; written for the next start"
  return path


def why(made, path, known=None):
  with pytest.raises(saved_step.Unusable) as caught:
    saved_step.load(path, made.known if known is None else known, made.arguments)
  return str(caught.value)


def test_a_loaded_step_does_the_same_and_compiles_nothing(made, file, monkeypatch):
  fresh = made.new()
  monkeypatch.setattr(fresh, "_compiled", None)
  fresh.use(saved_step.load(file, made.known, made.arguments))
  assert fresh.compile(made.shapes, made.batch) is fresh._ready
  chosen, expected = made.two_steps(fresh), made.two_steps(made.step)
  assert jax.tree.structure(chosen) == jax.tree.structure(expected)
  for one, other in zip(jax.tree.leaves(chosen), jax.tree.leaves(expected), strict=True):
    np.testing.assert_array_equal(one, other)
  assert int(chosen[0].step) == 2


def test_each_difference_is_named(made, file, tmp_path):
  assert set(made.known) >= {"jax", "jaxlib", "libtpu", "backend", "devices", "mesh", "config"}
  special = {
    "config": "it was compiled for another config",
    "program": "it was compiled for another version of como_jax",
    "shapes": "it was compiled for another state or batch",
  }
  for name, now in made.known.items():
    plain = f"it was compiled for {name} {now[:120] or 'none'!r}, this is 'else'"
    assert why(made, file, {**made.known, name: "else"}) == special.get(name, plain)
  less = {name: value for name, value in made.known.items() if name != "mesh"}
  assert why(made, file, less).startswith("it was compiled for mesh ")


def test_what_decides_the_program_is_in_the_identity(made):
  plain = config()

  def differs(*, config=None, mesh=made.mesh, arguments=made.arguments):
    found = saved_step.identity(config or plain, mesh, arguments)
    return {name for name in found if found[name] != made.known[name]}

  assert differs() == set()
  free = config(log_every=7, checkpoint_every=3, compiled_step="F", wandb="P", keep_checkpoints=9)
  assert differs(config=free) == set()
  for changed in ({"steps": 9}, {"ema": 0.1}, {"optimizer__learning_rate": 1.0}):
    assert differs(config=config(**changed)) == {"config"}
  other = config()
  other.model.width = 65
  assert differs(config=other) == {"config"}
  assert differs(mesh=mesh_lib.make(data=8)) == {"mesh"}
  assert differs(mesh=mesh_lib.make(devices=jax.devices()[:4])) == {"mesh", "devices", "device ids"}
  batch = {**made.batch, "x": jax.ShapeDtypeStruct((32, 8), jnp.float32)}
  assert differs(arguments=(made.shapes, batch, {})) == {"shapes"}


def test_sources_are_in_the_identity(tmp_path):
  (tmp_path / "part").mkdir()
  for name in ("a.py", "part/b.py"):
    (tmp_path / name).write_text("x = 1\n")
  before = saved_step._sources(tmp_path)
  (tmp_path / "part" / "note.txt").write_text("no source")
  assert saved_step._sources(tmp_path) == before
  (tmp_path / "part" / "b.py").write_text("x = 2\n")
  assert saved_step._sources(tmp_path) != before


def test_what_is_no_whole_file_is_not_loaded(made, file, tmp_path, monkeypatch):
  path = pathlib.Path(tmp_path, "step")
  assert why(made, path) == "it is not there yet"
  content = file.read_bytes()
  for wrong in (b"", b"\x93garbage", b"{}\n", b"[]\nx"):
    path.write_bytes(wrong)
    assert why(made, path) == "it is no compiled step"
  for damaged in (content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
    path.write_bytes(damaged)
    assert why(made, path) == "it is damaged: it holds other bytes than were written"
  header, _, program = content.partition(b"\n")
  other = saved_step.xxhash.xxh3_64_hexdigest(b"none")
  path.write_bytes(json.dumps({**json.loads(header), "xxh3_64": other}).encode() + b"\nnone")
  assert why(made, path).startswith("it cannot be loaded: ")
  assert why(made, tmp_path) == "it cannot be read: Is a directory"


def test_a_file_that_cannot_be_written_ends_no_run(made, tmp_path, monkeypatch):
  compiled = made.step.compile(made.shapes, made.batch)
  (tmp_path / "file").write_text("")
  said = saved_step.try_save(tmp_path / "file" / "step", compiled, {}, [])
  assert said == "; it cannot be written: File exists"

  def refuses(compiled):
    raise ValueError("Compilation does not support serialization\nmore")

  monkeypatch.setattr(saved_step.serialize_executable, "serialize", refuses)
  said = saved_step.try_save(tmp_path / "step", compiled, {}, [])
  line = "ValueError: Compilation does not support serialization"
  assert said == f"; it cannot be saved: {line}" and not (tmp_path / "step").exists()


def test_a_run_leaves_its_step_and_the_next_start_loads_it(made, tmp_path, monkeypatch, capsys):
  settings = config(compiled_step=str(tmp_path / "kept" / "step"))
  job = types.SimpleNamespace(batch=made.batch)
  prepared = types.SimpleNamespace(job=job, mesh=made.mesh)

  def start(given=settings):
    train_step = made.new()
    fit._use_saved_step(given, prepared, train_step, made.shapes)
    return train_step, re.sub(r"\d+\.\d", "T", capsys.readouterr().out)

  words = f"compiled step {settings.train.compiled_step}: "
  first, said = start()
  end = "compiled in T s; written for the next start\n"
  assert said == f"{words}it is not there yet: {end}"
  second, said = start()
  assert said == f"{words}loaded in T s\n"
  results = [made.two_steps(one) for one in (first, second, made.step)]
  for one, other, plain in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_array_equal(one, plain)
    np.testing.assert_array_equal(other, plain)
  changed = config(compiled_step=settings.train.compiled_step, steps=9)
  assert start(changed)[1] == f"{words}it was compiled for another config: {end}"
  monkeypatch.setattr(fit.distributed, "is_primary", lambda: False)
  written = pathlib.Path(settings.train.compiled_step).read_bytes()
  assert start()[1] == "" and pathlib.Path(settings.train.compiled_step).read_bytes() == written
