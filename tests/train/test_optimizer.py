"""Schedules and masks by value."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from como_jax import errors
from como_jax.train import optimizer
from tests import toy


def rate(**changes):
  settings = dict(
    kind="linear", learning_rate=1e-4, steps=1000, floor=0.1, warmup_steps=0, warmup_start=0.0
  )
  return optimizer.learning_rate_schedule(**{**settings, **changes})


def test_released_schedule_is_linear_to_a_tenth():
  np.testing.assert_allclose(
    [rate()(s) for s in (0, 500, 1000, 5000)], [1e-4, 0.55e-4, 1e-5, 1e-5], rtol=1e-5
  )


def test_moto_schedule_warms_up_from_half_and_is_a_cosine_to_half():
  moto = rate(kind="cosine", floor=0.5, warmup_steps=100, warmup_start=0.5)
  np.testing.assert_allclose(
    [moto(s) for s in (0, 50, 100, 550, 1000)], [0.5e-4, 0.75e-4, 1e-4, 0.75e-4, 0.5e-4], rtol=1e-5
  )


def test_unknown_names_are_refused_with_the_nearest():
  with pytest.raises(errors.UserError, match="linear"):
    rate(kind="liner")
  with pytest.raises(errors.UserError, match="adamw"):
    toy.make_optimizer(name="adamW2")


def test_weight_decay_touches_kernels_only():
  tx, _ = toy.make_optimizer(
    name="adamw", weight_decay=0.5, schedule="constant", learning_rate=0.1, clip_norm=0.0
  )
  params = {
    "blocks": {"kernel": jnp.ones((2, 3, 3)), "bias": jnp.ones((2, 3))},
    "codebook": jnp.ones((4, 2)),
    "norm": {"scale": jnp.ones(3)},
  }
  updates, _ = tx.update(dict(zeros(params).items()), tx.init(params), params)
  new = optax.apply_updates(params, updates)
  np.testing.assert_allclose(new["blocks"]["kernel"], 0.95)
  np.testing.assert_allclose(new["codebook"], 0.95)
  np.testing.assert_array_equal(new["blocks"]["bias"], 1.0)
  np.testing.assert_array_equal(new["norm"]["scale"], 1.0)


def zeros(tree):
  return {k: zeros(v) if isinstance(v, dict) else jnp.zeros_like(v) for k, v in tree.items()}


def test_clip_bounds_the_global_norm():
  """Adam forgets the size of a first gradient, so the second step shows it: a large gradient after
  a small one.
  """
  small, large = ({"a": jnp.full(4, value)} for value in (0.1, 10.0))  # norms 0.2 and 20

  def second(clip_norm):
    tx, _ = toy.make_optimizer(clip_norm=clip_norm, schedule="constant")
    _, moments = tx.update(small, tx.init(small), small)
    return float(tx.update(large, moments, small)[0]["a"][0])

  def adam(*grads):  # b1 = 0.9, b2 = 0.99, rate 0.01
    mean = square = 0.0
    for grad in grads:
      mean, square = 0.9 * mean + 0.1 * grad, 0.99 * square + 0.01 * grad**2
    return -0.01 * (mean / (1 - 0.9 ** len(grads))) / (square / (1 - 0.99 ** len(grads))) ** 0.5

  # 4 numbers of 0.25 have the norm 0.5
  assert second(0.5) == pytest.approx(adam(0.1, 0.25), rel=1e-4)
  assert second(0.0) == pytest.approx(adam(0.1, 10.0), rel=1e-4)  # 0 = none
  assert abs(second(0.5) - second(0.0)) > 1e-4


@pytest.mark.parametrize("name, decay", [("adam", 0.0), ("adamw", 0.5)])
def test_every_setting_of_the_optimizer_is_used(name, decay):
  """Two steps by hand; each setting is not the library's default and changes the result."""
  tx, rate = toy.make_optimizer(
    name=name,
    learning_rate=0.1,
    b1=0.5,
    b2=0.75,
    eps=0.25,
    weight_decay=0.5,
    clip_norm=0.0,
    steps=4,
    floor=0.5,
  )
  params = {"kernel": jnp.asarray([3.0])}
  moments, mean, square, x = tx.init(params), 0.0, 0.0, 3.0
  for i, grad in enumerate((2.0, -1.0)):
    updates, moments = tx.update({"kernel": jnp.asarray([grad])}, moments, params)
    params = optax.apply_updates(params, updates)
    mean, square = 0.5 * mean + 0.5 * grad, 0.75 * square + 0.25 * grad**2
    step = mean / (1 - 0.5 ** (i + 1)) / ((square / (1 - 0.75 ** (i + 1))) ** 0.5 + 0.25)
    x -= float(rate(i)) * (step + decay * x)
  assert float(params["kernel"][0]) == pytest.approx(x, rel=1e-5)
  np.testing.assert_allclose([rate(i) for i in (0, 2, 4)], [0.1, 0.075, 0.05], rtol=1e-5)


def test_a_warm_up_as_long_as_the_run():
  found = rate(steps=10, warmup_steps=10, warmup_start=0.5)
  np.testing.assert_allclose([found(step) for step in (0, 10, 11)], [0.5e-4, 1e-4, 1e-5], rtol=1e-5)
  np.testing.assert_allclose(
    [rate(kind="constant", floor=0.5)(step) for step in (0, 1000)], [1e-4, 1e-4], rtol=1e-6
  )


def test_unknown_names_are_one_line_that_names_the_key():
  for make, message in (
    (
      lambda: rate(kind="liner"),
      "config.train.optimizer.schedule='liner' is unknown: did you mean 'linear'?",
    ),
    (
      lambda: toy.make_optimizer(name="sgd"),
      "config.train.optimizer.name='sgd' is unknown: valid: adam, adamw",
    ),
  ):
    with pytest.raises(errors.UserError) as caught:
      make()
    assert str(caught.value).startswith(message)


def test_numbers_are_counted():
  assert optimizer.count({"a": np.zeros((2, 3)), "b": [np.zeros(4), np.zeros(())]}) == 11
