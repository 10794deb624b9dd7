"""LP-MSE: how well a single linear layer reads the true action out of a frozen z (CoMo, arXiv 2505.17006 v1, "linear
probing MSE").

Closed-form least squares in float64, so there is no optimiser to tune and no run-to-run noise. Legend: N samples, Z
latent width, A target dimensions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from como_jax.evaluate import probes, splits

RIDGE = 1e-6  # times the number of training samples, on standardised columns; used only where z has dependent columns


def probe(
  z: Any,
  targets: Any,
  *,
  episodes: Any,
  names: Sequence[str] | None = None,
  groups: Any = None,
  fraction: float = 0.2,
  seed: int = 0,
  held_out: Any = None,
) -> probes.ProbeResult:
  """LP-MSE on one split by episode.

  Args:
    z: latents [N, Z].
    targets: true actions or state differences [N, A] (or [N]).
    episodes: episode id of each sample [N].
    names: of the target dimensions [A].
    groups: task of each sample [N]; each task then gives its share of held-out episodes.
    fraction: of episodes to hold out.
    seed: of the split.
    held_out: bool [N], a split made elsewhere, instead of fraction and seed.

  Raises:
    errors.UserError: unequal lengths, values that are not finite, fewer than two episodes.
  """
  z, targets, episodes, names = probes.check(z, targets, episodes, names)
  if held_out is None:
    chosen = splits.split_by_episode(episodes, fraction, seed=seed, groups=groups)
  else:
    chosen = splits.given(episodes, held_out)
  return _run(z, targets, episodes, names, [chosen])


def cross_validate(
  z: Any,
  targets: Any,
  *,
  episodes: Any,
  names: Sequence[str] | None = None,
  groups: Any = None,
  folds: int = 5,
  seed: int = 0,
) -> probes.ProbeResult:
  """LP-MSE with every episode held out once: mean and standard error over folds. Arguments as for `probe`."""
  z, targets, episodes, names = probes.check(z, targets, episodes, names)
  return _run(z, targets, episodes, names, list(splits.folds_by_episode(episodes, folds, seed=seed, groups=groups)))


def least_squares(inputs: np.ndarray, outputs: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
  """Linear map with intercept, inputs [N, Z] -> outputs [N, A].

  Returns:
    (function of new inputs, ridge used: 0 unless the inputs have dependent columns at float32 precision).
  """
  mean, scale, constant = probes.scale_of(inputs)
  offset = outputs.mean(axis=0)
  standard = np.where(constant, 0.0, (inputs - mean) / scale)
  left, singular, right = np.linalg.svd(standard, full_matrices=False)
  full_rank = len(inputs) > inputs.shape[1] and singular[-1] > 1e-6 * singular[0]
  ridge = 0.0 if full_rank else RIDGE * len(inputs)
  gain = singular / (singular**2 + ridge)  # with a ridge where one of them is 0
  weights = right.T @ (gain[:, None] * (left.T @ (outputs - offset)))
  return lambda new: np.where(constant, 0.0, (new - mean) / scale) @ weights + offset, ridge


def _run(
  z: np.ndarray, targets: np.ndarray, episodes: np.ndarray, names: tuple[str, ...], chosen: list[splits.Split]
) -> probes.ProbeResult:
  used: list[float] = []

  def predict(inputs, outputs, _):
    fitted, ridge = least_squares(inputs, outputs)
    used.append(ridge)
    return fitted

  def method():
    return "linear least squares, " + (f"ridge {max(used):.3g} (z has dependent columns)" if max(used) else "no ridge")

  return probes.run(predict, z, targets, episodes, names=names, chosen=chosen, method=method)
