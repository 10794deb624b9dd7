"""Duplicates among hashes and motion made by hand."""

import numpy as np

from como_jax.data import duplicates
from como_jax.data.duplicates import Duplicate, Signature


def episode(seed, count=80, fps=20.0, start=0.0):
  """Random pictures that change every other frame, random motion."""
  rng = np.random.default_rng(seed)
  hashes = np.repeat(rng.integers(0, 2**63, (count + 1) // 2, dtype=np.uint64), 2)[:count]
  return Signature(
    start + np.arange(count) / fps, hashes, rng.uniform(0, 10, count).astype(np.float32)
  )


def flip(hashes, seed, share=0.5, bits=4):
  """Some hashes get other bits, as after encoding again."""
  rng = np.random.default_rng(seed)
  masks = np.array(
    [sum(1 << int(bit) for bit in rng.choice(64, bits, replace=False)) for _ in hashes], np.uint64
  )
  return np.where(rng.random(len(hashes)) < share, hashes ^ masks, hashes)


def test_a_trimmed_and_encoded_copy_is_found_with_its_place():
  one, other = episode(0), episode(1)
  copied = Signature(
    7 + np.arange(50) / 20, flip(one.picture_hash[20:70], 2), one.motion[20:70] * 1.1
  )
  (found,) = duplicates.find([other, one, copied])
  assert (found.episode, found.first, found.last, found.original) == (2, 0, 50, 1)
  assert abs(found.offset - (7 - 1.0)) < 0.05
  assert duplicates.mask([found], 2, 60).tolist() == [True] * 50 + [False] * 10
  assert not duplicates.mask([found], 1, 80).any()


def test_a_part_of_an_episode_may_be_known():
  one, other = episode(0), episode(1)
  hashes = np.concatenate([other.picture_hash[:40], one.picture_hash[:40]])
  motion = np.concatenate([other.motion[:40], one.motion[:40]])
  joined = Signature(np.arange(80) / 20, hashes, motion)
  (found,) = duplicates.find([one, joined])
  assert (found.first, found.last, found.original) == (40, 80, 0)


def test_another_frame_rate():
  slow = np.random.default_rng(5).uniform(0, 10, 9)
  times = np.arange(120) / 30, np.arange(100) / 25
  key = np.random.default_rng(6).integers(0, 2**63, 40, dtype=np.uint64)
  one, two = (
    Signature(t, key[(t * 8).astype(int)], np.interp(t, np.arange(9) / 2, slow)) for t in times
  )
  (found,) = duplicates.find([one, two])
  assert (found.first, found.last) == (0, 100)


def test_another_episode_of_the_same_scene_is_none():
  one = episode(0)
  other = Signature(one.times, flip(one.picture_hash, 2, bits=2), episode(1).motion)
  assert duplicates.find([one, other]) == []


def test_another_episode_that_moves_alike_is_none():
  """Scripted motion before one background: near hashes that vary little, the same motion."""
  one = episode(0)
  base = np.full(80, one.picture_hash[0])
  first, second = (
    Signature(one.times, flip(base, seed, share=1.0, bits=2), one.motion) for seed in (1, 2)
  )
  first.picture_hash[::8] = second.picture_hash[::8] = one.picture_hash[::8]  # votes
  assert duplicates.find([first, second]) == []


def test_nearer_pictures_may_move_less_alike():
  one = episode(0)
  # measured at 2/3 of the size, for example
  rough = one.motion + np.random.default_rng(7).normal(0, 2.0, 80)

  def copies(hashes, motion):
    return len(duplicates.find([one, Signature(one.times, hashes, motion)]))

  assert copies(flip(one.picture_hash, 2, share=0.2, bits=4), rough) == 1
  assert copies(flip(one.picture_hash, 2, share=0.9, bits=6), rough) == 0
  assert copies(flip(one.picture_hash, 2, share=0.9, bits=6), one.motion) == 1


def test_other_pictures_and_short_ones_are_none():
  one = episode(0)
  assert duplicates.find([one, episode(1), episode(2)]) == []
  short = Signature(one.times[:15], one.picture_hash[:15], one.motion[:15])
  assert duplicates.find([one, short]) == []
  assert duplicates.find([one, short], min_seconds=0.5) == [Duplicate(1, 0, 15, 0, 0.0)]
  far = Signature(one.times, flip(one.picture_hash, 3, share=0.7, bits=12), one.motion)
  assert duplicates.find([one, far]) == []


def test_pictures_that_tell_nothing_give_no_vote():
  rng = np.random.default_rng(0)
  plain = rng.choice(np.array([0, 1, 3, 2**64 - 1], np.uint64), 60)
  motion = rng.uniform(0, 1, 60)
  assert duplicates.find([Signature(np.arange(60) / 20, plain, motion)] * 2) == []


def test_nothing_to_compare():
  empty = Signature(np.zeros(0), np.zeros(0, np.uint64), np.zeros(0))
  assert duplicates.find([]) == [] and duplicates.find([empty, episode(0), empty]) == []


def test_a_picture_of_many_episodes_is_compared_with_few():
  title = np.array([0x0F0F0F0F0F0F0F0F], np.uint64)
  hashes = [np.concatenate([title, episode(i, 19).picture_hash]) for i in range(200)]
  many = [Signature(np.arange(20) / 20, hashes[i], episode(i, 20).motion) for i in range(200)]
  pairs = list(duplicates._equal_pictures(many))
  assert 0 < len(pairs) <= 200 * duplicates._MAX_PARTNERS
