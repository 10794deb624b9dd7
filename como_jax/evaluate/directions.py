"""Directions of latents, and what metrics of pairs of samples share.

Legend: N samples, Z latent width.
"""

from typing import Any

import numpy as np

from como_jax import errors
from como_jax.evaluate import arrays

CENTRES = ("none", "mean", "view")


def weighted_error(values: np.ndarray, weights: np.ndarray, *, draws: int = 500) -> float | None:
  """Standard error of a weighted mean by bootstrap over its values; None with fewer than two."""
  if len(values) < 2:
    return None
  drawn = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
  return float(np.std((values * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1), ddof=1))


def unit(z: Any, center: str, views: Any) -> np.ndarray:
  """Directions of latents: centered, then divided by their length; [N, Z].

  Args:
    z: latents [N, Z].
    center: one of `CENTRES`, as for `similarity.matrix`.
    views: view of each sample [N], for center="view".

  Raises:
    errors.UserError: an unknown center, no views, or values that are not finite.
  """
  z = arrays.finite(z, "z")
  if center not in CENTRES:
    raise errors.UserError(f"center is {center!r}, {errors.nearest(center, CENTRES)}")
  if center == "mean":
    z = z - z.mean(axis=0)
  if center == "view":
    if views is None:
      raise errors.UserError("center is 'view', which needs views: the view of each sample")
    index = codes(ids(views, len(z), "views"))
    means = np.stack([z[index == view].mean(axis=0) for view in range(index.max() + 1)])
    z = z - means[index]
  return of_rows(z)


def of_rows(values: np.ndarray) -> np.ndarray:
  """Divides rows by their length; rows without a direction become 0."""
  length = np.linalg.norm(values, axis=1, keepdims=True)
  return np.divide(
    values,
    length,
    out=np.zeros_like(values),
    where=length > 1e-8 * max(float(np.median(length)), 1e-30),
  )


def ids(values: Any, count: int, what: str) -> np.ndarray:
  """Checks that there is one id for each of `count` samples.

  Args:
    values: the ids.
    count: number of samples.
    what: name of the ids in error messages.

  Raises:
    errors.UserError: another shape.
  """
  values = np.asarray(values)
  if values.shape != (count,):
    raise errors.UserError(f"{what} has shape {values.shape}, expected ({count},), one a latent")
  return values


def codes(values: np.ndarray) -> np.ndarray:
  """Numbers ids from 0, in sorted order."""
  return np.unique(values, return_inverse=True)[1].reshape(-1)
