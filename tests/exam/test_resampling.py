"""Draws of whole groups."""

import numpy as np

from como_jax.exam import resampling
from tests.exam.made_errors import GROUPS


def test_draws_are_the_same_for_the_same_seed():
  one, two = (resampling.groups_of(GROUPS, seed=3, resamples=10).counts for _ in range(2))
  np.testing.assert_array_equal(one, two)
  assert (one.sum(axis=1) == 200).all() and (
    one != resampling.groups_of(GROUPS, seed=4, resamples=10).counts
  ).any()
