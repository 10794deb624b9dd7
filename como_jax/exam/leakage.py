"""How much appearance can be predicted from z.

Legend: N pairs, Z latent width, K classes or numbers.

A latent that holds only motion does not predict the scene, the camera, the objects, the colors or
the picture itself.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.exam import kernel_ridge, resampling, whitening
from como_jax.exam.resampling import Estimate

# Appearance counts as readable above this share of the way from chance to perfect accuracy.
FLAG = 0.1
# The second picture counts as rebuilt if it is predicted better than the first by more than this,
# in units of their variance. The true second pose has 0.14, and the end of its interval changes by
# 0.02 between splits.
GAP = 0.2
HELD_OUT = 0.25  # share of the trajectories that is held out
MIN_TRAJECTORIES = 8  # minimum number of trajectories


@dataclasses.dataclass(frozen=True)
class Identity:
  """How well a label is predicted on held-out trajectories.

  Attributes:
    excess: (accuracy - chance) / (1 - chance): 0 = chance, 1 = perfect.
    accuracy: balanced accuracy: the mean over classes, so that a frequent class has no more weight.
    chance: 1 / number of classes.
    classes: classes that occur on both sides of the split.
    flagged: the interval of `excess` is above `FLAG`.
    text: describes the probe.
  """

  excess: Estimate
  accuracy: Estimate
  chance: float
  classes: tuple[Any, ...]
  flagged: bool
  text: str


@dataclasses.dataclass(frozen=True)
class R2:
  """R2 of predicted numbers: the share of their variance that is predicted.

  1 = all, 0 = as good as their mean, below 0 = worse than their mean.

  Attributes:
    total: for the sum over all numbers.
    by_number: for each number [K]; nan if a number is constant.
  """

  total: Estimate
  by_number: np.ndarray


@dataclasses.dataclass(frozen=True)
class PictureLeakage:
  """How well z alone predicts the pictures themselves.

  Attributes:
    first, second: R2 of each picture.
    gap: squared error of the first picture minus that of the second, in units of the mean of their
      variances. It is above 0 if z predicts the second picture better. Both errors have the same
      unit, because the second picture varies more, by the move. A pure displacement predicts a
      share of the second picture and none of the first, but has equal errors.
  """

  first: R2
  second: R2
  gap: Estimate

  @property
  def flagged(self) -> bool:
    """Whether the interval of `gap` is above `GAP`."""
    return self.gap.low > GAP


def identities(
  z: Any,
  labels: Mapping[str, Any],
  trajectories: Any,
  *,
  seed: int = 0,
  resamples: int = resampling.RESAMPLES,
) -> dict[str, Identity]:
  """How well labels are predicted from whitened z beyond chance, on one split by trajectories.

  The probe is one-vs-rest kernel ridge regression on one-hot classes. An inner split of the
  training trajectories chooses a linear or an RBF kernel. The predicted class is the one with the
  largest output divided by its frequency. Intervals are over held-out trajectories.

  Args:
    z: [N, Z].
    labels: name -> class of each pair [N], numbers or text.
    trajectories: trajectory (chain) of each pair [N]; each is on one side of the split.
    seed: seed of the split and of the bootstrap.
    resamples: number of bootstrap draws.

  Raises:
    errors.UserError: unequal lengths, values that are not finite, fewer than two classes on both
      sides of the split, fewer than eight trajectories.
  """
  z, trajectories = whitening.matrix(z, "z"), np.asarray(trajectories).reshape(-1)
  labels = {name: np.asarray(values).reshape(-1) for name, values in labels.items()}
  for name, values in {**labels, "trajectories": trajectories}.items():
    if len(values) != len(z):
      raise errors.UserError(
        f"{name}: expected [{len(z)}], one for each row of z, found [{len(values)}]"
      )
  train, held = _split(trajectories, seed)
  tables = {name: _one_hot(name, values, train, held) for name, values in labels.items()}
  blocks = np.concatenate(
    [np.full(len(classes), b) for b, (classes, _) in enumerate(tables.values())]
  )
  one_hot = np.concatenate([table for _, table in tables.values()], axis=1)
  probe = kernel_ridge.fit(
    z[train], one_hot[train], groups=trajectories[train], seed=seed, blocks=blocks
  )
  answers = probe.predict(z[held]) / one_hot[train].mean(axis=0)
  draws = resampling.groups_of(trajectories[held], seed=seed, resamples=resamples)
  result = {}
  for b, (name, (classes, table)) in enumerate(tables.items()):
    hits = np.eye(len(classes))[answers[:, blocks == b].argmax(axis=1)] * table[held]
    chance = 1 / len(classes)
    accuracy = _balanced(hits, table[held], draws)
    excess = dataclasses.replace(
      accuracy,
      **{f: (getattr(accuracy, f) - chance) / (1 - chance) for f in ("value", "low", "high")},
      error=accuracy.error / (1 - chance),
    )
    width, ridge = probe.chosen[int(np.flatnonzero(blocks == b)[0])]
    kind = f"{'linear' if width is None else f'RBF of width {width:g}'} kernel ridge {ridge:.2g}"
    kind = "the mean" if np.isinf(ridge) else kind
    sizes = f"{len(train)} pairs to fit, {len(held)} held out"
    text = f"{len(classes)} classes, {kind}, {sizes}"
    result[name] = Identity(
      excess, accuracy, chance, tuple(classes.tolist()), excess.low > FLAG, text
    )
  return result


def future(
  z: Any,
  first: Any,
  second: Any,
  *,
  chains: Any,
  seed: int = 0,
  resamples: int = resampling.RESAMPLES,
) -> PictureLeakage:
  """How well the first and the second picture can be predicted from z alone, on held-out chains.

  A latent that holds only motion predicts neither. A latent that holds the future picture predicts
  the second.

  Args:
    z: [N, Z].
    first: principal components of each picture's tokens [N, C], not standardized, so that each
      component has the weight of its variance.
    second: as `first`, for the second picture.
    chains: chain of each pair [N]; each is on one side of the split.
    seed: seed of the split and of the bootstrap.
    resamples: number of bootstrap draws.

  Raises:
    errors.UserError: unequal lengths, values that are not finite, fewer than eight chains.
  """
  z, chains = whitening.matrix(z, "z"), np.asarray(chains).reshape(-1)
  pictures = [
    whitening.matrix(values, name) for values, name in ((first, "first"), (second, "second"))
  ]
  if not len(z) == len(chains) == len(pictures[0]) == len(pictures[1]):
    raise errors.UserError(
      f"z, first, second and chains hold {len(z)}, {len(pictures[0])}, {len(pictures[1])} and "
      f"{len(chains)} rows, expected equally many"
    )
  train, held = _split(chains, seed)
  width = pictures[0].shape[1]
  both = np.concatenate(pictures, axis=1)
  blocks = np.repeat([0, 1], width)  # one kernel for each picture
  probe = kernel_ridge.fit(z[train], both[train], groups=chains[train], seed=seed, blocks=blocks)
  predicted = probe.predict(z[held])
  mean = both[train].mean(axis=0)
  sides = [slice(0, width), slice(width, None)]
  options = {"seed": seed, "resamples": resamples}
  first_r2, second_r2 = (
    r2(predicted[:, s], both[held][:, s], mean[s], groups=chains[held], **options) for s in sides
  )
  table = np.stack(
    [v for s in sides for v in _sums(predicted[:, s], both[held][:, s], mean[s])], axis=1
  )
  gap = resampling.of_means(
    table,
    resampling.groups_of(chains[held], **options),
    lambda m: 2 * (m[..., 0] - m[..., 2]) / (m[..., 1] + m[..., 3]),
  )
  return PictureLeakage(first_r2, second_r2, gap)


def r2(
  predicted: Any,
  truth: Any,
  mean: Any,
  *,
  groups: Any,
  seed: int = 0,
  resamples: int = resampling.RESAMPLES,
) -> R2:
  """R2 of a prediction, with an interval over groups.

  Args:
    predicted: [M, K].
    truth: [M, K].
    mean: mean of the training samples [K]; the variance is the squared distance from it.
    groups: group of each row [M].
    seed: seed of the bootstrap.
    resamples: number of bootstrap draws.

  Raises:
    errors.UserError: unequal shapes, values that are not finite, fewer than two groups.
  """
  truth, predicted = (
    whitening.matrix(truth, "numbers"),
    whitening.matrix(predicted, "predicted numbers"),
  )
  if truth.shape != predicted.shape:
    raise errors.UserError(
      f"predicted numbers: expected {list(truth.shape)}, found {list(predicted.shape)}"
    )
  error, variance = ((predicted - truth) ** 2).mean(axis=0), ((truth - mean) ** 2).mean(axis=0)
  with np.errstate(divide="ignore", invalid="ignore"):
    by_number = np.where(variance > 0, 1 - error / variance, np.nan)
  if not variance.any():
    return R2(Estimate(float("nan")), by_number)
  table = np.stack(_sums(predicted, truth, mean), axis=1)
  draws = resampling.groups_of(groups, seed=seed, resamples=resamples)
  return R2(resampling.of_means(table, draws, lambda m: 1 - m[..., 0] / m[..., 1]), by_number)


def _sums(
  predicted: np.ndarray, truth: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """(squared errors, squared distances from the mean) of the rows [M]."""
  return ((predicted - truth) ** 2).sum(axis=1), ((truth - mean) ** 2).sum(axis=1)


def _split(trajectories: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  names, index = np.unique(trajectories, return_inverse=True)
  if len(names) < MIN_TRAJECTORIES:
    raise errors.UserError(
      f"reading classes or pictures needs at least {MIN_TRAJECTORIES} trajectories, found "
      f"{len(names)}"
    )
  held = np.random.default_rng([seed, 7]).permutation(len(names))[: round(HELD_OUT * len(names))]
  return np.flatnonzero(~np.isin(index, held)), np.flatnonzero(np.isin(index, held))


def _one_hot(
  name: str, values: np.ndarray, train: np.ndarray, held: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """(classes that occur on both sides, one-hot [N, classes]); rows of other classes are 0."""
  classes = np.intersect1d(values[train], values[held])
  if len(classes) < 2:
    raise errors.UserError(
      f"{name}: expected at least 2 classes on both sides of the split, found {len(classes)}"
    )
  return classes, (values[:, None] == classes).astype(np.float64)


def _balanced(correct: np.ndarray, labels: np.ndarray, draws: resampling.Groups) -> Estimate:
  """Balanced accuracy: the mean over classes of the share of rows with a correct prediction.

  Classes without rows in a bootstrap draw are left out of its mean.

  Args:
    correct: one-hot [M, classes] of the true class where the prediction is correct, else 0.
    labels: one-hot [M, classes] of the true classes.
    draws: bootstrap draws.
  """

  def mean(table: np.ndarray) -> np.ndarray:
    hits, rows = np.split(table, 2, axis=-1)
    share = np.divide(hits, rows, out=np.zeros_like(hits), where=rows > 0)
    return share.sum(axis=-1) / (rows > 0).sum(axis=-1)

  return resampling.of_means(np.concatenate([correct, labels], axis=1), draws, mean)
