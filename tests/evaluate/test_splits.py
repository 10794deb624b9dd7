"""Splits never put one episode on both sides."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.evaluate import splits


def _episodes(count=10, each=7):
  episodes = np.repeat(np.arange(count), each)
  return episodes, episodes % 3


def test_no_episode_on_both_sides():
  episodes, tasks = _episodes()
  for groups in (None, tasks):
    split = splits.split_by_episode(episodes, 0.3, seed=1, groups=groups)
    assert not set(episodes[split.train]) & set(episodes[split.held_out])
    assert (split.train ^ split.held_out).all()
    assert split.train_episodes + split.held_out_episodes == 10
    assert split.held_out.sum() == 7 * split.held_out_episodes == 21


def test_every_group_gives_its_share():
  episodes, tasks = _episodes(12)
  split = splits.split_by_episode(episodes, 0.25, groups=tasks)
  assert [len(np.unique(episodes[split.held_out & (tasks == task)])) for task in range(3)] == [
    1,
    1,
    1,
  ]


def test_one_episode_a_group_still_holds_something_out():
  split = splits.split_by_episode(
    np.array(["a", "a", "b", "c"]), 0.3, groups=np.array([0, 0, 1, 2])
  )
  assert split.held_out_episodes == 1 and split.train_episodes == 2


def test_seed_decides_and_repeats():
  episodes, _ = _episodes(30)
  first, again, other = (
    splits.split_by_episode(episodes, seed=seed).held_out for seed in (0, 0, 1)
  )
  assert (first == again).all() and (first != other).any()


def test_folds_hold_every_episode_out_once():
  episodes, tasks = _episodes()
  folds = list(splits.folds_by_episode(episodes, 4, groups=tasks))
  assert len(folds) == 4 and (sum(fold.held_out.astype(int) for fold in folds) == 1).all()
  assert all(not set(episodes[fold.train]) & set(episodes[fold.held_out]) for fold in folds)


@pytest.mark.parametrize(
  "episodes, fraction", [([1, 1, 1], 0.2), ([1, 2], 0.0), ([1, 2], 1.0), ([[1, 2]], 0.5)]
)
def test_bad_input(episodes, fraction):
  with pytest.raises(errors.UserError):
    splits.split_by_episode(episodes, fraction)
