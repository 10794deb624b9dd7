"""The step: sharded as single, accumulated as whole, frozen parts untouched, compiled once."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from como_jax import errors
from como_jax.parallel import mesh as mesh_lib
from como_jax.parallel import rules
from como_jax.train import rng, state, step
from tests import toy

MESHES = [(8, 1, 1), (1, 8, 1), (2, 4, 1), (2, 2, 2)]


def run(
  shape=(1, 1, 1),
  *,
  steps=3,
  tx=None,
  accumulate=1,
  ema=0.0,
  weights=toy.WEIGHTS,
  loss=toy.loss,
  seed=0,
  batch=toy.batch,
):
  data, fsdp, tensor = shape
  mesh = mesh_lib.make(
    data=data, fsdp=fsdp, tensor=tensor, devices=jax.devices()[: data * fsdp * tensor]
  )
  tx = tx or optax.sgd(0.1)
  now = toy.fresh(tx, ema=ema > 0)
  now = jax.device_put(now, rules.shardings(now, mesh))
  train = step.TrainStep(
    loss,
    tx,
    step.StepOptions(
      weights=weights, frozen=toy.FROZEN, seed=seed, num_microbatches=accumulate, ema_decay=ema
    ),
    mesh=mesh,
    state=now,
  )
  history = []
  for i in range(steps):
    now, metrics = train(now, jax.device_put(batch(i), mesh_lib.batch_sharding(mesh)))
    history.append({k: float(v) for k, v in metrics.items()})
  return now, history, train


@pytest.mark.parametrize("shape", MESHES)
def test_sharded_equals_single(shape):
  # SGD, not Adam: Adam divides noise by noise and amplifies reduction order.
  single, history, _ = run()
  sharded, other, _ = run(shape)
  chex.assert_trees_all_close(
    jax.device_get(sharded.params), jax.device_get(single.params), atol=1e-6
  )
  np.testing.assert_allclose([h["loss"] for h in other], [h["loss"] for h in history], atol=1e-6)


def test_parameters_are_really_sharded():
  now, _, _ = run((1, 8, 1))
  kernel = now.params["head"]["kernel"]
  assert rules.spec(
    "head/kernel", kernel.shape, kernel.sharding.mesh, small=0
  ) == jax.sharding.PartitionSpec(None, "fsdp")


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_equals_whole_batch_even_with_uneven_masks(accumulate):
  whole, a, _ = run(steps=2, loss=toy.steady)
  parts, b, _ = run(steps=2, accumulate=accumulate, loss=toy.steady)
  chex.assert_trees_all_close(parts.params, whole.params, atol=1e-6)
  np.testing.assert_allclose(b[1]["error"], a[1]["error"], atol=1e-6)


def test_frozen_leaves_keep_their_bits_and_have_no_optimizer_state():
  tx, _ = toy.make_optimizer()
  now, _, _ = run(tx=tx)
  chex.assert_trees_all_equal(now.params["encoder"], toy.params()["encoder"])
  assert not any(
    "encoder" in jax.tree_util.keystr(path)
    for path, _ in jax.tree_util.tree_leaves_with_path(now.opt_state)
  )
  assert not np.allclose(now.params["head"]["kernel"], toy.params()["head"]["kernel"])


def test_one_trace_in_five_steps():
  traced = []

  def counting(params, batch, key):
    traced.append(1)
    return toy.loss(params, batch, key)

  mesh = mesh_lib.make(data=1, devices=jax.devices()[:1])
  tx = optax.sgd(0.1)
  now = jax.device_put(toy.fresh(tx), rules.shardings(toy.fresh(tx), mesh))
  train = step.TrainStep(
    counting,
    tx,
    step.StepOptions(weights=toy.WEIGHTS, frozen=toy.FROZEN, seed=0),
    mesh=mesh,
    state=now,
  )
  for i in range(5):
    now, _ = train(now, jax.device_put(toy.batch(i), mesh_lib.batch_sharding(mesh)))
  assert len(traced) == 1


def test_terms_without_weight_are_logged_and_train_nothing():
  _, history, _ = run(steps=1, weights={"size": 1.0, "error": None})
  assert history[0]["loss"] == pytest.approx(history[0]["size"])
  assert history[0]["error"] > 0


def test_total_is_the_weighted_sum_of_means():
  terms = {
    "a": (jnp.asarray(6.0), jnp.asarray(3.0)),
    "b": (jnp.asarray(1.0), jnp.asarray(0.0)),
    "c": (jnp.asarray(9.0), jnp.asarray(1.0)),
  }
  # an empty count counts as one: no nan
  assert float(step.total(terms, {"a": 2.0, "b": 1.0, "c": None})) == pytest.approx(5.0)
  nothing = step.total(terms, dict.fromkeys(terms))
  assert nothing.shape == () and float(nothing) == 0


@pytest.mark.parametrize(
  "weights, message",
  [
    (
      {"error": 1.0},
      "a term 'size' without a weight: .* None where it is only logged; there are weights of error",
    ),
    (
      {**toy.WEIGHTS, "sise": 1.0},
      "a weight of 'sise', but the loss has no such term: did you mean 'size'",
    ),
    ({}, "a term 'error' without a weight"),
  ],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_weight_and_a_term_belong_together(weights, message, accumulate):
  with pytest.raises(errors.UserError, match=message):
    run(steps=1, weights=weights, accumulate=accumulate)


def test_a_weight_of_zero_trains_nothing_even_where_the_term_is_not_finite():
  def loss(params, batch, key):
    return {
      **toy.loss(params, batch, key),
      "wild": (jnp.log(-1.0 + 0 * params["head"]["out"].sum()), jnp.ones(())),
    }

  now, history, _ = run(steps=1, loss=loss, weights={**toy.WEIGHTS, "wild": 0.0})
  assert np.isfinite(history[0]["loss"]) and np.isnan(history[0]["wild"])
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(now.params))


def test_every_step_has_a_key_of_its_own_from_the_seed():
  """On one batch and with a rate of 0 only the key changes: it is that of the run's seed and the
  step.
  """

  def same(i):
    return toy.batch(0)

  found = {}
  for seed in (0, 1):
    _, history, _ = run(tx=optax.sgd(0.0), seed=seed, batch=same)
    found[seed] = [h["error"] for h in history]
    expected = [
      toy.loss(toy.params(), toy.batch(0), rng.key(seed, "loss", i))["error"] for i in range(3)
    ]
    np.testing.assert_allclose(
      found[seed], [float(total / count) for total, count in expected], rtol=1e-5
    )
  assert len({round(value, 5) for values in found.values() for value in values}) == 6


def test_the_parts_of_an_accumulated_batch_have_keys_of_their_own():
  rows = toy.batch(0, size=8)
  # part 0 and part 1 are the same rows
  twice = {name: np.repeat(value, 2, axis=0) for name, value in rows.items()}
  seen = []

  def loss(params, batch, key):
    jax.debug.callback(lambda bits: seen.append(tuple(bits.tolist())), jax.random.key_data(key))
    return toy.loss(params, batch, key)

  run(steps=1, loss=loss, accumulate=2, batch=lambda i: twice)
  jax.effects_barrier()
  assert len(set(seen)) == 2


def test_ema_follows_with_its_decay():
  now, _, _ = run(steps=1, ema=0.75)
  start, end = toy.params()["head"]["kernel"], now.params["head"]["kernel"]
  np.testing.assert_allclose(now.ema["head"]["kernel"], 0.75 * start + 0.25 * end, atol=1e-7)


def test_overfits_one_batch():
  tx, _ = toy.make_optimizer(steps=300, schedule="constant", clip_norm=0.0)
  mesh = mesh_lib.make(data=1, devices=jax.devices()[:1])
  now = toy.fresh(tx)
  train = step.TrainStep(
    toy.steady,
    tx,
    step.StepOptions(weights={"error": 1.0, "size": None}, frozen=toy.FROZEN, seed=0),
    mesh=mesh,
    state=now,
  )
  losses = []
  for _ in range(300):
    now, metrics = train(now, toy.batch(0))
    losses.append(float(metrics["error"]))
  assert losses[-1] < losses[0] / 20


def test_what_a_step_measures_and_which_constants_it_reads():
  """One weight w, loss (w x - c)^2 of 4 rows with x = 1..4 and c = 2: by hand."""
  tx, mesh = (
    optax.sgd(lambda count: 0.5 * (count + 1)),
    mesh_lib.make(data=1, devices=jax.devices()[:1]),
  )
  now = state.create({"w": jnp.float32(1.0)}, tx, frozen=(), ema=False)
  x = np.arange(1.0, 5.0, dtype=np.float32)

  def loss(params, batch, key, constants):
    return {
      "error": (
        jnp.square(params["w"] * batch["x"] - constants["c"]).sum(),
        jnp.float32(batch["x"].shape[0]),
      ),
      "seen": (constants["c"], jnp.float32(1)),
    }

  def build(constants, **options):
    options = step.StepOptions(weights={"error": 0.5, "seen": None}, frozen=(), seed=0, **options)
    return step.TrainStep(loss, tx, options, mesh=mesh, state=now, constants=constants)

  for accumulate in (1, 2):
    train = build(
      {"c": jnp.float32(2)},
      lr_schedule=lambda count: 0.5 * (count + 1),
      num_microbatches=accumulate,
    )
    after, metrics = train(jax.tree.map(jnp.copy, now), {"x": x})
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(
      {"error": 1.5, "seen": 2.0, "loss": 0.75, "grad_norm": 2.5, "learning_rate": 0.5}
    )
    assert (
      float(after.params["w"]) == pytest.approx(1 - 0.5 * 2.5)
      and int(after.step) == 1
      and after.ema is None
    )
    _, metrics = train(after, {"x": x})
    assert float(metrics["learning_rate"]) == 1.0
  lowered = build({"c": jax.ShapeDtypeStruct((), np.float32)}).lower(now, {"x": x})
  assert "grad_norm" in str(lowered.out_info) and "learning_rate" not in str(lowered.out_info), (
    "shapes of constants are enough"
  )
