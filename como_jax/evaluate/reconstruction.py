"""How well the forward model draws the target frame: MSE, PSNR, SSIM, each beside "copy the current
frame". Legend: N images, H W pixels.

A static background makes copying look excellent, so the errors are also taken over the moving
pixels only, and the number to look at is the ratio to the copy.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from como_jax import errors

PSNR_CAP = 100.0  # dB; identical images would be infinite and spoil every mean
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03  # Wang et al. 2004


@dataclasses.dataclass(frozen=True)
class Reconstruction:
  """Means over images, values in [0, 1]. `copy_*`: the current frame taken as the prediction."""

  mse: float
  psnr: float  # dB, mean over images, capped at 100
  ssim: float  # nan for images smaller than 11 pixels
  copy_mse: float
  copy_psnr: float
  copy_ssim: float
  ratio: float  # mse / copy_mse: below 1 beats copying
  moving_mse: float  # over moving pixels of all images
  moving_copy_mse: float
  moving_ratio: float
  moving_fraction: float  # share of pixels that move
  threshold: float
  images: int
  text: str


def compare(
  predicted: Any, target: Any, *, current: Any, threshold: float = 0.05
) -> Reconstruction:
  """Scores of predicted frames.

  All [N, H, W, C], uint8, or floats in [0, 1] (predictions are clipped to it).

  Args:
    current: the frame the prediction started from.
    threshold: a pixel moves when any channel of target and current differ by more than this.

  Raises:
    errors.UserError: other shapes, or values outside what is expected.
  """
  return summarize([measure(predicted, target, current=current, threshold=threshold)])


def measure(
  predicted: Any, target: Any, *, current: Any, threshold: float = 0.05
) -> dict[str, np.ndarray]:
  """Per-image numbers of one batch, {name: [N]}, to be collected and handed to `summarize`.

  Arguments as for `compare`.
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
  """Means over all images of the batches measured.

  Raises:
    errors.UserError: no images, or more than one threshold.
  """
  if not sum(len(batch["mse"]) for batch in batches):
    raise errors.UserError("no images to score, expected at least one")
  every = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
  mean = {name: float(values.mean()) for name, values in every.items()}
  threshold = mean["threshold"]
  if np.ptp(every["threshold"]) > 0:
    raise errors.UserError(
      "batches were measured with different thresholds for moving pixels, expected one"
    )
  moving_mse, moving_copy = (
    _ratio(mean[name], mean["moving_values"]) for name in ("moving_error", "moving_copy_error")
  )
  images = len(every["mse"])
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
  """Peak signal-to-noise ratio in dB of each image, [N], capped at 100."""
  predicted, target = _unit(predicted, "predicted"), _unit(target, "target")
  mse = ((predicted - target) ** 2).mean(axis=(1, 2, 3))
  return -10.0 * np.log10(np.maximum(mse, 10.0 ** (-PSNR_CAP / 10)))


def ssim(predicted: Any, target: Any) -> np.ndarray:
  """Structural similarity of each image, [N]: 11x11 Gaussian window of sigma 1.5, positions where
  it fits, mean over channels (Wang et al. 2004).

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
  both = _blur(predicted * target) - mean_p * mean_t
  c1, c2 = K1**2, K2**2
  value = (
    (2 * mean_p * mean_t + c1)
    * (2 * both + c2)
    / ((mean_p**2 + mean_t**2 + c1) * (var_p + var_t + c2))
  )
  return value.mean(axis=(1, 2, 3))


def _blur(images: np.ndarray) -> np.ndarray:
  taps = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
  taps /= taps.sum()
  height, width = images.shape[1] - WINDOW + 1, images.shape[2] - WINDOW + 1
  rows = sum(tap * images[:, i : i + height] for i, tap in enumerate(taps))
  return sum(tap * rows[:, :, i : i + width] for i, tap in enumerate(taps))


def _unit(images: Any, what: str) -> np.ndarray:
  images = np.asarray(images)
  if images.ndim != 4:
    raise errors.UserError(
      f"{what} has shape {images.shape}, expected [images, height, width, channels]"
    )
  if images.dtype == np.uint8:
    return images / 255.0
  images = images.astype(np.float64)
  # A model may leave the range a little; twice the range means ImageNet-normalized or 0-255 values,
  # and every number would be meaningless.
  if not np.isfinite(images).all() or (
    what != "predicted" and (images.min(initial=0) < -1e-3 or images.max(initial=0) > 1 + 1e-3)
  ):
    raise errors.UserError(
      f"{what} spans {images.min():.3g} to {images.max():.3g}, expected uint8 or floats in [0, "
      "1] (denormalize first)"
    )
  return np.clip(images, 0.0, 1.0)


def _ratio(above: float, below: float) -> float:
  return above / below if below > 0 else float("nan")
