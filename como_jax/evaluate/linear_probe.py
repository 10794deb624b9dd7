"""LP-MSE: how well a single linear layer reads the true action out of a frozen z (CoMo, arXiv
2505.17006 v1, "linear probing MSE").

Ridge regression in closed form in float64, so there is no optimizer to tune and no run-to-run
noise. The ridge is chosen for each target dimension by folds over the training episodes, from a
grid that ends in "predict the mean": a wide z that says nothing scores 1, not more. Legend: N
samples, Z latent width, A target dimensions, R directions of z, G ridges.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from como_jax.evaluate import probes, splits

# In units of N on standardized columns (a direction of z of average size has strength 1); infinity
# predicts the mean.
RIDGES = (*10.0 ** np.arange(-8, 3.01, 0.25), np.inf)
FOLDS = 5
# Of a target's variance: where half of the training episodes cost more, more windows would tell
# more.
TOO_FEW = 0.05


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

  Returns:
    The result; its `half` and text say what fitting on half of the training episodes costs, and
    whether that is more than `TOO_FEW`.

  Raises:
    errors.UserError: unequal lengths, values that are not finite, fewer than two episodes.
  """
  z, targets, episodes, names = probes.check(z, targets, episodes, names)
  if held_out is None:
    chosen = splits.split_by_episode(episodes, fraction, seed=seed, groups=groups)
  else:
    chosen = splits.given(episodes, held_out)
  found = _run(z, targets, episodes, names, [chosen], seed)
  half = _on_half(z, targets, episodes, chosen, found, seed)
  text = found.text
  if half is not None:
    text += f"; fitted on half of the training episodes: {half:.3f}"
    if half - found.mse > TOO_FEW:
      text += (
        f", more than {TOO_FEW:g} worse: too few windows for {z.shape[1]} numbers, more would "
        "tell more"
      )
  return dataclasses.replace(found, half=half, text=text)


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

  Arguments as for `probe`.
  """
  z, targets, episodes, names = probes.check(z, targets, episodes, names)
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
  """A linear map with intercept; call it with new inputs [N, Z] for outputs [N, A].

  Attributes:
    mean, scale, constant: of the inputs' columns [Z] (`probes.scale_of`). offset: [A]. weights: [Z,
      A], of standardized columns.
    ridges: chosen for each output [A], in units of the number of samples; infinity where the mean
      is the best guess.
  """

  mean: np.ndarray
  scale: np.ndarray
  constant: np.ndarray
  offset: np.ndarray
  weights: np.ndarray
  ridges: np.ndarray

  def __call__(self, inputs: np.ndarray) -> np.ndarray:
    return self.standard(inputs) @ self.weights + self.offset

  def standard(self, inputs: np.ndarray) -> np.ndarray:
    return np.where(self.constant, 0.0, (inputs - self.mean) / self.scale)


def fit(
  inputs: np.ndarray,
  outputs: np.ndarray,
  episodes: np.ndarray,
  *,
  shared: bool = False,
  seed: int = 0,
) -> Ridge:
  """Ridge regression, inputs [N, Z] -> outputs [N, A], with the ridge of least error on left-out
  episodes.

  Args:
    episodes: id of each sample [N]; no fold has samples of one episode on both sides. A single
      episode is cut into stretches.
    shared: one ridge for all outputs, as for one-hot labels that are compared with each other; else
      one for each.
    seed: of the folds.
  """
  if len(np.unique(episodes)) < 2:
    episodes = np.arange(len(inputs)) * FOLDS // len(inputs)
  squared = np.zeros((len(RIDGES), outputs.shape[1]))
  if len(np.unique(episodes)) > 1:
    for fold in splits.folds_by_episode(episodes, FOLDS, seed=seed):
      squared += path(
        inputs[fold.train], outputs[fold.train], inputs[fold.held_out], outputs[fold.held_out]
      )
  else:  # one sample
    squared[:-1] += 1
  if shared:
    squared = np.repeat(squared.sum(axis=1, keepdims=True), outputs.shape[1], axis=1)
  best = len(RIDGES) - 1 - squared[::-1].argmin(axis=0)  # of equals the largest
  return _fitted(inputs, outputs, np.asarray(RIDGES)[best])


def _fitted(inputs: np.ndarray, outputs: np.ndarray, ridges: np.ndarray) -> Ridge:
  """With given ridges [A]."""
  made = Ridge(
    *probes.scale_of(inputs),
    outputs.mean(axis=0),
    np.zeros((inputs.shape[1], outputs.shape[1])),
    ridges,
  )
  strength, directions, along = _spectrum(made.standard(inputs), outputs - made.offset)
  return dataclasses.replace(
    made, weights=directions @ (along / (strength[:, None] + ridges * len(inputs)))
  )


def path(inputs: np.ndarray, outputs: np.ndarray, new: np.ndarray, truth: np.ndarray) -> np.ndarray:
  """Summed squared error [G, A] on new samples of every ridge."""
  made = Ridge(
    *probes.scale_of(inputs),
    outputs.mean(axis=0),
    np.zeros((inputs.shape[1], outputs.shape[1])),
    np.zeros(0),
  )
  strength, directions, along = _spectrum(made.standard(inputs), outputs - made.offset)
  seen, missing = made.standard(new) @ directions, truth - made.offset
  return np.stack(
    [
      ((seen @ (along / (strength[:, None] + ridge * len(inputs))) - missing) ** 2).sum(axis=0)
      for ridge in RIDGES
    ]
  )


def _spectrum(inputs: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(strength [R], directions [Z, R], outputs along them [R, A]): the ridge solution is directions
  @ (along / (strength + ridge)).

  From the smaller of the two Gram matrices; directions that no sample has are left out.
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
  chosen: splits.Split,
  found: probes.ProbeResult,
  seed: int,
) -> float | None:
  """The error when each half of the training episodes is fitted on alone, mean of the two, in the
  units of the whole; None with fewer than 4 of them.
  """
  names = np.random.default_rng(seed).permutation(np.unique(episodes[chosen.train]))
  if len(names) < 4:
    return None
  _, scale, constant = probes.scale_of(targets[chosen.train])
  squared = []
  for part in (names[::2], names[1::2]):
    rows = chosen.train & np.isin(episodes, part)
    mean, own, _ = probes.scale_of(targets[rows])
    guess = (
      fit(z[rows], (targets[rows] - mean) / own, episodes[rows], seed=seed)(z[chosen.held_out])
      * own
      + mean
    )
    squared.append(((guess - found.true) ** 2).mean(axis=0) / scale**2)
  return None if constant.all() else float(np.mean(squared, axis=0)[~constant].mean())


def _run(
  z: np.ndarray,
  targets: np.ndarray,
  episodes: np.ndarray,
  names: tuple[str, ...],
  chosen: list[splits.Split],
  seed: int,
) -> probes.ProbeResult:
  used: list[np.ndarray] = []

  def predict(inputs, outputs, ids):
    fitted = fit(inputs, outputs, ids, seed=seed)
    used.append(fitted.ridges)
    return fitted

  def method():
    ridges = np.concatenate(used)
    span = (
      f"{ridges.min():.3g}"
      if ridges.min() == ridges.max()
      else f"{ridges.min():.3g} to {ridges.max():.3g}"
    )
    return (
      f"ridge regression, ridge {span} times the samples, chosen by {FOLDS} folds over training "
      "episodes for each dimension"
    )

  return probes.run(predict, z, targets, episodes, names=names, chosen=chosen, method=method)
