"""The step: sharded as single, accumulated as whole, frozen parts untouched, compiled once."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules
from como_jax.train import step
from tests import toy

MESHES = [(8, 1, 1), (1, 8, 1), (2, 4, 1), (2, 2, 2)]


def run(shape=(1, 1, 1), *, steps=3, tx=None, accumulate=1, ema=0.0, weights=toy.WEIGHTS):
  data, fsdp, tensor = shape
  mesh = mesh_lib.make(data=data, fsdp=fsdp, tensor=tensor, devices=jax.devices()[:data * fsdp * tensor])
  tx = tx or optax.sgd(0.1)
  now = toy.fresh(tx, ema=ema > 0)
  now = jax.device_put(now, rules.shardings(now, mesh))
  train = step.build(toy.loss, tx, weights=weights, frozen=toy.FROZEN, seed=0, mesh=mesh, state=now, accumulate=accumulate, ema=ema)
  history = []
  for i in range(steps):
    now, metrics = train(now, jax.device_put(toy.batch(i), mesh_lib.batch_sharding(mesh)))
    history.append({k: float(v) for k, v in metrics.items()})
  return now, history, train


@pytest.mark.parametrize("shape", MESHES)
def test_sharded_equals_single(shape):
  # SGD, not Adam: Adam divides noise by noise and amplifies reduction order.
  single, history, _ = run()
  sharded, other, _ = run(shape)
  chex.assert_trees_all_close(jax.device_get(sharded.params), jax.device_get(single.params), atol=1e-6)
  np.testing.assert_allclose([h["loss"] for h in other], [h["loss"] for h in history], atol=1e-6)


def test_parameters_are_really_sharded():
  now, _, _ = run((1, 8, 1))
  kernel = now.params["head"]["kernel"]
  assert rules.spec("head/kernel", kernel.shape, kernel.sharding.mesh, small=0) == jax.sharding.PartitionSpec(None, "fsdp")


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_equals_whole_batch_even_with_uneven_masks(accumulate):
  whole, a, _ = run(steps=2)
  parts, b, _ = run(steps=2, accumulate=accumulate)
  chex.assert_trees_all_close(parts.params, whole.params, atol=1e-6)
  np.testing.assert_allclose(b[1]["error"], a[1]["error"], atol=1e-6)


def test_frozen_leaves_keep_their_bits_and_have_no_optimiser_state():
  tx, _ = toy.optimiser()
  now, _, _ = run(tx=tx)
  chex.assert_trees_all_equal(now.params["encoder"], toy.params()["encoder"])
  assert not any("encoder" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(now.opt_state))
  assert not np.allclose(now.params["head"]["kernel"], toy.params()["head"]["kernel"])


def test_one_trace_in_five_steps():
  traced = []
  def counting(params, batch, key):
    traced.append(1)
    return toy.loss(params, batch, key)
  mesh = mesh_lib.make(data=1, devices=jax.devices()[:1])
  tx = optax.sgd(0.1)
  now = jax.device_put(toy.fresh(tx), rules.shardings(toy.fresh(tx), mesh))
  train = step.build(counting, tx, weights=toy.WEIGHTS, frozen=toy.FROZEN, seed=0, mesh=mesh, state=now)
  for i in range(5):
    now, _ = train(now, jax.device_put(toy.batch(i), mesh_lib.batch_sharding(mesh)))
  assert len(traced) == 1


def test_terms_without_weight_are_logged_and_train_nothing():
  _, history, _ = run(steps=1, weights={"size": 1.0})
  assert history[0]["loss"] == pytest.approx(history[0]["size"])
  assert history[0]["error"] > 0


def test_total_is_the_weighted_sum_of_means():
  terms = {"a": (jnp.asarray(6.0), jnp.asarray(3.0)), "b": (jnp.asarray(1.0), jnp.asarray(0.0)), "c": (jnp.asarray(9.0), jnp.asarray(1.0))}
  assert float(step.total(terms, {"a": 2.0, "b": 1.0})) == pytest.approx(5.0)  # an empty count counts as one: no nan


def test_ema_follows_with_its_decay():
  now, _, _ = run(steps=1, ema=0.75)
  start, end = toy.params()["head"]["kernel"], now.params["head"]["kernel"]
  np.testing.assert_allclose(now.ema["head"]["kernel"], 0.75 * start + 0.25 * end, atol=1e-7)


def test_overfits_one_batch():
  tx, _ = toy.optimiser(steps=300, schedule="constant", clip_norm=0.0)
  mesh = mesh_lib.make(data=1, devices=jax.devices()[:1])
  now = toy.fresh(tx)
  train = step.build(toy.loss, tx, weights={"error": 1.0}, frozen=toy.FROZEN, seed=0, mesh=mesh, state=now)
  losses = []
  for _ in range(300):
    now, metrics = train(now, toy.batch(0))
    losses.append(float(metrics["error"]))
  assert losses[-1] < losses[0] / 20
