"""The end of an error message: the nearest valid name, and the valid names."""

import pytest

from como_jax import errors


@pytest.mark.parametrize(
  "name, valid, said",
  [
    ("motoin", ("policy", "motion"), "did you mean 'motion'? (valid: motion, policy)"),
    ("xyz", ("policy", "motion"), "valid: motion, policy"),
    ("xyz", (), "there are none"),
    (3, (30, 4), "did you mean '30'? (valid: 30, 4)"),
    ("?", "abcdefghijkl", "valid: a, b, c, d, e, f, g, h, i, j, k, l"),
    ("?", "abcdefghijklm", "valid: a, b, c, d, e, f, g, h, i, j, k, l, ..."),
  ],
)
def test_the_nearest_name_and_the_first_twelve(name, valid, said):
  assert errors.nearest(name, valid) == said


def test_exit_codes():
  kinds = (
    errors.UserError,
    errors.SharedUserError,
    errors.TransientError,
    errors.RunError,
    errors.StorageError,
  )
  assert [kind.code for kind in kinds] == [2, 2, 75, 1, 1]
