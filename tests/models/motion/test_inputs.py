"""What the Q-former is given of two frames."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from como_jax.models.motion import inputs
from tests.models import tiny

KEY = jax.random.key(7)


def test_input_formulas():
  first, second = tiny.frames((1, 5), 3), tiny.frames((1, 5), 4)
  results = {name: variant.make_halves(first, second) for name, variant in inputs.INPUTS.items()}
  chex.assert_trees_all_equal(results["feature_diff"], (first, second - first))
  chex.assert_trees_all_equal(results["none"], (first, second))
  chex.assert_trees_all_equal(results["rgb_diff"], (first, second))
  chex.assert_trees_all_equal(results["future"], (second,))


def test_future_collapses_by_construction():
  model, params = tiny.made(tiny.MOTION, **{"idm.inputs": "future"})
  past, present, future = (tiny.frames((3, 16, 16), seed) for seed in range(3))
  encode = jax.jit(lambda first, second: model.encode(params, first, second).z)
  np.testing.assert_array_equal(encode(past, present), encode(future, present))


def test_shuffle_permutes_each_image_on_its_own():
  tokens = jnp.broadcast_to(jnp.arange(9.0)[None, :, None], (4, 9, 2))
  out = np.asarray(inputs.shuffle_patches(KEY, tokens))[..., 0]
  np.testing.assert_array_equal(np.sort(out, axis=1), tokens[..., 0])
  np.testing.assert_array_equal(out[:, 0], 0)
  assert len({tuple(row) for row in out}) == 4
