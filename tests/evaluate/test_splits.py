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


@pytest.mark.parametrize(
  "count, fraction, held",
  [
    (2, 0.2, 1),
    (2, 0.9, 1),
    (10, 0.2, 2),
    (10, 0.25, 2),
    (10, 0.26, 3),
    (10, 0.01, 1),
    (10, 0.99, 9),
    (4, 0.5, 2),
  ],
)
def test_how_many_episodes_are_held_out(count, fraction, held):
  split = splits.split_by_episode(np.arange(count), fraction)
  assert (split.held_out_episodes, split.train_episodes, int(split.held_out.sum())) == (
    held,
    count - held,
    held,
  )


def test_splits_by_hand():
  assert splits.split_by_episode(np.arange(20)).held_out_episodes == 4
  lone = splits.split_by_episode(np.arange(9), 0.5, groups=np.arange(9))  # no group has two
  assert lone.held_out_episodes == 4
  assert splits.split_by_episode(np.arange(3), 0.1, groups=np.arange(3)).held_out_episodes == 1
  groups = np.array([0, 0, 0, 0, 1])
  assert not splits.split_by_episode(np.arange(5), 0.5, groups=groups).held_out[4]
  found = splits.given([5, 5, 6, 7], [True, True, False, False])
  assert (
    str(found) == "2 training episodes (2 samples), 1 held-out episodes (2 samples)"
    and found.train.tolist() == [False, False, True, True]
  )
  for held, message in (
    ([True] * 4, "4 of 4 samples"),
    ([False] * 4, "0 of 4 samples"),
    ([True], r"shape \(1,\) and 1 of 4 samples"),
  ):
    with pytest.raises(errors.UserError, match=message):
      splits.given([5, 5, 6, 7], held)
  folds = list(splits.folds_by_episode(np.repeat(np.arange(7), 2), 3))
  assert [fold.held_out_episodes for fold in folds] == [3, 2, 2] and len(
    list(splits.folds_by_episode([0, 1, 2]))
  ) == 3
  assert (
    len(list(splits.folds_by_episode(np.arange(20)))) == 5
    and len(list(splits.folds_by_episode(np.arange(4), 2))) == 2
  )
  orders = [
    [fold.held_out.tolist() for fold in splits.folds_by_episode(np.arange(20), seed=seed)]
    for seed in (0, 0, 1)
  ]
  assert orders[0] == orders[1] != orders[2]
  dealt = list(splits.folds_by_episode(np.arange(8), 4, groups=np.arange(8) // 4))
  assert all(fold.held_out[:4].sum() == fold.held_out[4:].sum() == 1 for fold in dealt)
  for call, message in (
    (lambda: list(splits.folds_by_episode(np.arange(4), 1)), "^folds is 1, expected at least 2$"),
    (
      lambda: splits.split_by_episode([1, 1], 0.5),
      "^a split by episode needs at least 2 episodes, found 1$",
    ),
    (
      lambda: splits.split_by_episode([1, 2], 0.5, groups=[1]),
      r"^groups has shape \(1,\), expected \(2,\) as episodes$",
    ),
  ):
    with pytest.raises(errors.UserError, match=message):
      call()
