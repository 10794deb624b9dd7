"""The state of a job, and whether its step fits into memory."""

import types

import jax
import numpy as np
import pytest

from como_jax import errors
from como_jax.parallel import mesh as mesh_lib
from como_jax.train import job as job_lib
from como_jax.train import memory, rng
from tests import toy
from tests.train.step_folders import raises


def text_of(kind, call):
  with pytest.raises(kind) as caught:
    call()
  return str(caught.value)


def test_a_step_that_does_not_fit_is_refused_before_anything_runs(monkeypatch):
  mesh = mesh_lib.make(data=2, fsdp=2, devices=jax.devices()[:4])
  checked, lowered = [], []
  monkeypatch.setattr(
    memory, "check", lambda need, devices, **more: checked.append((need, devices, more))
  )
  shapes = {"a": jax.ShapeDtypeStruct((100,), np.float32)}
  job = types.SimpleNamespace(batch={"x": jax.ShapeDtypeStruct((8, 3), np.uint8)})
  section = types.SimpleNamespace(batch_size=8, accumulate=2)
  compiled = types.SimpleNamespace(memory_analysis=lambda: None)

  def step(compile):
    return types.SimpleNamespace(
      compile=lambda given, batch: lowered.append((given, batch)) or compile()
    )

  job_lib.check_memory(step(lambda: compiled), shapes, job, section, mesh)
  alone = (
    100,
    mesh.local_devices,
    dict(batch_size=8, accumulate=2, what="the state of the run (weights and optimizer) alone"),
  )
  assert checked == [alone]
  given, batch = lowered[0]
  assert (
    given is shapes
    and batch["x"].shape == (8, 3)
    and batch["x"].dtype == np.uint8
    and batch["x"].sharding == mesh_lib.batch_sharding(mesh)
  )
  monkeypatch.setattr(memory, "needed", lambda program: 77 if program is compiled else None)
  job_lib.check_memory(step(lambda: compiled), shapes, job, section, mesh)
  assert checked[1:] == [alone, (77, mesh.local_devices, dict(batch_size=8, accumulate=2))]
  refused = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: " + "x" * 300 + "\nmore")
  assert text_of(
    errors.UserError,
    lambda: job_lib.check_memory(step(raises(refused)), shapes, job, section, mesh),
  ) == (f"a train step does not fit into memory (RESOURCE_EXHAUSTED: {'x' * 180}): {memory.ADVICE}")
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    job_lib.check_memory(
      step(raises(jax.errors.JaxRuntimeError("INTERNAL: x"))), shapes, job, section, mesh
    )


def test_parameters_are_gathered_where_several_processes_hold_them(monkeypatch):
  gathered = []
  monkeypatch.setattr(
    job_lib.distributed, "gather", lambda params: gathered.append(params) or {"a": np.ones(2)}
  )
  params = {"a": np.zeros(2)}
  assert job_lib.replicated(params) is params and not gathered
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  assert job_lib.replicated(params)["a"].tolist() == [1.0, 1.0] and gathered == [params]


class Noisy:
  """A model whose parameters are drawn; `traced` counts how often."""

  traced = 0

  def init(self, key):
    self.traced += 1
    return {**toy.params(width=512), "noise": jax.random.normal(key, (3,))}


def test_the_state_is_made_sharded_with_the_given_parts_in_place():
  tx, _ = toy.make_optimizer()
  given = {"encoder": {"kernel": np.full((8, 512), 7.0, np.float32)}}
  job = types.SimpleNamespace(model=Noisy(), initial_params=given)
  mesh = mesh_lib.make(data=1, fsdp=4, devices=jax.devices()[:4])
  made = [
    job_lib.initial_state(job, tx, frozen=toy.FROZEN, ema=ema, seed=seed, mesh=mesh)
    for ema, seed in ((True, 3), (False, 4))
  ]
  assert (
    (np.asarray(made[0].params["encoder"]["kernel"]) == 7).all()
    and made[0].ema is not None
    and made[1].ema is None
  )
  for state, seed in zip(made, (3, 4), strict=False):
    np.testing.assert_allclose(
      state.params["noise"], jax.random.normal(rng.key(seed, "init"), (3,)), rtol=1e-6
    )
  shapes = job_lib.state_shapes(job, tx, frozen=toy.FROZEN, ema=True, mesh=mesh)

  def described(state):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), state)

  assert (
    described(shapes) == described(made[0])
    and not shapes.params["head"]["kernel"].sharding.is_fully_replicated
  )


def test_a_run_traces_the_initialization_of_its_model_once():
  tx, _ = toy.make_optimizer()
  job = types.SimpleNamespace(model=Noisy(), initial_params={})
  mesh = mesh_lib.make(data=1, devices=jax.devices()[:1])
  shapes = job_lib.state_shapes(job, tx, frozen=toy.FROZEN, ema=False, mesh=mesh)
  made = job_lib.initial_state(job, tx, frozen=toy.FROZEN, ema=False, seed=1, mesh=mesh)
  assert job.model.traced == 1 and jax.tree.structure(shapes) == jax.tree.structure(made)
