"""Shards are shuffled, then the samples of a few of them: each once an epoch."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from como_jax import data
from como_jax.data import block_order, motion_mixture, pipeline
from como_jax.data.batching import Batching, ProcessSlice
from como_jax.data.read_options import ReadOptions
from tests.data import makers

ENDS = np.array([5, 6, 20, 33, 40])


@pytest.mark.parametrize("together", [1, 2, 3, 9])
def test_every_sample_once_an_epoch_of_few_shards_at_a_time(together):
  order = block_order.BlockOrder(ENDS, together, 3)
  epochs = [[order(epoch * 40 + i) for i in range(40)] for epoch in range(3)]
  assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 3
  shard = np.searchsorted(ENDS, epochs[0], side="right")
  first = [int(np.flatnonzero(shard == i)[0]) for i in range(5)]
  last = [int(np.flatnonzero(shard == i)[-1]) for i in range(5)]
  open_at_once = max(sum(a <= i <= b for a, b in zip(first, last, strict=True)) for i in range(40))
  assert open_at_once <= together
  if together > 1:  # mixed, not one after the other
    assert (np.diff(shard) != 0).sum() > 8


def test_shards_are_shuffled_and_a_single_one_anew_each_epoch():
  order = block_order.BlockOrder(ENDS, 1, 3)
  shard = np.searchsorted(ENDS, [order(i) for i in range(120)], side="right")
  orders = [list(dict.fromkeys(part.tolist())) for part in np.split(shard, 3)]
  assert all(sorted(each) == list(range(5)) for each in orders) and orders[0] != orders[1]
  alone = block_order.BlockOrder(np.array([40]), 2, 3)
  assert [alone(i) for i in range(40)] != [alone(40 + i) for i in range(40)]


def test_a_place_depends_on_seed_and_number_alone():
  one = block_order.BlockOrder(ENDS, 2, 3)
  places = [101, 3, 39, 40, 0, 77]
  expected = [one(i) for i in places]
  again = pickle.loads(pickle.dumps(one))
  assert [again(i) for i in reversed(places)] == expected[::-1]
  assert [block_order.BlockOrder(ENDS, 2, 4)(i) for i in range(40)] != [one(i) for i in range(40)]
  assert [block_order.BlockOrder(ENDS, 3, 3)(i) for i in range(40)] != [one(i) for i in range(40)]


def test_where_the_windows_of_shards_end():
  table = SimpleNamespace(shard=np.array([4, 4, 9, 9, 2]))
  windows = SimpleNamespace(
    segments=SimpleNamespace(table=table, first_row=np.array([0, 2, 3, 4])),
    segment=np.array([0, 0, 1, 2, 3]),
    end=np.array([3, 5, 9, 10, 17]),
  )
  assert block_order.shard_ends(windows).tolist() == [5, 10, 17]


def test_batches_in_blocks_are_the_same_in_parts_and_from_a_later_step(tmp_path):
  path = makers.shards(tmp_path / "s", (20,) * 8, episodes_per_shard=2)
  sets = motion_mixture.MotionMixture(
    [data.DataSet(path, offset_seconds=0.3)], validation_fraction=0
  ).windows("train", frames=2)
  read = ReadOptions(threads=0, prefetch=0)

  def frames(count=4, **changes):
    batching = Batching(8, seed=1, **changes)
    batches = pipeline.batches(sets, pipeline.Layout(16, frames=2), batching, read)
    return [next(batches)["frames"] for _ in range(count)]

  whole = frames(shuffle_shards=2)
  assert not np.array_equal(whole[0], frames(1)[0])
  np.testing.assert_array_equal(frames(2, shuffle_shards=2, start_step=2), whole[2:])
  parts = [frames(shuffle_shards=2, process=ProcessSlice(i, 2)) for i in range(2)]
  np.testing.assert_array_equal(np.concatenate(parts, 1), whole)
