"""Rows of the probe's table that need no training: what the frozen encoder alone tells of the same targets.

Legend: N windows to fit on, M held-out windows, P numbers of a picture, Z numbers of a motion.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from como_jax.tasks import latents, probe_rows, probe_targets

GAINS = {
  "untrained": "lp_gain",
  "difference": "lp_gain_difference",
}  # row -> name of the trained model's gain over it


def difference(
  fit: latents.Labels, held_out: latents.Measured, targets: Sequence[probe_targets.Target], *, seed: int
) -> tuple[dict, dict[str, Any]]:
  """(row, results) of the principal components of the encoder's feature difference, as many as z has
  numbers: what a motion model that learnt nothing could say with as many numbers. Components are those of
    the windows to fit on."""
  change = [one.pictures[:, 1].astype(np.float32) - one.pictures[:, 0] for one in (fit, held_out)]
  z = np.concatenate(components(*change, held_out.z.shape[1], seed=seed))
  row, results = {}, {"probes": {}, "notes": []}
  for target in targets:
    if target.robots:
      numbers, results["probes"][target.name], notes = probe_rows.read(z, target, seed=seed)
      row |= numbers
      results["notes"] += [f"difference, {note}" for note in notes]
  return row, results


def components(fit: np.ndarray, new: np.ndarray, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """fit [N, P] and new [M, P] on the first `count` principal axes of fit (fewer where it has fewer).

  By subspace iteration, whose cost is a few products with fit (Halko, Martinsson and Tropp 2011, algorithm
  4.4).
  """
  mean = fit.mean(axis=0)
  centred = fit - mean
  axes = (
    np.random.default_rng(seed).normal(size=(fit.shape[1], min(count + 10, *fit.shape))).astype(fit.dtype)
  )
  for _ in range(4):
    axes, _ = np.linalg.qr(centred.T @ (centred @ axes))
  _, _, turn = np.linalg.svd(centred @ axes, full_matrices=False)
  axes = axes @ turn[:count].T
  return centred @ axes, (new - mean) @ axes
