"""Scaling of inputs, whitening among it, and distances of samples.

Legend: N samples, Z input dimensions, R whitened directions.
"""

import dataclasses
from typing import Any

import numpy as np

from como_jax import errors

SMALLEST = 1e-5  # directions with a singular value below this share of the largest are dropped


@dataclasses.dataclass(frozen=True)
class Scaling:
  """Subtracts a mean and applies a linear map; the mean squared norm of scaled samples is 1.

  Attributes:
    mean: [Z].
    gain: a matrix [Z, R], or one factor per dimension [Z].
  """

  mean: np.ndarray
  gain: np.ndarray

  def __call__(self, inputs: np.ndarray) -> np.ndarray:
    """Scales inputs [N, Z] -> [N, R] (or [N, Z])."""
    centered = inputs - self.mean
    return centered * self.gain if self.gain.ndim == 1 else centered @ self.gain


def matrix(values: Any, name: str) -> np.ndarray:
  """Checks values [N, K] and converts them to float64.

  Args:
    values: the values.
    name: name of the values in error messages.

  Raises:
    errors.UserError: another rank, or values that are not finite.
  """
  values = np.asarray(values, dtype=np.float64)
  if values.ndim != 2:
    raise errors.UserError(
      f"{name}: expected two axes [samples, numbers], found {list(values.shape)}"
    )
  wrong = int((~np.isfinite(values)).any(axis=1).sum())
  if wrong:
    raise errors.UserError(f"{name}: {wrong} of {len(values)} rows hold values that are not finite")
  return values


def standard(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation [K] of values [N, K]; 1 where the values are constant."""
  mean, deviation = values.mean(axis=0), values.std(axis=0)
  return mean, np.where(deviation > 1e-12 * (np.abs(mean) + 1e-300), deviation, 1.0)


def scale_inputs(inputs: np.ndarray, whiten: bool = True) -> Scaling:
  """Whitening by principal components, or standardization of each dimension.

  Only directions above `SMALLEST` are kept. The rounding noise of float32 latents is below it. The
  rounding noise of 16-bit latents is above it, so save latents in float32.

  Args:
    inputs: [N, Z].
    whiten: True: a gain [Z, R] from principal components. False: a gain [Z]; see
      `kernel_ridge.fit`.
  """
  mean = inputs.mean(axis=0)
  if not whiten:
    _, deviation = standard(inputs)
    constant = np.ptp(inputs, axis=0) == 0
    return Scaling(
      mean, np.where(constant, 0.0, 1 / deviation) / np.sqrt(max((~constant).sum(), 1))
    )
  centered = inputs - mean
  directions, singular = principal(centered)
  kept = singular > SMALLEST * max(singular.max(initial=0.0), 1e-300)
  unit = np.sqrt(len(inputs) / max(kept.sum(), 1))
  return Scaling(mean, directions[:, kept] * (unit / singular[kept]))


def principal(centered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Principal directions [Z, min(N, Z)] of centered inputs [N, Z], and falling singular values."""
  if centered.shape[0] >= centered.shape[1]:
    values, vectors = np.linalg.eigh(centered.T @ centered)
    return vectors[:, ::-1], np.sqrt(np.maximum(values[::-1], 0))
  values, vectors = np.linalg.eigh(centered @ centered.T)
  singular = np.sqrt(np.maximum(values[::-1], 0))
  return centered.T @ vectors[:, ::-1] / np.maximum(
    singular, 1e-12 * max(singular.max(initial=0.0), 1e-300)
  ), singular


def squared_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Squared distances between the rows of two arrays: [M, R] and [N, R] -> [M, N]."""
  result = first @ second.T
  result *= -2
  result += (first**2).sum(axis=1)[:, None]
  result += (second**2).sum(axis=1)
  return np.maximum(result, 0, out=result)
