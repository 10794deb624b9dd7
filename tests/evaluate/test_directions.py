"""Directions of latents."""

import numpy as np

from como_jax.evaluate import directions


def test_short_rows_have_no_direction():
  np.testing.assert_allclose(
    directions.of_rows(np.array([[3.0, 4], [1e-9, 0], [0, 2e-8], [1, 0]])),
    [[0.6, 0.8], [0, 0], [0, 1], [1, 0]],
  )
