"""Parts of the networks that are fitted with labels, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.evaluate import small_network


def test_a_step_clips_the_gradients_and_decays_the_weights():
  state = small_network.start({"a": jnp.array([1.0, 2.0])})
  moved, mean, square, count = small_network.update(state, {"a": jnp.array([30.0, -40.0])}, 0.1)
  np.testing.assert_allclose(mean["a"], [0.06, -0.08], rtol=1e-5)  # of a global norm of 1
  np.testing.assert_allclose(square["a"], [0.00036, 0.00064], rtol=1e-5)
  np.testing.assert_allclose(moved["a"], [1 * 0.998 - 0.1, 2 * 0.998 + 0.1], rtol=1e-5)
  assert count == 1


@pytest.mark.parametrize("count, share", [(0, 0), (50, 0.5), (100, 1), (200, 0.5), (300, 0)])
def test_the_rate_rises_and_falls(count, share):
  rate = small_network.rate(jnp.array(count), 300)
  np.testing.assert_allclose(rate, share * small_network.RATE, atol=1e-9)


def test_the_last_batch_is_filled_up_and_cut():
  sizes = []

  def run(values):
    sizes.append(len(values))
    return 2 * values

  values = np.arange(7.0)[:, None]
  np.testing.assert_array_equal(small_network.batched(run, (values,), size=3), 2 * values)
  assert sizes == [3, 3, 3]


def test_both_pictures_of_a_pair_are_recolored_alike():
  pictures = jnp.ones((2, 4, 4, 3))
  first, second = small_network.recolored(jax.random.key(0), pictures, pictures)
  np.testing.assert_array_equal(first, second)
  assert not np.allclose(first[0], first[1]) and np.ptp(first[0], axis=(0, 1)).max() < 1e-6


def test_layers_by_hand():
  dense = {"kernel": jnp.array([[1.0], [2.0]]), "bias": jnp.array([0.5])}
  np.testing.assert_allclose(small_network.dense(dense, jnp.array([[3.0, 4.0]])), [[11.5]])
  sum_of_nine = {"kernel": jnp.ones((3, 3, 1, 1)), "bias": jnp.array([1.0])}
  found = small_network.convolution(sum_of_nine, jnp.ones((1, 4, 4, 1)), stride=2)
  np.testing.assert_allclose(found[0, :, :, 0], [[10, 7], [7, 5]])
