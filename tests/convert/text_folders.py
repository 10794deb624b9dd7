"""The kinds of text encoders, and whether their parameters are the same."""

import numpy as np

from como_jax import trees
from tests.models.text import tiny

KINDS = tuple(tiny.CONFIGS)


def same(params, expected):
  flat, expected = trees.flatten(params), trees.flatten(expected)
  assert set(flat) == set(expected)
  for name, leaf in expected.items():
    np.testing.assert_array_equal(flat[name], leaf, err_msg=name)
