"""Initializes the linear path of the motion model by principal components of training pairs.

The components are those of the feature difference, or of the optical flow.

Legend: n pairs, G groups of patches, D width of the encoder, F = G D features, C components.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import scipy.linalg

from como_jax import errors
from como_jax.models import pixels

PAIRS = 2048  # number of pairs; the computation of their Gram matrix takes a second
_SMALLEST = 1e-6  # share of the largest variance below which a component counts as missing


def init_from_pairs(
  model: Any,
  params: Mapping[str, Any],
  batches: Iterator[Mapping[str, np.ndarray]],
  *,
  pairs: int = PAIRS,
) -> dict[str, Any]:
  """The initial parameters of the linear path.

  Args:
    model: a motion model with a linear path.
    params: parameters with "encoder".
    batches: batches with "frames" uint8 [B, K, H, W, 3]; it reads as many as `pairs` needs.
    pairs: number of pairs of neighboring frames.

  Returns:
    {"idm": {"components": {"kernel": [G, D, C]}}}.

  Raises:
    errors.UserError: the pairs have fewer independent differences than there are components.
  """
  encoder = {"encoder": params["encoder"]}

  @jax.jit
  def differences(encoder, frames):
    result = model.differences(encoder, pixels.normalize(frames))
    return result.reshape((len(result), -1))

  rows, groups = [], model.linear_path.groups
  while sum(map(len, rows)) < pairs:
    rows.append(np.asarray(differences(encoder, next(batches)["frames"]), np.float32))
  rows = np.concatenate(rows)[:pairs]
  directions = principal_directions(rows, model.linear_path.count)
  print(
    f"components: {directions.shape[1]} numbers of z start as principal components of the "
    f"{'optical flow' if model.linear_path.source == 'flow' else 'feature difference'} of "
    f"{len(rows)} training pairs"
  )
  # The factor compensates the mean over groups in the module.
  kernel = groups * directions.reshape((groups, len(directions) // groups, -1))
  return {"idm": {"components": {"kernel": kernel}}}


def principal_directions(differences: np.ndarray, count: int) -> np.ndarray:
  """Directions of the largest variance, scaled so that projections have mean square 1.

  Projections are uncorrelated. The mean is not subtracted: over pairs and reversed pairs, whose
  differences are the negatives, it is zero. The largest entry of each direction is positive.

  Args:
    differences: [n, F].
    count: number of directions C.

  Returns:
    [F, C], by falling variance.

  Raises:
    errors.UserError: the rows have fewer independent directions.
  """
  n, gram = len(differences), None
  if np.isfinite(differences).all():
    gram = np.asarray(differences @ differences.T, np.float64) / n
  if gram is None or not gram.any():
    raise errors.UserError(
      f"config.model.idm.components={count}: the features of the first {n} training pairs do not "
      "differ or are not finite: check config.encoder_weights and config.data"
    )
  lowest = max(0, n - count)
  values, vectors = scipy.linalg.eigh(gram, subset_by_index=(lowest, n - 1))
  values, vectors = values[::-1], vectors[:, ::-1]
  rank = int((values > _SMALLEST * values[0]).sum())
  if rank < count:
    raise errors.UserError(
      f"config.model.idm.components={count}: the first {n} training pairs have only {rank} "
      f"independent differences: take {rank} at most"
    )
  directions = (differences.T @ (vectors / values).astype(np.float32)) / np.float32(np.sqrt(n))
  return directions * np.sign(
    np.take_along_axis(directions, np.abs(directions).argmax(0)[None], axis=0)
  )
