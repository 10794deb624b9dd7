"""LP-MSE: how well a single linear layer predicts the true action from a frozen z.

Source: "linear probing MSE" of CoMo, arXiv 2505.17006 v1.

The probe is ridge regression in closed form in float64, so there is no optimizer to tune and no
noise between runs. The ridge is chosen for each target dimension by folds over the training
episodes. The last ridge of the grid predicts the mean, so that a wide z without information has an
error of 1, not more.

Legend: N samples, Z latent width, A target dimensions, R directions of z, G ridges.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from como_jax.evaluate import arrays, probes, splits

# In units of N on standardized columns, where a direction of z of average size has strength 1.
# Infinity predicts the mean.
RIDGES = (*10.0 ** np.arange(-8, 3.01, 0.25), np.inf)
FOLDS = 5
# Share of a target's variance. If a fit on half of the training episodes is worse by more than
# this, the windows are too few.
TOO_FEW = 0.05


def probe(
  z: Any,
  targets: Any,
  *,
  episodes: Any,
  names: Sequence[str] | None = None,
  held_out: Any = None,
  seed: int = 0,
) -> probes.ProbeResult:
  """LP-MSE on one split by episode.

  Args:
    z: latents [N, Z].
    targets: true actions or state differences [N, A] (or [N]).
    episodes: episode id of each sample [N].
    names: names of the target dimensions [A].
    held_out: which episodes to hold out: a `splits.Share`, or an existing split as bool [N]; None:
      a fifth of the episodes.
    seed: seed of the split.

  Returns:
    The result. `half` is the error of a fit on half of the training episodes; the text says if it
    is worse by more than `TOO_FEW`.

  Raises:
    errors.UserError: unequal lengths, values that are not finite, fewer than two episodes.
  """
  z, targets, episodes, names = arrays.check(z, targets, episodes, names)
  split = splits.choose(episodes, held_out, seed=seed)
  result = _run(z, targets, episodes, names, [split], seed)
  half = _on_half(z, targets, episodes, split, result, seed)
  text = result.text
  if half is not None:
    text += f"; fitted on half of the training episodes: {half:.3f}"
    if half - result.mse > TOO_FEW:
      text += (
        f", more than {TOO_FEW:g} worse: too few windows for {z.shape[1]} numbers, more would "
        "tell more"
      )
  return dataclasses.replace(result, half=half, text=text)


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
  """LP-MSE with every episode held out once: mean and standard error over folds.

  Args:
    z: latents [N, Z].
    targets: as for `probe`.
    episodes: as for `probe`.
    names: as for `probe`.
    groups: task of each sample [N]; the episodes of each task are distributed evenly.
    folds: number of folds.
    seed: seed of the folds.
  """
  z, targets, episodes, names = arrays.check(z, targets, episodes, names)
  return _run(
    z,
    targets,
    episodes,
    names,
    list(splits.folds_by_episode(episodes, folds, seed=seed, groups=groups)),
    seed,
  )


@dataclasses.dataclass(frozen=True)
class Ridge:
  """A fitted linear map with an intercept.

  Attributes:
    mean, scale, constant: of the input columns [Z] (`probes.scale_of`).
    offset: intercept [A].
    weights: weights of the standardized columns [Z, A].
    ridges: chosen ridge of each output [A], in units of the number of samples; infinity if the mean
      is the best prediction.
  """

  mean: np.ndarray
  scale: np.ndarray
  constant: np.ndarray
  offset: np.ndarray
  weights: np.ndarray
  ridges: np.ndarray

  def __call__(self, inputs: np.ndarray) -> np.ndarray:
    """Predicts outputs [N, A] for inputs [N, Z]."""
    return self.standard(inputs) @ self.weights + self.offset

  def standard(self, inputs: np.ndarray) -> np.ndarray:
    """Standardizes inputs [N, Z]; constant columns become 0."""
    return np.where(self.constant, 0.0, (inputs - self.mean) / self.scale)


def fit(
  inputs: np.ndarray,
  outputs: np.ndarray,
  episodes: np.ndarray,
  *,
  shared: bool = False,
  seed: int = 0,
) -> Ridge:
  """Ridge regression, with the ridge that has the smallest error on left-out episodes.

  Args:
    inputs: [N, Z].
    outputs: [N, A].
    episodes: episode id of each sample [N]; an episode is never on both sides of a fold. A single
      episode is cut into consecutive segments.
    shared: True: one ridge for all outputs, for example for one-hot labels that are compared with
      each other. False: one ridge for each output.
    seed: seed of the folds.
  """
  if len(np.unique(episodes)) < 2:
    episodes = np.arange(len(inputs)) * FOLDS // len(inputs)
  squared = np.zeros((len(RIDGES), outputs.shape[1]))
  if len(np.unique(episodes)) > 1:
    for fold in splits.folds_by_episode(episodes, FOLDS, seed=seed):
      squared += path(
        inputs[fold.train], outputs[fold.train], inputs[fold.held_out], outputs[fold.held_out]
      )
  else:  # a single sample
    squared[:-1] += 1
  if shared:
    squared = np.repeat(squared.sum(axis=1, keepdims=True), outputs.shape[1], axis=1)
  best = len(RIDGES) - 1 - squared[::-1].argmin(axis=0)  # the largest ridge if errors are equal
  return _fitted(inputs, outputs, np.asarray(RIDGES)[best])


def _fitted(inputs: np.ndarray, outputs: np.ndarray, ridges: np.ndarray) -> Ridge:
  """Fits ridge regression with the ridges [A]."""
  model = Ridge(
    *probes.scale_of(inputs),
    outputs.mean(axis=0),
    np.zeros((inputs.shape[1], outputs.shape[1])),
    ridges,
  )
  strength, directions, projected = _spectrum(model.standard(inputs), outputs - model.offset)
  return dataclasses.replace(
    model, weights=directions @ (projected / (strength[:, None] + ridges * len(inputs)))
  )


def path(inputs: np.ndarray, outputs: np.ndarray, new: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Sum of squared errors [G, A] on new samples, for each ridge.

  Args:
    inputs: [N, Z], to fit.
    outputs: [N, A], to fit.
    new: new inputs [M, Z].
    truth: new outputs [M, A].
  """
  model = Ridge(
    *probes.scale_of(inputs),
    outputs.mean(axis=0),
    np.zeros((inputs.shape[1], outputs.shape[1])),
    np.zeros(0),
  )
  strength, directions, projected = _spectrum(model.standard(inputs), outputs - model.offset)
  coordinates, residual = model.standard(new) @ directions, truth - model.offset
  return np.stack(
    [
      ((coordinates @ (projected / (strength[:, None] + ridge * len(inputs))) - residual) ** 2).sum(
        axis=0
      )
      for ridge in RIDGES
    ]
  )


