"""How well the forward model predicts the target frame: MSE, PSNR and SSIM.

Each metric is compared with a copy of the current frame. With a static background, a copy has very
small errors. So errors are also computed over the moving pixels only, and the important number is
the ratio to the copy.

Legend: N images, H W pixels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from como_jax import errors

PSNR_CAP = 100.0  # dB; identical images have an infinite PSNR, which would make the mean infinite
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # Wang et al. 2004


@dataclasses.dataclass(frozen=True)
class Reconstruction:
  """Means over images, with values in [0, 1].

  Attributes:
    mse: mean squared error.
    psnr: in dB, mean over images, capped at 100.
    ssim: nan for images smaller than 11 pixels.
    copy_mse, copy_psnr, copy_ssim: the same for the current frame as the prediction.
    ratio: mse / copy_mse: below 1 is better than copying.
    moving_mse, moving_copy_mse, moving_ratio: over the moving pixels of all images.
    moving_fraction: share of pixels that move.
    threshold: see `compare`.
    images: number of images.
    text: describes the scores.
  """

  mse: float
  psnr: float
  ssim: float
  copy_mse: float
  copy_psnr: float
  copy_ssim: float
  ratio: float
  moving_mse: float
  moving_copy_mse: float
  moving_ratio: float
  moving_fraction: float
  threshold: float
  images: int
  text: str


def compare(
  predicted: Any, target: Any, *, current: Any, threshold: float = 0.05
) -> Reconstruction:
  """Scores predicted frames.

  Frames are [N, H, W, C], uint8 or floats in [0, 1]. Predictions are clipped to [0, 1].

  Args:
    predicted: predicted frames.
    target: true frames.
    current: frames from which the predictions started.
    threshold: a pixel moves if target and current differ by more than this in any channel.

  Raises:
    errors.UserError: other shapes, or values outside the expected range.
  """
  return summarize([measure(predicted, target, current=current, threshold=threshold)])


def measure(
  predicted: Any, target: Any, *, current: Any, threshold: float = 0.05
) -> dict[str, np.ndarray]:
  """Computes the values of each image of a batch, {name: [N]}, for `summarize`.

  Arguments are as for `compare`.
  """
  predicted, target, current = (
    _unit(x, what)
    for x, what in ((predicted, "predicted"), (target, "target"), (current, "current"))
  )
  if not predicted.shape == target.shape == current.shape:
    raise errors.UserError(
      f"predicted, target and current have shapes {predicted.shape}, {target.shape}, "
      f"{current.shape}, expected the same"
    )
  error, copied = ((x - target) ** 2 for x in (predicted, current))
  moving = (np.abs(target - current).max(axis=-1) > threshold)[..., None]

  def total(x):
    return x.sum(axis=(1, 2, 3))

  small = min(target.shape[1:3]) < WINDOW
  return {
    "mse": error.mean(axis=(1, 2, 3)),
    "copy_mse": copied.mean(axis=(1, 2, 3)),
    "psnr": psnr(predicted, target),
    "copy_psnr": psnr(current, target),
    "ssim": np.full(len(target), np.nan) if small else ssim(predicted, target),
    "copy_ssim": np.full(len(target), np.nan) if small else ssim(current, target),
    "moving_error": total(error * moving),
    "moving_copy_error": total(copied * moving),
    "moving_values": total(np.broadcast_to(moving, target.shape)),
    "values": np.full(len(target), target[0].size),
    "threshold": np.full(len(target), threshold),
  }


def summarize(batches: Sequence[dict[str, np.ndarray]]) -> Reconstruction:
  """Means over all images of batches that `measure` returned.

  Raises:
    errors.UserError: no images, or more than one threshold.
  """
  if not sum(len(batch["mse"]) for batch in batches):
    raise errors.UserError("no images to score, expected at least one")
  values_of = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
  mean = {name: float(values.mean()) for name, values in values_of.items()}
  threshold = mean["threshold"]
  if np.ptp(values_of["threshold"]) > 0:
    raise errors.UserError(
      "batches were measured with different thresholds for moving pixels, expected one"
    )
  moving_mse, moving_copy = (
    _ratio(mean[name], mean["moving_values"]) for name in ("moving_error", "moving_copy_error")
  )
  images = len(values_of["mse"])
  return Reconstruction(
    mse=mean["mse"],
    psnr=mean["psnr"],
    ssim=mean["ssim"],
    copy_mse=mean["copy_mse"],
    copy_psnr=mean["copy_psnr"],
    copy_ssim=mean["copy_ssim"],
    ratio=_ratio(mean["mse"], mean["copy_mse"]),
    moving_mse=moving_mse,
    moving_copy_mse=moving_copy,
    moving_ratio=_ratio(moving_mse, moving_copy),
    moving_fraction=mean["moving_values"] / mean["values"],
    threshold=threshold,
    images=images,
    text=f"{images} images, values in [0, 1]; "
    f"moving: |target - current| > {threshold:g} in any channel; PSNR capped at {PSNR_CAP:g} dB",
  )


def psnr(predicted: Any, target: Any) -> np.ndarray:
  """Peak signal-to-noise ratio of each image in dB [N], capped at 100."""
  predicted, target = _unit(predicted, "predicted"), _unit(target, "target")
  mse = ((predicted - target) ** 2).mean(axis=(1, 2, 3))
  return -10.0 * np.log10(np.maximum(mse, 10.0 ** (-PSNR_CAP / 10)))


def ssim(predicted: Any, target: Any) -> np.ndarray:
  """Structural similarity (SSIM) of each image [N].

  It uses an 11x11 Gaussian window of sigma 1.5 at positions where the window is inside the image,
  and the mean over channels. Source: Wang et al., 2004.

  Raises:
    errors.UserError: images smaller than the window.
  """
  predicted, target = _unit(predicted, "predicted"), _unit(target, "target")
  if min(target.shape[1:3]) < WINDOW:
    raise errors.UserError(
      f"images are {target.shape[1]}x{target.shape[2]}, expected at least {WINDOW}x{WINDOW} for "
      "SSIM"
    )
  mean_p, mean_t = _blur(predicted), _blur(target)
  var_p, var_t = _blur(predicted**2) - mean_p**2, _blur(target**2) - mean_t**2
  covariance = _blur(predicted * target) - mean_p * mean_t
  c1, c2 = K1**2, K2**2
  value = (
    (2 * mean_p * mean_t + c1)
    * (2 * covariance + c2)
    / ((mean_p**2 + mean_t**2 + c1) * (var_p + var_t + c2))
  )
  return value.mean(axis=(1, 2, 3))


def _blur(images: np.ndarray) -> np.ndarray:
  taps = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
  taps /= taps.sum()
  height, width = images.shape[1] - WINDOW + 1, images.shape[2] - WINDOW + 1
  rows, blurred = np.zeros(()), np.zeros(())
  for i, tap in enumerate(taps):
    rows = rows + tap * images[:, i : i + height]
  for i, tap in enumerate(taps):
    blurred = blurred + tap * rows[:, :, i : i + width]
  return blurred


def _unit(images: Any, what: str) -> np.ndarray:
  images = np.asarray(images)
  if images.ndim != 4:
    raise errors.UserError(
      f"{what} has shape {images.shape}, expected [images, height, width, channels]"
    )
  if images.dtype == np.uint8:
    return images / 255.0
  images = images.astype(np.float64)
  # Predictions may exceed the range and are clipped. True frames outside the range are
  # ImageNet-normalized or 0-255 values, for which all metrics would be meaningless.
  if not np.isfinite(images).all() or (
    what != "predicted" and (images.min(initial=0) < -1e-3 or images.max(initial=0) > 1 + 1e-3)
  ):
    raise errors.UserError(
      f"{what} spans {images.min():.3g} to {images.max():.3g}, expected uint8 or floats in [0, "
      "1] (denormalize first)"
    )
  return np.clip(images, 0.0, 1.0)


def _ratio(numerator: float, denominator: float) -> float:
  return numerator / denominator if denominator > 0 else float("nan")
