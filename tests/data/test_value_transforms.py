"""Named transforms: exact back and forth, each on its own dimensions, through JSON."""

import json

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import value_transforms

# Dimension 0 is scaled, 1 never moves, 2 is a gripper.
CHAIN = (
  value_transforms.Affine((10.0, 0.0, 0.0), (4.0, 1.0, 1.0)),
  value_transforms.Constant((1,), (0.1,)),
  value_transforms.TwoValued((2,), (0.2,), (0.7,)),
)
ROWS = np.float32([[14, 0.1, 0.7], [6, 0.1, 0.2], [10, 9.0, 0.46], [10, -9.0, 0.44]])


def test_by_hand():
  numbers = value_transforms.apply(CHAIN, ROWS)
  assert numbers.dtype == np.float32
  np.testing.assert_array_equal(numbers, [[1, 0, 1], [-1, 0, -1], [0, 0, 1], [0, 0, -1]])


def test_what_comes_back_is_exactly_a_value_of_the_robot():
  back = value_transforms.invert(CHAIN, np.float64([[1, 5, 0.01], [0.5, -5, -0.01], [0, 0, 0]]))
  np.testing.assert_array_equal(back, [[14, 0.1, 0.7], [12, 0.1, 0.2], [10, 0.1, 0.2]])


def test_leading_axes_and_no_change_of_the_given_array():
  given = np.tile(ROWS, (2, 3, 1, 1))
  kept = given.copy()
  np.testing.assert_array_equal(
    value_transforms.apply(CHAIN, given)[1, 2], value_transforms.apply(CHAIN, ROWS)
  )
  np.testing.assert_array_equal(given, kept)


def test_order_and_json():
  stored = json.loads(json.dumps(value_transforms.to_json(CHAIN)))
  assert [one["name"] for one in stored] == ["affine", "constant", "two_valued"]
  assert value_transforms.from_json(stored, where="policy.json") == CHAIN
  first = value_transforms.Affine((1.0,), (2.0,))
  second = value_transforms.Affine((10.0,), (5.0,))
  x = np.array([31.0])
  assert value_transforms.apply((first, second), x) == (((31 - 1) / 2) - 10) / 5
  assert value_transforms.invert((first, second), np.array([1.0])) == (1 * 5 + 10) * 2 + 1


@pytest.mark.parametrize(
  "entry, message",
  [
    (
      {"name": "afine", "shift": [0], "scale": [1]},
      r"^p: action\[0\]: unknown transform 'afine': did you mean 'affine'",
    ),
    (
      {"name": "affine", "shift": [0]},
      r"^p: action\[0\]: transform 'affine' has shift, expected scale, shift$",
    ),
    ({"shift": [0]}, "unknown transform None"),
  ],
)
def test_what_is_stored_wrong_is_named(entry, message):
  with pytest.raises(errors.UserError, match=message):
    value_transforms.from_json([entry], where="p: action")
