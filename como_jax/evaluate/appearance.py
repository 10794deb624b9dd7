"""How well z predicts what it should not hold: the camera, the task, the scene.

This is the counterpart of the linear probe: a motion latent predicts the action and not the camera.
The classifier is ridge regression onto one-hot labels, with one ridge for all labels.

Legend: N samples, Z latent width.
"""

import dataclasses
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.evaluate import arrays, linear_probe, splits


@dataclasses.dataclass(frozen=True)
class Identity:
  """Held-out accuracy of a linear classifier that predicts a label from z.

  Attributes:
    accuracy: balanced accuracy: the mean over classes, so that a frequent class has no more weight.
    chance: 1 / number of classes.
    excess: (accuracy - chance) / (1 - chance): 0 = chance, 1 = perfect; below 0 is noise.
    standard_error: of `excess`, by bootstrap over held-out episodes; None with fewer than two.
    classes: the labels.
    by_class: accuracy of each class [classes]; nan if no sample of the class is held out.
    text: describes the classifier and the split.
  """

  accuracy: float
  chance: float
  excess: float
  standard_error: float | None
  classes: tuple[str, ...]
  by_class: np.ndarray
  text: str


def identity(
  z: Any, labels: Any, *, episodes: Any, groups: Any = None, fraction: float = 0.2, seed: int = 0
) -> Identity:
  """Accuracy of predicting a label (camera, task, scene) from z.

  For a motion latent, lower is better.

  Args:
    z: latents [N, Z].
    labels: label of each sample [N], numbers or text.
    episodes: episode id of each sample [N]; all cameras of an episode are on the same side.
    groups: as for `splits.split_by_episode`; pass the labels themselves if each episode has one
      label (a task).
    fraction: share of episodes to hold out.
    seed: seed of the split.

  Raises:
    errors.UserError: fewer than two labels, fewer than two episodes, or unequal lengths.
  """
  z, labels = arrays.finite(z, "z"), np.asarray(labels)
  if not len(z) == len(labels) == len(np.asarray(episodes)):
    raise errors.UserError(
      f"z, labels and episodes hold {len(z)}, {len(labels)} and {len(np.asarray(episodes))} "
      "samples, expected the same number"
    )
  classes, index = np.unique(labels, return_inverse=True)
  if len(classes) < 2:
    raise errors.UserError(
      "reading identity needs at least 2 labels, found only "
      f"{classes[0] if len(classes) else 'none'}"
    )
  split = splits.split_by_episode(episodes, fraction, seed=seed, groups=groups)
  one_hot = np.eye(len(classes))[index]
  fitted = linear_probe.fit(
    z[split.train], one_hot[split.train], np.asarray(episodes)[split.train], shared=True, seed=seed
  )
  correct = fitted(z[split.held_out]).argmax(axis=1) == index[split.held_out]
  present = [correct[index[split.held_out] == c] for c in range(len(classes))]
  by_class = np.array([part.mean() if len(part) else np.nan for part in present])
  accuracy, chance = float(np.nanmean(by_class)), 1.0 / len(classes)
  text = (
    f"linear classifier, {len(classes)} classes, {split}; mean of the classes' accuracies; "
    f"ridge {fitted.ridges[0]:.3g} times the samples"
  )
  return Identity(
    accuracy=accuracy,
    chance=chance,
    excess=(accuracy - chance) / (1 - chance),
    standard_error=_bootstrap_error(
      correct, index[split.held_out], np.asarray(episodes)[split.held_out], chance
    ),
    classes=tuple(str(c) for c in classes),
    by_class=by_class,
    text=text,
  )


def _bootstrap_error(
  correct: np.ndarray, classes: np.ndarray, episodes: np.ndarray, chance: float, *, draws: int = 500
) -> float | None:
  """Standard error of the excess, by bootstrap over the held-out episodes."""
  names, ids = np.unique(episodes, return_inverse=True)
  class_names, class_ids = np.unique(classes, return_inverse=True)
  if len(names) < 2:
    return None
  counts = np.zeros((2, len(names), len(class_names)))
  np.add.at(counts[0], (ids, class_ids), correct)
  np.add.at(counts[1], (ids, class_ids), 1.0)
  drawn = np.random.default_rng(0).integers(len(names), size=(draws, len(names)))
  hits, totals = counts[:, drawn].sum(axis=2)
  by_class = np.divide(hits, totals, out=np.full_like(hits, np.nan), where=totals > 0)
  return float(np.std(np.nanmean(by_class, axis=1), ddof=1) / (1 - chance))
