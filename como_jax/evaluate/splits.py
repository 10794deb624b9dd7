"""Splits samples into training and held-out episodes.

Neighboring clips of one episode are nearly equal, so a split by sample would measure memory. All
probes split by episode.

Legend: N samples.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from como_jax import errors


@dataclasses.dataclass(frozen=True)
class Split:
  """Training and held-out samples; no episode has samples on both sides.

  Attributes:
    train, held_out: bool [N].
    train_episodes, held_out_episodes: numbers of episodes.
  """

  train: np.ndarray
  held_out: np.ndarray
  train_episodes: int
  held_out_episodes: int

  def __str__(self) -> str:
    return (
      f"{self.train_episodes} training episodes ({int(self.train.sum())} samples), "
      f"{self.held_out_episodes} held-out episodes ({int(self.held_out.sum())} samples)"
    )


@dataclasses.dataclass(frozen=True)
class Share:
  """Episodes to hold out, to be drawn.

  Attributes:
    fraction: share of episodes to hold out.
    groups: group (for example task) of each sample [N]; the same share of episodes is held out of
      each group. None: one group.
  """

  fraction: float = 0.2
  groups: Any = None


def choose(episodes: Any, held_out: Any, *, seed: int) -> Split:
  """The split of a probe.

  Args:
    episodes: episode id of each sample [N].
    held_out: a `Share`, or an existing split as bool [N]; None: `Share()`.
    seed: seed of the choice.

  Raises:
    errors.UserError: as for `split_by_episode` and `given`.
  """
  share = Share() if held_out is None else held_out
  if isinstance(share, Share):
    return split_by_episode(episodes, share.fraction, seed=seed, groups=share.groups)
  return given(episodes, share)


def split_by_episode(
  episodes: Any, fraction: float = 0.2, *, seed: int = 0, groups: Any = None
) -> Split:
  """Holds out whole episodes, the same share of each group.

  Args:
    episodes: episode id of each sample [N], numbers or text.
    fraction: share of episodes to hold out, in (0, 1); at least one episode is on each side.
    seed: seed of the choice.
    groups: group (for example task) of each sample [N]. A group with one episode is used for
      training, unless nothing would be held out.

  Raises:
    errors.UserError: fewer than two episodes, or a fraction outside (0, 1).
  """
  if not 0.0 < fraction < 1.0:
    raise errors.UserError(f"held-out fraction is {fraction}, expected a number between 0 and 1")
  rng = np.random.default_rng(seed)
  episodes, grouped = _episodes_by_group(episodes, groups)
  held: list[Any] = []
  for names in grouped:
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    held.extend(rng.permutation(names)[:count])
  if not held:
    names = np.concatenate(grouped)
    held.extend(rng.permutation(names)[: max(1, round(fraction * len(names)))])
  return _split(episodes, np.asarray(held))


def folds_by_episode(
  episodes: Any, folds: int = 5, *, seed: int = 0, groups: Any = None
) -> Iterator[Split]:
  """K-fold splits by episode: every episode is held out exactly once.

  Args:
    episodes: episode id of each sample [N].
    folds: number of folds, at most the number of episodes.
    seed: seed of the order in which episodes are assigned to folds.
    groups: group of each sample [N]; the episodes of each group are distributed evenly.

  Raises:
    errors.UserError: fewer than two episodes or folds.
  """
  rng = np.random.default_rng(seed)
  episodes, grouped = _episodes_by_group(episodes, groups)
  if folds < 2:
    raise errors.UserError(f"folds is {folds}, expected at least 2")
  order = np.concatenate([rng.permutation(names) for names in grouped])
  folds = min(folds, len(order))
  for fold in range(folds):
    yield _split(episodes, order[fold::folds])


def _episodes_by_group(episodes: Any, groups: Any) -> tuple[np.ndarray, list[np.ndarray]]:
  episodes = np.asarray(episodes)
  if episodes.ndim != 1:
    raise errors.UserError(f"episodes has shape {episodes.shape}, expected one id a sample, [N]")
  names, first = np.unique(episodes, return_index=True)
  if len(names) < 2:
    raise errors.UserError(f"a split by episode needs at least 2 episodes, found {len(names)}")
  if groups is None:
    return episodes, [names]
  groups = np.asarray(groups)
  if groups.shape != episodes.shape:
    raise errors.UserError(
      f"groups has shape {groups.shape}, expected {episodes.shape} as episodes"
    )
  group = groups[first]
  return episodes, [names[group == value] for value in np.unique(group)]


def given(episodes: Any, held_out: Any) -> Split:
  """Builds a split from an existing mask.

  Args:
    episodes: episode id of each sample [N].
    held_out: whether each sample is held out, bool [N].

  Raises:
    errors.UserError: an episode has samples on both sides, or one side is empty.
  """
  episodes, mask = np.asarray(episodes), np.asarray(held_out, bool)
  if mask.shape != episodes.shape or mask.all() or not mask.any():
    raise errors.UserError(
      f"held_out has shape {mask.shape} and {int(mask.sum())} of {len(episodes)} samples, "
      "expected some on both sides"
    )
  held = np.unique(episodes[mask])
  both = np.intersect1d(held, episodes[~mask])
  if len(both):
    raise errors.UserError(
      f"{len(both)} episodes have samples on both sides of the split, the first: {both[0]}"
    )
  return _split(episodes, held)


def _split(episodes: np.ndarray, held: np.ndarray) -> Split:
  held_out = np.isin(episodes, held)
  return Split(
    train=~held_out,
    held_out=held_out,
    train_episodes=len(np.unique(episodes[~held_out])),
    held_out_episodes=len(np.unique(held)),
  )
