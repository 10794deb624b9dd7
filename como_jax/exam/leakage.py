"""How much appearance can be read from z. Legend: N pairs, Z latent width, K classes or numbers.

A latent of motion tells neither which scene, camera, objects or colors it was seen with, nor how a
picture looks.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.exam import kernel_ridge, resampling
from como_jax.exam.resampling import Estimate

FLAG = 0.1  # of the way from chance to perfect reading: appearance counts as readable from here
# By which the second picture is known better than the first, in units of their variance, from which
# it counts as rebuilt. The true second pose has 0.14, and its interval's end moves by 0.02 from
# split to split.
GAP = 0.2
HELD_OUT = 0.25  # of the trajectories
LEAST = 8  # of them


@dataclasses.dataclass(frozen=True)
class Identity:
  """How well a class is read on held-out trajectories.

  Attributes:
    excess: (accuracy - chance) / (1 - chance): 0 = nothing is read, 1 = every one.
    accuracy: mean of the classes' accuracies, so that a common class does not flatter.
    chance: 1 / classes.
    classes: those of both sides of the split.
    flagged: the interval of `excess` lies above `FLAG`.
    text: the probe.
  """

  excess: Estimate
  accuracy: Estimate
  chance: float
  classes: tuple[Any, ...]
  flagged: bool
  text: str


@dataclasses.dataclass(frozen=True)
class Reading:
  """Share of the variance of numbers that is read: 1 = all, 0 = no more than their mean, below 0 =
  worse.

  `share` is of the sum over all numbers, `by_number` [K] of each (nan where a number is constant).
  """

  share: Estimate
  by_number: np.ndarray


@dataclasses.dataclass(frozen=True)
class Pictures:
  """What z alone tells of the pictures themselves.

  Attributes:
    first, second: share of each picture's variance that z tells.
    gap: squared error of the first picture minus that of the second, in units of the mean of their
      variances: above 0 where z knows the second picture better. One unit for both, since the
      second varies more, by the move: a displacement tells a share of the second picture and none
      of the first, and has the same errors.
    flagged: the interval of `gap` lies above `GAP`.
  """

  first: Reading
  second: Reading
  gap: Estimate

  @property
  def flagged(self) -> bool:
    return self.gap.low > GAP


def identities(
  z: Any,
  labels: Mapping[str, Any],
  trajectories: Any,
  *,
  seed: int = 0,
  resamples: int = resampling.RESAMPLES,
) -> dict[str, Identity]:
  """How well each of several classes is read from whitened z beyond chance, on one split by
  trajectories.

  One-vs-rest kernel ridge regression on one-hot numbers; linear or RBF, as an inner split of the
  training trajectories says; the class with the largest prediction in units of its frequency is the
  answer. The interval is over held-out trajectories.

  Args:
    z: [N, Z].
    labels: name -> [N], numbers or text.
    trajectories: of the pairs [N] (chains); each falls on one side of the split.
    seed: of the split and the bootstrap.
    resamples: draws.

  Raises:
    errors.UserError: unequal lengths, values that are not finite, fewer than two classes on both
      sides of the split, fewer than eight trajectories.
  """
  z, trajectories = kernel_ridge.matrix(z, "z"), np.asarray(trajectories).reshape(-1)
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
    right = np.eye(len(classes))[answers[:, blocks == b].argmax(axis=1)] * table[held]
    chance = 1 / len(classes)
    accuracy = _balanced(right, table[held], draws)
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
) -> Pictures:
  """How much of the first and of the second picture can be rebuilt from z alone, on held-out
  chains.

  A latent that is only motion rebuilds neither; one that holds the future picture rebuilds the
  second.

  Args:
    z: [N, Z].
    first, second: principal components of each picture's tokens [N, C], not standardized: their
      variances weigh them.
    chains: of the pairs [N]; each falls on one side of the split.
    seed: of the split and the bootstrap.
    resamples: draws.

  Raises:
    errors.UserError: unequal lengths, values that are not finite, fewer than eight chains.
  """
  z, chains = kernel_ridge.matrix(z, "z"), np.asarray(chains).reshape(-1)
  pictures = [
    kernel_ridge.matrix(values, name) for values, name in ((first, "first"), (second, "second"))
  ]
  if not len(z) == len(chains) == len(pictures[0]) == len(pictures[1]):
    raise errors.UserError(
      f"z, first, second and chains hold {len(z)}, {len(pictures[0])}, {len(pictures[1])} and "
      f"{len(chains)} rows, expected equally many"
    )
  train, held = _split(chains, seed)
  width = pictures[0].shape[1]
  together = np.concatenate(pictures, axis=1)
  blocks = np.repeat([0, 1], width)  # one kernel for a picture
  probe = kernel_ridge.fit(
    z[train], together[train], groups=chains[train], seed=seed, blocks=blocks
  )
  predicted = probe.predict(z[held])
  mean = together[train].mean(axis=0)
  sides = [slice(0, width), slice(width, None)]
  options = {"seed": seed, "resamples": resamples}
  found = [
    reading(predicted[:, s], together[held][:, s], mean[s], groups=chains[held], **options)
    for s in sides
  ]
  table = np.stack(
    [v for s in sides for v in _sums(predicted[:, s], together[held][:, s], mean[s])], axis=1
  )
  gap = resampling.of_means(
    table,
    resampling.groups_of(chains[held], **options),
    lambda m: 2 * (m[..., 0] - m[..., 2]) / (m[..., 1] + m[..., 3]),
  )
  return Pictures(found[0], found[1], gap)


def reading(
  predicted: Any,
  truth: Any,
  mean: Any,
  *,
  groups: Any,
  seed: int = 0,
  resamples: int = resampling.RESAMPLES,
) -> Reading:
  """Share of the squared distance of numbers [M, K] from the mean of the fit [K] that a prediction
  takes away.
  """
  truth, predicted = (
    kernel_ridge.matrix(truth, "numbers"),
    kernel_ridge.matrix(predicted, "predicted numbers"),
  )
  if truth.shape != predicted.shape:
    raise errors.UserError(
      f"predicted numbers: expected {list(truth.shape)}, found {list(predicted.shape)}"
    )
  wrong, whole = ((predicted - truth) ** 2).mean(axis=0), ((truth - mean) ** 2).mean(axis=0)
  with np.errstate(divide="ignore", invalid="ignore"):
    by_number = np.where(whole > 0, 1 - wrong / whole, np.nan)
  if not whole.any():
    return Reading(Estimate(float("nan")), by_number)
  table = np.stack(_sums(predicted, truth, mean), axis=1)
  draws = resampling.groups_of(groups, seed=seed, resamples=resamples)
  return Reading(resampling.of_means(table, draws, lambda m: 1 - m[..., 0] / m[..., 1]), by_number)


def _sums(
  predicted: np.ndarray, truth: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """(squared error, squared distance from the mean) of each row [M]."""
  return ((predicted - truth) ** 2).sum(axis=1), ((truth - mean) ** 2).sum(axis=1)


def _split(trajectories: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  names, index = np.unique(trajectories, return_inverse=True)
  if len(names) < LEAST:
    raise errors.UserError(
      f"reading classes or pictures needs at least {LEAST} trajectories, found {len(names)}"
    )
  held = np.random.default_rng([seed, 7]).permutation(len(names))[: round(HELD_OUT * len(names))]
  return np.flatnonzero(~np.isin(index, held)), np.flatnonzero(np.isin(index, held))


def _one_hot(
  name: str, values: np.ndarray, train: np.ndarray, held: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """(classes of both sides, one-hot [N, classes]); rows of other classes are 0."""
  classes = np.intersect1d(values[train], values[held])
  if len(classes) < 2:
    raise errors.UserError(
      f"{name}: expected at least 2 classes on both sides of the split, found {len(classes)}"
    )
  return classes, (values[:, None] == classes).astype(np.float64)


def _balanced(right: np.ndarray, there: np.ndarray, draws: resampling.Groups) -> Estimate:
  """Mean over classes of the share of rows that is read right; classes that a draw left out do not
  count.
  """

  def mean(table: np.ndarray) -> np.ndarray:
    hits, rows = np.split(table, 2, axis=-1)
    share = np.divide(hits, rows, out=np.zeros_like(hits), where=rows > 0)
    return share.sum(axis=-1) / (rows > 0).sum(axis=-1)

  return resampling.of_means(np.concatenate([right, there], axis=1), draws, mean)
