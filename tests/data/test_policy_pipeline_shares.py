"""Shares of a cap among data sets."""

import pytest

from como_jax.data import policy_pipeline


@pytest.mark.parametrize(
  "counts, most, expected",
  [
    ([5, 9, 2], None, [5, 9, 2]),
    ([5, 9, 2], 99, [5, 9, 2]),
    ([5, 9, 2], 16, [5, 9, 2]),
    ([5, 9, 2], 9, [3, 4, 2]),
    ([5, 9, 2], 12, [5, 5, 2]),
    ([5, 9, 2], 15, [5, 8, 2]),
    ([4, 4], 5, [2, 3]),
    ([0, 7], 4, [0, 4]),
    ([5, 9, 2], 1, [0, 1, 0]),
  ],
)
def test_shares_of_a_cap(counts, most, expected):
  assert policy_pipeline._equal_shares(counts, most) == expected
