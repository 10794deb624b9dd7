"""The trunk: pooled patches and dropped instructions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.models.policy import trunk

KEY = jax.random.key(0)


def test_pooled_patches_by_hand():
  tokens = jnp.concatenate(
    [jnp.full((1, 1, 1), 99.0), jnp.arange(16.0).reshape((1, 16, 1))], axis=1
  )
  assert trunk.pool(tokens, 1) is tokens
  np.testing.assert_array_equal(trunk.pool(tokens, 2)[0, :, 0], [99, 2.5, 4.5, 10.5, 12.5])
  np.testing.assert_array_equal(trunk.pool(tokens, 4)[0, :, 0], [99, 7.5])
  mask = jnp.array([[True, False]])
  assert trunk.drop_language(KEY, mask, 0.0) is mask


def test_whole_instructions_are_dropped_at_the_rate_given():
  mask = jnp.array([[True, True, False]] * 4000)
  kept = np.asarray(trunk.drop_language(KEY, mask, 0.2))
  assert (kept[:, 0] == kept[:, 1]).all() and not kept[:, 2].any()
  assert kept[:, 0].mean() == pytest.approx(0.8, abs=0.03)
