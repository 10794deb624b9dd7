"""What is given to a metric is checked and converted."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.evaluate import arrays


def test_what_does_not_fit_is_named():
  for call, message in (
    (lambda: arrays.finite(np.zeros(3), "x"), r"^x has shape \(3,\), expected two axes"),
    (
      lambda: arrays.finite(np.array([[np.inf, np.nan, 0], [0, 0, np.nan], [0, 0, 0]]), "x"),
      "^x has 2 of 3 rows with nan or infinity",
    ),
    (
      lambda: arrays.check(np.zeros((3, 1)), np.zeros(2), np.zeros(3), None),
      "hold 3, 2 and 3 samples",
    ),
    (
      lambda: arrays.check(np.zeros((2, 1)), np.zeros(2), np.zeros(3), None),
      "hold 2, 2 and 3 samples",
    ),
    (
      lambda: arrays.check(np.zeros((2, 1)), np.zeros(2), np.zeros(2), ("a", "b")),
      "^2 names for 1 target dimensions: a, b$",
    ),
  ):
    with pytest.raises(errors.UserError, match=message):
      call()


def test_what_fits_is_converted():
  z, targets, _, names = arrays.check([[1], [2]], [3, 4], [0, 1], None)
  assert (
    z.dtype == targets.dtype == np.float64
    and targets.tolist() == [[3], [4]]
    and names == ("dimension 0",)
  )
