"""Ground truths of S-PCFC and effective rank."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.evaluate import consistency


def test_second_frame_encoder_is_exactly_one():
  """Z = encoding of the second frame: past-to-current and future-to-current are the same vector."""
  frames = np.random.default_rng(0).normal(size=(3, 50, 16)).astype(np.float32)

  def encode(first, second):
    return second

  result = consistency.s_pcfc(encode(frames[0], frames[1]), encode(frames[2], frames[1]))
  assert abs(result.mean - 1) < 1e-12 and result.std < 1e-12 and result.quartiles[0] > 1 - 1e-12
  assert result.histogram[-1] == 50 == result.histogram.sum()


def test_reversed_motion_is_minus_one():
  z = np.random.default_rng(0).normal(size=(50, 16))
  assert abs(consistency.s_pcfc(z, -2 * z).mean + 1) < 1e-12


def test_independent_latents_are_near_zero():
  z = np.random.default_rng(0).normal(size=(2, 2000, 16))
  result = consistency.s_pcfc(*z)
  assert abs(result.mean) < 0.02 and abs(result.std - 0.25) < 0.02  # 1 / sqrt(16)


def test_zero_latents_are_left_out_and_counted():
  z = np.random.default_rng(0).normal(size=(10, 4))
  other = z.copy()
  other[:3] = 0
  result = consistency.s_pcfc(z, other)
  assert (
    result.zeros == 3
    and len(result.values) == 7
    and abs(result.mean - 1) < 1e-12
    and "3 more" in result.text
  )
  nothing = consistency.s_pcfc(np.zeros((5, 4)), np.zeros((5, 4)))
  assert np.isnan(nothing.mean) and nothing.zeros == 5 and len(nothing.values) == 0


def test_centring_reveals_a_constant_offset():
  z = np.random.default_rng(0).normal(size=(500, 8))
  result = consistency.s_pcfc(z + 100, -z + 100)
  assert result.mean > 0.99 and result.mean_centered < -0.99


def test_collapsed_latents_have_no_centered_value():
  z = np.full((20, 4), 0.1, np.float32)
  result = consistency.s_pcfc(z, z)
  assert abs(result.mean - 1) < 1e-12 and np.isnan(result.mean_centered)


def test_effective_rank_of_isotropic_and_rank_one():
  rng = np.random.default_rng(0)
  isotropic = consistency.effective_rank(rng.normal(size=(20000, 6)))
  assert (
    abs(isotropic.entropy - 6) < 0.05
    and abs(isotropic.participation - 6) < 0.05
    and isotropic.dimensions == 6
  )
  padded = consistency.effective_rank(np.pad(rng.normal(size=(20000, 6)), ((0, 0), (0, 10))))
  assert abs(padded.entropy - 6) < 0.05 and padded.dimensions == 16
  one = consistency.effective_rank(
    (rng.normal(size=(200, 1)) * rng.normal(size=(1, 9)) + 4).astype(np.float32)
  )
  assert abs(one.entropy - 1) < 1e-3 and abs(one.participation - 1) < 1e-3
  constant = consistency.effective_rank(np.full((50, 5), 0.1, np.float32))
  assert constant.entropy == 0 == constant.participation


def test_effective_rank_follows_the_formulas():
  deviations = np.array([4.0, 2.0, 1.0])
  z = np.random.default_rng(0).normal(size=(200000, 3)) * deviations
  share = deviations / deviations.sum()
  result = consistency.effective_rank(z)
  np.testing.assert_allclose(result.entropy, np.exp(-(share * np.log(share)).sum()), rtol=1e-2)
  np.testing.assert_allclose(result.participation, 21.0**2 / (256 + 16 + 1), rtol=2e-2)


def test_principal_components():
  z = np.random.default_rng(0).normal(size=(100, 5)) * np.array([5, 1, 0, 0, 0])
  points, share = consistency.principal_components(z)
  np.testing.assert_allclose(abs(points), abs(z - z.mean(axis=0))[:, :2], atol=1.0)
  assert points.shape == (100, 2) and share[0] > 0.9 and abs(share.sum() - 1) < 1e-9
  assert consistency.principal_components(np.ones((4, 1)))[0].shape == (4, 2)


def test_bad_input():
  with pytest.raises(errors.UserError, match="expected the same"):
    consistency.s_pcfc(np.zeros((3, 2)), np.zeros((4, 2)))
  with pytest.raises(errors.UserError, match="1 of 3"):
    consistency.effective_rank(np.array([[1, 2], [np.inf, 1], [0, 0]]))
