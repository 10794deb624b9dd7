"""Operations counted in traces, against their formulas."""

import jax
import jax.numpy as jnp
import pytest

from como_jax.models import attention
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


def test_a_scan_with_constants_a_carry_and_what_it_scans_over_and_stacks():
  """Only the constant `k` and the carry are products' inputs; the stacked results are not read."""

  def body(carry, x):
    a, b = carry
    return (a @ K, b), (b @ K, x)

  K, scalars = jnp.ones((8, 8)), jnp.ones((5,))

  def run(a, b, xs):
    return jax.lax.scan(body, (a, b), xs)

  assert count(lambda a, b, xs: run(a, b, xs)[0][0], X, X, scalars) == 5 * ONE
  assert count(lambda a, b, xs: run(a, b, xs)[0][1], X, X, scalars) == 0
  assert count(run, X, X, scalars) == 10 * ONE


def test_a_frozen_layer_has_no_backward_pass():
  """By hand: forward 2 products; backward 1 for the weight of the trained layer, and where the
  first layer is trained too, 1 for the gradient between the layers and 1 for its weight.
  """

  def loss(frozen, trained, x):
    return (jnp.tanh(x @ frozen) @ trained).sum()

  first, second = W[0], W[1]
  assert count(jax.grad(loss, argnums=1), first, second, X) == (1 + 1) * ONE
  assert count(jax.value_and_grad(lambda t: loss(first, t, X) ** 2), second) == (2 + 1) * ONE
  both = jax.value_and_grad(lambda f, t: loss(f, t, X) ** 2, argnums=(0, 1))
  assert count(both, first, second) == (2 + 3) * ONE


@pytest.mark.parametrize("derivative", [False, True])
@pytest.mark.parametrize("tokens, keys, masked", [(64, 64, False), (24, 420, True)])
def test_fused_attention_of_gpus_counts_as_attention_by_xla(
  tokens, keys, masked, derivative, monkeypatch
):
  # no public way to trace for a cuDNN that is not here
  private = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")

  class Versions:
    cudnn_get_version = staticmethod(lambda: 91000)

  monkeypatch.setattr(private, "cuda_versions", Versions)
  query = jnp.ones((2, tokens, 4, 64), jnp.bfloat16)
  key = jnp.ones((2, keys, 4, 64), jnp.bfloat16)
  mask = jnp.ones((2, 1, 1, keys), bool) if masked else None

  def counted(function):
    def summed(query, key, value):
      return jnp.sum(function(query, key, value, mask).astype(jnp.float32))

    both = jax.value_and_grad(summed, argnums=(0, 1, 2))
    return count(both if derivative else summed, query, key, key)

  product = 2 * 2 * 4 * tokens * keys * 64
  assert counted(attention._xla) == (6 if derivative else 2) * product
  assert counted(attention._cudnn) == counted(attention._xla)
