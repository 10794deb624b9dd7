"""Operations counted in traces, against their formulas."""

import jax
import jax.numpy as jnp

from como_jax.parallel import flops

X, W = jnp.ones((4, 8)), jnp.ones((5, 8, 8))
ONE = 2 * 4 * 8 * 8  # a product of X with a layer of W


def count(function, *arguments):
  return flops.count(jax.jit(function).trace(*arguments).jaxpr)


def scanned(w, x, keep=True):
  def layer(c, w):
    y = jnp.tanh(c @ w)
    return y, (y @ w if keep else None)

  return jax.lax.scan(layer, x, w)


def test_products_convolutions_and_what_nobody_reads():
  assert count(lambda x, w: x @ w[0], X, W) == ONE
  assert count(lambda x, w: (x @ w[0], x @ w[1])[0], X, W) == ONE
  image, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 7))

  def convolution(x, k):
    return jax.lax.conv_general_dilated(
      x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  assert count(convolution, image, kernel) == 2 * (2 * 8 * 8 * 7) * 27

  def grouped(x, k):
    return jax.lax.conv_general_dilated(
      x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
    )

  assert count(grouped, image, jnp.ones((3, 3, 1, 3))) == 2 * (2 * 8 * 8 * 3) * 9


def test_loops_derivatives_and_recomputation():
  assert count(lambda w, x: scanned(w, x), W, X) == 10 * ONE
  assert count(lambda w, x: scanned(w, x)[0], W, X) == 5 * ONE  # the second results are dropped

  def plain(w, x):
    return scanned(w, x, keep=False)[0].sum()

  # forward, and two products backward a layer
  assert count(jax.grad(plain), W, X) == 15 * ONE - ONE + ONE

  def saved(w, x):
    return jax.lax.scan(jax.checkpoint(lambda c, w: (jnp.tanh(c @ w), None)), x, w)[0].sum()

  assert count(jax.grad(saved), W, X) == 20 * ONE


def test_a_carry_counts_when_a_later_turn_needs_it():
  def body(carry, w):
    a, b = carry
    return (b, a @ w), None

  assert count(lambda w, x: jax.lax.scan(body, (x, x), w)[0][0], W, X) == 5 * ONE
  assert (
    count(lambda w, x: jax.lax.cond(x[0, 0] > 0, lambda: x @ w[0] @ w[1], lambda: x @ w[0]), W, X)
    == 2 * ONE
  )