def _spectrum(inputs: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Spectrum of a ridge regression: (strength [R], directions [Z, R], projected outputs [R, A]).

  The ridge solution is directions @ (projected / (strength + ridge)). It uses the smaller of the
  two Gram matrices. Directions without variance are left out.
  """
  wide = inputs.shape[1] > len(inputs)
  strength, vectors = np.linalg.eigh(inputs @ inputs.T if wide else inputs.T @ inputs)
  kept = strength > 1e-12 * max(strength[-1], 1e-300)
  strength, vectors = strength[kept], vectors[:, kept]
  directions = inputs.T @ vectors / np.sqrt(strength) if wide else vectors
  return strength, directions, directions.T @ (inputs.T @ outputs)


def _on_half(
  z: np.ndarray,
  targets: np.ndarray,
  episodes: np.ndarray,
  split: splits.Split,
  result: probes.ProbeResult,
  seed: int,
) -> float | None:
  """Mean error of two fits, each on one half of the training episodes.

  Errors are in units of the variance over all training episodes. None if there are fewer than 4
  training episodes or if all targets are constant.
  """
  names = np.random.default_rng(seed).permutation(np.unique(episodes[split.train]))
  if len(names) < 4:
    return None
  _, scale, constant = probes.scale_of(targets[split.train])
  squared = []
  for half in (names[::2], names[1::2]):
    rows = split.train & np.isin(episodes, half)
    mean, half_scale, _ = probes.scale_of(targets[rows])
    predicted = (
      fit(z[rows], (targets[rows] - mean) / half_scale, episodes[rows], seed=seed)(
        z[split.held_out]
      )
      * half_scale
      + mean
    )
    squared.append(((predicted - result.true) ** 2).mean(axis=0) / scale**2)
  return None if constant.all() else float(np.mean(squared, axis=0)[~constant].mean())


def _run(
  z: np.ndarray,
  targets: np.ndarray,
  episodes: np.ndarray,
  names: tuple[str, ...],
  chosen_splits: list[splits.Split],
  seed: int,
) -> probes.ProbeResult:
  ridges_of_fits: list[np.ndarray] = []

  def predict(inputs: np.ndarray, outputs: np.ndarray, ids: np.ndarray) -> Ridge:
    fitted = fit(inputs, outputs, ids, seed=seed)
    ridges_of_fits.append(fitted.ridges)
    return fitted

  def method() -> str:
    ridges = np.concatenate(ridges_of_fits)
    span = (
      f"{ridges.min():.3g}"
      if ridges.min() == ridges.max()
      else f"{ridges.min():.3g} to {ridges.max():.3g}"
    )
    return (
      f"ridge regression, ridge {span} times the samples, chosen by {FOLDS} folds over training "
      "episodes for each dimension"
    )

  return probes.run(predict, z, targets, episodes, names=names, chosen=chosen_splits, method=method)
