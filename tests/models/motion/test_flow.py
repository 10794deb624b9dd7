"""Optical flow: known shifts of known pictures."""

import chex
import jax
import numpy as np
import pytest
from scipy import ndimage

from como_jax.models.motion import flow

FLOW = jax.jit(lambda first, second: flow.optical_flow(first / 255, second / 255))


def texture(seed, size=96):
  noise = ndimage.gaussian_filter(
    np.random.default_rng(seed).normal(size=(size, size, 3)), (2, 2, 0)
  )
  return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


@pytest.mark.parametrize("right, down", [(3, -2), (-5, 4), (0, 0)])
def test_flow_finds_a_shift(right, down):
  picture = texture(0)
  first, second = picture[16:80, 16:80], picture[16 - down : 80 - down, 16 - right : 80 - right]
  found = FLOW(np.stack([first, first]), np.stack([second, first]))
  chex.assert_shape(found, (2, 64, 64, 2))
  np.testing.assert_allclose(
    np.median(found[0, 10:-10, 10:-10], axis=(0, 1)), [right, down], atol=0.15
  )
  assert np.abs(found[1]).max() < 1e-3


def test_flow_is_zero_where_nothing_is_to_be_seen():
  flat = np.full((2, 64, 64, 3), 90, np.uint8)
  assert np.abs(FLOW(flat, flat + 0)).max() == 0


def test_cells_are_means_of_squares():
  moved = np.arange(2 * 8 * 8 * 2, dtype=np.float32).reshape(2, 8, 8, 2)
  found = flow.mean_per_cell(moved, 4)
  chex.assert_shape(found, (2, 16, 2))
  np.testing.assert_allclose(found[1, 5], moved[1, 2:4, 2:4].mean(axis=(0, 1)))
