"""Scaling of inputs and distances of samples."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.exam import whitening


def test_whitened_samples_have_equal_directions_and_a_mean_square_of_one():
  random = np.random.default_rng(0)
  loud = random.normal(size=(50, 2)) @ [[100.0, 3.0, 0.0], [0.0, 0.01, 0.02]] + 7.0
  white = whitening.scale_inputs(loud)(loud)
  np.testing.assert_allclose(white.T @ white / 50, np.eye(2) / 2, atol=1e-9)  # rank 2 of 3
  scaling = whitening.scale_inputs(np.array([[1.0, 5.0], [3.0, 5.0]]), whiten=False)
  np.testing.assert_allclose(scaling(np.array([[3.0, 6.0]])), [[1.0, 0.0]])  # 5 is constant


def test_principal_directions_are_the_same_for_wide_and_tall_inputs():
  tall = np.random.default_rng(1).normal(size=(6, 3))
  directions, singular = whitening.principal(tall)
  wide, same = whitening.principal(tall.T)
  np.testing.assert_allclose(singular, np.linalg.svd(tall, compute_uv=False))
  np.testing.assert_allclose(same, singular)
  np.testing.assert_allclose(np.abs(tall @ directions / singular), np.abs(wide), atol=1e-9)


def test_distances_constants_and_what_is_no_table():
  first, second = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[1.0, 1.0]])
  np.testing.assert_allclose(whitening.squared_distance(first, second), [[2.0], [13.0]])
  mean, deviation = whitening.standard(np.array([[1.0, 2.0], [3.0, 2.0]]))
  assert mean.tolist() == [2.0, 2.0] and deviation.tolist() == [1.0, 1.0]
  with pytest.raises(errors.UserError, match="z: 1 of 2 rows hold values that are not finite"):
    whitening.matrix([[1.0], [np.nan]], "z")
  with pytest.raises(errors.UserError, match=r"z: expected two axes .*found \[3\]"):
    whitening.matrix([1.0, 2.0, 3.0], "z")
