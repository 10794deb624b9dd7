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


def test_cosines_by_hand():
  past = np.array([[1.0, 0], [0, 2], [3, 0], [1, 1], [0, 1]])
  future = np.array([[2.0, 0], [1, 0], [-1, 0], [1, 0], [0, 5]])
  found = consistency.s_pcfc(past, future, bins=4)
  values = np.array([1, 0, -1, 0.5**0.5, 1])
  np.testing.assert_allclose(found.values, values, atol=1e-12)
  assert (
    (found.mean, found.std) == pytest.approx((values.mean(), values.std()))
    and found.zeros == 0
    and found.text == "5 pairs"
  )
  assert (
    found.quartiles == pytest.approx((0, 0.5**0.5, 1))
    and found.histogram.tolist() == [1, 0, 1, 3]
    and found.edges.tolist() == [-1, -0.5, 0, 0.5, 1]
  )
  center = np.concatenate([past, future]).mean(0)
  a, b = past - center, future - center
  cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
  assert found.mean_centered == pytest.approx(cosine.mean())
  whole = consistency.s_pcfc(past, future)
  assert (
    len(whole.histogram) == 40
    and len(whole.edges) == 41
    and (whole.edges[0], whole.edges[-1]) == (-1, 1)
  )


@pytest.mark.parametrize("length, kept", [(2e-8, True), (0.9e-8, False)])
def test_short_latents_have_no_direction(length, kept):
  z = np.eye(4)
  short = z.copy()
  short[0] *= length
  found = consistency.s_pcfc(z, short)
  assert (found.zeros, len(found.values)) == ((0, 4) if kept else (1, 3))
  assert found.text == (
    "4 pairs" if kept else "3 pairs; 1 more left out: a latent of length zero has no direction"
  )
  assert consistency.s_pcfc(z, short * 3, floor=0.5).zeros == 1  # relative to the usual length
  nothing = consistency.s_pcfc(0 * z, 0 * z)
  assert (
    nothing.quartiles == pytest.approx((np.nan,) * 3, nan_ok=True) and nothing.histogram.sum() == 0
  )


def test_ranks_by_hand():
  z = np.array([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]]) + [5, 0, 0]
  found = consistency.effective_rank(z)
  share = np.array([8, 2]) ** 0.5 / (8**0.5 + 2**0.5)
  np.testing.assert_allclose(found.singular_values, [8**0.5, 2**0.5, 0], atol=1e-12)
  assert (found.entropy, found.participation, found.dimensions) == pytest.approx(
    (np.exp(-(share * np.log(share)).sum()), 100 / 68, 3)
  )
  whole = consistency.effective_rank(z, center=False)
  np.testing.assert_allclose(whole.singular_values, [(4 * 25 + 8) ** 0.5, 2**0.5, 0], atol=1e-12)
  for size, kept in ((2e-7, True), (0.5e-7, False)):  # of the length of all
    values = consistency.effective_rank(
      np.array([[1.0, 0], [-1, 0], [0, size], [0, -size]])
    ).singular_values
    assert (values > 0).tolist() == [True, kept]


def test_principal_axes_by_hand():
  z = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]]) + [7, 7]
  points, share = consistency.principal_components(z)
  np.testing.assert_allclose(np.abs(points), [[3, 0], [3, 0], [0, 1], [0, 1]], atol=1e-12)
  np.testing.assert_allclose(share, [0.9, 0.1])
  points, share = consistency.principal_components(z, 3)
  assert points.shape == (4, 3) and not points[:, 2].any() and share[2] == 0
  assert not consistency.principal_components(np.ones((3, 2)))[1].any()
  assert consistency.principal_components(z, 1)[0].shape == (4, 1)
