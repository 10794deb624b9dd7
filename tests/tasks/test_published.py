"""The full-size configuration: exact counts, and its step lowers for a mesh of eight devices."""

import json
import pathlib

import jax
import jax.numpy as jnp
import pytest

from como_jax import config as config_lib
from como_jax import models, objectives, trees
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules
from como_jax.train import optimizer, rng, state, step

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def published():
  config = config_lib.parse(["main", f"--config={ROOT}/configs/motion.py"]).config
  model = models.build(config.model.to_dict())
  return config, model, jax.eval_shape(model.init, rng.key(0, "init"))


def test_counts(published):
  config, model, params = published
  assert (
    config.train.batch_size,
    config.train.steps,
    config.data.image_size,
    config.model.encoder.size,
  ) == (256, 50_000, 224, "L/16")
  trainable, frozen = trees.split(params, model.frozen)
  assert optimizer.count(frozen) == 303_301_632
  assert optimizer.count(params["idm"]["qformer"]) == 29_458_176
  without_up = {
    name: leaf for name, leaf in trees.flatten(params["fdm"]).items() if not name.startswith("up_")
  }
  assert optimizer.count(without_up) == 91_107_072
  assert set(trainable) == {"idm", "fdm"}


def test_counts_with_vq():
  config = config_lib.parse(
    ["main", f"--config={ROOT}/configs/motion.py:published,bottleneck=vq"]
  ).config
  model = models.build(config.model.to_dict())
  trainable, _ = trees.split(jax.eval_shape(model.init, rng.key(0, "init")), model.frozen)
  assert optimizer.count(trainable) == 121_210_944


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)])
def test_the_step_lowers_for_eight_devices(published, shape):
  config, model, _ = published
  mesh = mesh_lib.make(data=shape[0], fsdp=shape[1], tensor=shape[2])
  objective = objectives.build(objectives.active(config.objectives))
  tx, rate = optimizer.from_section(config.train)
  now = jax.eval_shape(
    lambda key: state.create(model.init(key), tx, frozen=model.frozen, ema=False),
    rng.key(0, "init"),
  )
  train = step.TrainStep(
    lambda params, batch, key: objective(model.forward(params, batch, key=key), batch),
    tx,
    step.StepOptions(weights=objective.weights, frozen=model.frozen, seed=0, lr_schedule=rate),
    mesh=mesh,
    state=now,
  )
  batch = {
    name: jax.ShapeDtypeStruct(spec.shape, spec.dtype)
    for name, spec in model.inputs_spec(
      config.train.batch_size, config.data.frames, jittered=True
    ).items()
  }
  assert batch["frames"].shape == (256, 2, 224, 224, 3) and batch["jittered"].shape == (
    256,
    1,
    224,
    224,
    3,
  )
  text = train.lower(now, batch).as_text()
  assert "sdy.mesh" in text or "mhlo.sharding" in text
  assert "num_partitions = 8" in text
  # the state is donated
  assert (
    text.count("tf.aliasing_output") + text.count("jax.buffer_donor")
    >= len(jax.tree.leaves(now)) - 1
  )


GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "shardings_published.json"


def sharding_tables(params):
  meshes = {"1x8x1": (1, 8, 1), "2x2x2": (2, 2, 2)}
  return {
    name: rules.table(params, mesh_lib.make(data=d, fsdp=f, tensor=t))
    for name, (d, f, t) in meshes.items()
  }


def test_golden_shardings(published):
  assert sharding_tables(published[2]) == json.loads(GOLDEN.read_text())


def test_no_large_leaf_is_replicated(published):
  _, _, params = published
  table = sharding_tables(params)["1x8x1"]
  for name, leaf in trees.flatten(params).items():
    if leaf.size * jnp.dtype(leaf.dtype).itemsize > 4 * 2**20:
      assert any(table[name]), f"{name} {leaf.shape} is on every device"
