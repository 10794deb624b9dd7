"""Checks of the arrays that are given to metrics.

Legend: N samples, Z latent width, A target dimensions, D dimensions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from como_jax import errors


def check(
  z: Any, targets: Any, episodes: Any, names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
  """Checks the inputs of a probe.

  Args:
    z: latents [N, Z].
    targets: [N, A] or [N].
    episodes: episode id of each sample [N].
    names: names of the target dimensions [A]; None: "dimension 0" and so on.

  Returns:
    (z float64 [N, Z], targets float64 [N, A], episodes [N], names [A]).

  Raises:
    errors.UserError: shapes that do not agree, or values that are not finite.
  """
  z, targets, episodes = finite(z, "z"), np.asarray(targets), np.asarray(episodes)
  targets = finite(targets[:, None] if targets.ndim == 1 else targets, "targets")
  if not len(z) == len(targets) == len(episodes):
    raise errors.UserError(
      f"z, targets and episodes hold {len(z)}, {len(targets)} and {len(episodes)} samples, "
      "expected the same number"
    )
  names = (
    tuple(names) if names is not None else tuple(f"dimension {i}" for i in range(targets.shape[1]))
  )
  if len(names) != targets.shape[1]:
    raise errors.UserError(
      f"{len(names)} names for {targets.shape[1]} target dimensions: {', '.join(names)}"
    )
  return z, targets, episodes, names


def finite(values: Any, what: str) -> np.ndarray:
  """Converts values [N, D] to float64.

  Args:
    values: the values.
    what: name of the values in error messages.

  Raises:
    errors.UserError: another rank, or rows that are not finite; the message says how many.
  """
  values = np.asarray(values, dtype=np.float64)
  if values.ndim != 2:
    raise errors.UserError(
      f"{what} has shape {values.shape}, expected two axes [samples, dimensions]"
    )
  bad = int((~np.isfinite(values)).any(axis=1).sum())
  if bad:
    raise errors.UserError(
      f"{what} has {bad} of {len(values)} rows with nan or infinity, expected finite numbers"
    )
  return values
