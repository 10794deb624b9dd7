"""Where the linear path of the motion model starts: principal components of what differs in
training pairs (features, or optical flow).

Legend: n pairs, G groups of patches, D width of the encoder, C components.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import scipy.linalg

from como_jax import errors
from como_jax.models import pixels

PAIRS = 2048  # looked at; their Gram matrix takes a second
_SMALLEST = 1e-6  # of the largest variance: below, there is no such component


def start(
  model: Any,
  params: Mapping[str, Any],
  batches: Iterator[Mapping[str, np.ndarray]],
  *,
  pairs: int = PAIRS,
) -> dict[str, Any]:
  """The first parameters of the linear path, as a named part: {"idm": {"components": {"kernel": [G,
  D, C]}}}.

  Args:
    model: a motion model with `components`.
    params: with "encoder".
    batches: of "frames" uint8 [B, K, H, W, 3]; as many are drawn as `pairs` takes.
    pairs: neighboring frames to look at.

  Raises:
    errors.UserError: the pairs have fewer independent differences than components are wanted.
  """
  encoder = {"encoder": params["encoder"]}

  @jax.jit
  def differences(encoder, frames):
    found = model.differences(encoder, pixels.normalize(frames))
    return found.reshape((len(found), -1))

  rows, groups = [], model.components.groups
  while sum(map(len, rows)) < pairs:
    rows.append(np.asarray(differences(encoder, next(batches)["frames"]), np.float32))
  rows = np.concatenate(rows)[:pairs]
  found = principal(rows, model.components.count)
  print(
    f"components: {found.shape[1]} numbers of z start as principal components of the "
    f"{'optical flow' if model.components.source == 'flow' else 'feature difference'} of "
    f"{len(rows)} training pairs"
  )
  # the module takes the mean over groups
  kernel = groups * found.reshape((groups, len(found) // groups, -1))
  return {"idm": {"components": {"kernel": kernel}}}


def principal(differences: np.ndarray, count: int) -> np.ndarray:
  """Directions [F, C] on which the rows [n, F] have mean square 1 and no correlation: those of the
  largest variance, in falling order.

  No mean is taken off: over pairs and their reversals, which are the negatives, it is zero. Signs
  make the largest entry of each direction positive.

  Raises:
    errors.UserError: the rows do not have so many independent directions.
  """
  n, gram = len(differences), None
  if np.isfinite(differences).all():
    gram = np.asarray(differences @ differences.T, np.float64) / n
  if gram is None or not gram.any():
    raise errors.UserError(
      f"config.model.idm.components={count}: the features of the first {n} training pairs do not "
      "differ or are not finite: check config.encoder_weights and config.data"
    )
  least = max(0, n - count)
  values, vectors = scipy.linalg.eigh(gram, subset_by_index=(least, n - 1))
  values, vectors = values[::-1], vectors[:, ::-1]
  rank = int((values > _SMALLEST * values[0]).sum())
  if rank < count:
    raise errors.UserError(
      f"config.model.idm.components={count}: the first {n} training pairs have only {rank} "
      f"independent differences: take {rank} at most"
    )
  found = (differences.T @ (vectors / values).astype(np.float32)) / np.float32(np.sqrt(n))
  return found * np.sign(np.take_along_axis(found, np.abs(found).argmax(0)[None], axis=0))
