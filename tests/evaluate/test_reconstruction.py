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


def frames(*levels, size=12):
  return np.stack([np.full((size, size, 3), level, np.float64) for level in levels])


def test_errors_of_frames_by_hand():
  target, current = frames(0.5, 0.5), frames(0.5, 0.5)
  # 12 of 144 pixels move; one of 144 in one channel
  current[0, :3, :4], current[1, 0, 0, 1] = 0.4, 0.551
  predicted = target.copy()
  predicted[0, :6] += 0.2
  found = reconstruction.measure(predicted, target, current=current)
  np.testing.assert_allclose(found["mse"], [0.02, 0])
  np.testing.assert_allclose(found["copy_mse"], [0.01 * 12 / 144, 0.051**2 / 432])
  np.testing.assert_allclose(found["psnr"], [-10 * np.log10(0.02), 100])
  np.testing.assert_allclose(found["copy_psnr"], -10 * np.log10(found["copy_mse"]))
  np.testing.assert_allclose(found["moving_error"], [0.04 * 36, 0], atol=1e-12)
  np.testing.assert_allclose(found["moving_copy_error"], [0.01 * 36, 0.051**2])
  assert (
    found["moving_values"].tolist() == [36, 3]
    and found["values"].tolist() == [432, 432]
    and found["threshold"].tolist() == [0.05] * 2
  )
  np.testing.assert_allclose(found["ssim"], [reconstruction.ssim(predicted[:1], target[:1])[0], 1])
  np.testing.assert_allclose(found["copy_ssim"], reconstruction.ssim(current, target))
  result = reconstruction.summarize([found])
  assert (result.mse, result.psnr, result.ratio) == pytest.approx(
    (0.01, (100 - 10 * np.log10(0.02)) / 2, 0.01 / found["copy_mse"].mean())
  )
  assert (result.moving_mse, result.moving_copy_mse) == pytest.approx(
    (0.04 * 36 / 39, (0.36 + 0.051**2) / 39)
  )
  assert result.moving_ratio == pytest.approx(
    result.moving_mse / result.moving_copy_mse
  ) and result.moving_fraction == pytest.approx(39 / 864)
  assert (
    result.text
    == (
      "2 images, values in [0, 1]; moving: |target - current| > 0.05 in any channel; PSNR "
      "capped at 100 dB"
    )
    and result.images == 2
  )
  assert reconstruction.compare(predicted, target, current=current) == result
  half = reconstruction.compare(predicted, target, current=current, threshold=0.0625)
  assert (
    half.moving_fraction == pytest.approx(36 / 864)
    and half.threshold == 0.0625
    and "> 0.0625 in" in half.text
  )
  exact = reconstruction.measure(frames(0.5), frames(0.5), current=frames(0.25), threshold=0.25)
  assert not exact["moving_values"].any()  # by more than the threshold


def test_sizes_that_have_a_structure():
  for height, width, known in ((11, 11, True), (10, 11, False), (11, 10, False)):
    image = np.full((1, height, width, 3), 0.5)
    found = reconstruction.measure(image, image, current=image)
    assert np.isnan(found["ssim"][0]) == np.isnan(found["copy_ssim"][0]) != known
  with pytest.raises(
    errors.UserError, match="^images are 11x10, expected at least 11x11 for SSIM$"
  ):
    reconstruction.ssim(np.zeros((1, 11, 10, 3)), np.zeros((1, 11, 10, 3)))


def test_what_is_no_image():
  good = frames(0.5)
  for what, given, message in (
    ("target", frames(1.0005), None),
    ("target", frames(1.002), "^target spans 1 to 1"),
    ("current", frames(-0.002), "^current spans"),
    ("current", frames(-0.0005), None),
    ("predicted", frames(1.7), None),
    ("predicted", frames(np.nan), "^predicted spans nan"),
    ("target", good[0], r"^target has shape \(12, 12, 3\), expected"),
    ("current", frames(0.5, 0.5), "have shapes"),
  ):
    given = {"predicted": good, "target": good, "current": good} | {what: given}
    current = given.pop("current")
    if message is None:
      reconstruction.measure(**given, current=current)
      continue
    with pytest.raises(errors.UserError, match=message):
      reconstruction.measure(**given, current=current)
  clipped = reconstruction.measure(frames(1.7), frames(1.0), current=good)
  assert clipped["mse"].tolist() == [0.0] and reconstruction._unit(
    np.full((1, 1, 1, 1), 51, np.uint8), "x"
  ) == pytest.approx(0.2)


def test_batches_of_one_threshold():
  batch = reconstruction.measure(frames(0.1), frames(0.5), current=frames(0.3))
  with pytest.raises(errors.UserError, match="different thresholds"):
    reconstruction.summarize([batch, batch | {"threshold": np.array([0.06])}])
  for none in ([], [{name: value[:0] for name, value in batch.items()}]):
    with pytest.raises(errors.UserError, match="^no images to score"):
      reconstruction.summarize(none)
  assert reconstruction._ratio(1.0, 2.0) == 0.5 and np.isnan(reconstruction._ratio(1.0, 0.0))
