"""Known values of MSE, PSNR and SSIM, and an independent SSIM."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.evaluate import reconstruction


def _images(count=3, size=20, seed=0):
  return np.random.default_rng(seed).uniform(size=(count, size, size, 3))


def _naive_ssim(a, b):
  """Wang et al. 2004 window by window with a two-dimensional kernel, for one channel."""
  y, x = np.mgrid[-5:6, -5:6]
  kernel = np.exp(-(x**2 + y**2) / (2 * 1.5**2))
  kernel /= kernel.sum()
  values = []
  for i in range(a.shape[0] - 10):
    for j in range(a.shape[1] - 10):
      p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
      mp, mq = (kernel * p).sum(), (kernel * q).sum()
      vp, vq = (kernel * (p - mp) ** 2).sum(), (kernel * (q - mq) ** 2).sum()
      cov = (kernel * (p - mp) * (q - mq)).sum()
      values.append(
        (2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4))
      )
  return np.mean(values)


def test_identical_images():
  images = _images()
  assert (reconstruction.psnr(images, images) == reconstruction.PSNR_CAP).all()
  np.testing.assert_allclose(reconstruction.ssim(images, images), 1.0, atol=1e-12)


def test_constant_offset_has_closed_forms():
  flat = np.full((2, 16, 16, 3), 0.5)
  np.testing.assert_allclose(reconstruction.psnr(flat + 0.1, flat), 20.0)
  np.testing.assert_allclose(
    reconstruction.ssim(flat + 0.1, flat), (2 * 0.6 * 0.5 + 1e-4) / (0.36 + 0.25 + 1e-4)
  )


def test_ssim_equals_a_naive_implementation():
  first = _images(1)
  second = np.clip(first + 0.2 * _images(1, seed=1) - 0.1, 0, 1)
  want = np.mean([_naive_ssim(first[0, ..., c], second[0, ..., c]) for c in range(3)])
  np.testing.assert_allclose(reconstruction.ssim(first, second), [want], rtol=1e-9)


def test_copying_has_ratio_one_and_the_truth_zero():
  current, target = _images(), _images(seed=1)
  copied = reconstruction.compare(current, target, current=current)
  assert (
    copied.ratio == 1 == copied.moving_ratio
    and copied.psnr == copied.copy_psnr
    and copied.ssim == copied.copy_ssim
  )
  perfect = reconstruction.compare(target, target, current=current)
  assert perfect.ratio == 0 and perfect.psnr == 100 and abs(perfect.ssim - 1) < 1e-12


def test_moving_pixels_only():
  """A patch moves by 0.5; the prediction is right there and wrong by 0.01 on the background."""
  current = np.full((2, 16, 16, 3), 0.2)
  target = current.copy()
  target[:, :4, :4] += 0.5
  predicted = target.copy()
  predicted[:, 4:] += 0.01
  result = reconstruction.compare(predicted, target, current=current)
  assert result.moving_mse == 0 and result.mse > 0
  np.testing.assert_allclose(result.moving_copy_mse, 0.25)
  np.testing.assert_allclose(result.moving_fraction, 16 / 256)
  np.testing.assert_allclose(result.copy_mse, 0.25 * 16 / 256)


def test_nothing_moves():
  still = np.full((1, 12, 12, 3), 0.3)
  result = reconstruction.compare(still, still, current=still)
  assert np.isnan(result.ratio) and np.isnan(result.moving_mse) and result.moving_fraction == 0


def test_batches_add_up_and_uint8_equals_float():
  current, target, predicted = ((_images(5, seed=seed) * 255).astype(np.uint8) for seed in range(3))
  whole = reconstruction.compare(predicted, target, current=current)
  parts = [
    reconstruction.measure(predicted[part], target[part], current=current[part])
    for part in (slice(0, 2), slice(2, 5))
  ]
  assert np.isclose(reconstruction.summarize(parts).moving_mse, whole.moving_mse) and np.isclose(
    reconstruction.summarize(parts).mse, whole.mse
  )
  assert np.isclose(
    reconstruction.compare(predicted / 255, target / 255, current=current / 255).ssim, whole.ssim
  )


def test_small_images_have_no_ssim():
  small = _images(2, size=8)
  assert np.isnan(reconstruction.compare(small, small, current=small).ssim)
  with pytest.raises(errors.UserError, match="8x8"):
    reconstruction.ssim(small, small)


@pytest.mark.parametrize(
  "target", [np.full((1, 12, 12, 3), 2.0), np.zeros((2, 12, 12, 3)), np.zeros((12, 12, 3))]
)
def test_bad_input(target):
  good = np.zeros((1, 12, 12, 3))
  with pytest.raises(errors.UserError):
    reconstruction.compare(good, target, current=good)
