"""Rows of the probe that need no training: linear components of the tokens of the frozen encoder.

Legend: N windows to fit on, M held-out windows, P values of a picture, Z latent width.
"""

from collections.abc import Sequence

import numpy as np

from como_jax.evaluate import probe_rows, probe_targets

FIRST, SECOND, BOTH = "first-only", "second-only", "both-pictures"  # rows
DIFFERENCE = "difference"
# Row -> name of the trained model's gain over it.
GAINS = {"untrained": "lp_gain", DIFFERENCE: "lp_gain_difference", FIRST: "lp_gain_first"}


def difference(
  fit: np.ndarray,
  held_out: np.ndarray,
  count: int,
  targets: Sequence[probe_targets.Target],
  *,
  seed: int,
) -> tuple[np.ndarray, probe_rows.Row, probe_rows.Details]:
  """Probes principal components of the encoder's feature difference.

  A motion model without training could have this latent. The components are computed from the
  windows to fit on.

  Args:
    fit: tokens of both pictures of the windows to fit on [N, 2, P].
    held_out: those of the held-out windows [M, 2, P].
    count: number of components; as many as z has dimensions.
    targets: targets of the probes.
    seed: seed of the probes.

  Returns:
    (components [N + M, count], row, its details).
  """
  change = [windows[:, 1].astype(np.float32) - windows[:, 0] for windows in (fit, held_out)]
  return _probe_components(DIFFERENCE, change, count, targets, seed)


def one_picture(
  fit: np.ndarray,
  held_out: np.ndarray,
  count: int,
  targets: Sequence[probe_targets.Target],
  *,
  seed: int,
) -> dict[str, tuple[probe_rows.Row, probe_rows.Details]]:
  """Probes principal components of either picture alone.

  These are the published metrics for a latent without any motion. Arguments are as for
  `difference`.

  Returns:
    name -> (row, its details).
  """
  result = {}
  for side, name in enumerate((FIRST, SECOND)):
    picture = [windows[:, side].astype(np.float32) for windows in (fit, held_out)]
    _, row, details = _probe_components(name, picture, count, targets, seed)
    result[name] = row, details
  return result


def _probe_components(
  name: str,
  inputs: Sequence[np.ndarray],
  count: int,
  targets: Sequence[probe_targets.Target],
  seed: int,
) -> tuple[np.ndarray, probe_rows.Row, probe_rows.Details]:
  """Probes the first principal components of inputs.

  Args:
    name: name of the row, for notes.
    inputs: (inputs of the windows to fit on [N, P], of the held-out windows [M, P]).
    count: number of components.
    targets: targets of the probes.
    seed: seed of the probes.

  Returns:
    (components [N + M, count], row, its details).
  """
  fit, new = inputs
  z = np.concatenate(components(fit, new, count, seed=seed))
  row, results, notes = probe_rows.Row(), {}, []
  for target in targets:
    if target.robots:
      metrics, results[target.name], texts = probe_rows.probe(z, target, seed=seed)
      row |= metrics
      notes += [f"{name}, {text}" for text in texts]
  return z, row, probe_rows.Details(results, notes)


def components(
  fit: np.ndarray, new: np.ndarray, count: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Projects fit and new on the first principal axes of fit.

  It uses subspace iteration, which needs only a few products with fit. Source: Halko, Martinsson
  and Tropp 2011, algorithm 4.4.

  Args:
    fit: [N, P].
    new: [M, P].
    count: number of axes; fewer if fit has fewer.
    seed: seed of the initial axes.

  Returns:
    (projections of fit [N, count], of new [M, count]).
  """
  mean = fit.mean(axis=0)
  centered = fit - mean
  axes = (
    np.random.default_rng(seed)
    .normal(size=(fit.shape[1], min(count + 10, *fit.shape)))
    .astype(fit.dtype)
  )
  for _ in range(4):
    axes, _ = np.linalg.qr(centered.T @ (centered @ axes))
  _, _, rotation = np.linalg.svd(centered @ axes, full_matrices=False)
  axes = axes @ rotation[:count].T
  return centered @ axes, (new - mean) @ axes
