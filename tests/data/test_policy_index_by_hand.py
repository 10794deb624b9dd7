"""Entries, chunks and examples by hand."""

import dataclasses

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import policy_index
from como_jax.data.times import FrameTimes
from tests.data import test_index


@pytest.mark.parametrize(
  "change, message",
  [
    ({"weight": 0.0}, "^data set n: weight is 0.0, expected more than 0$"),
    ({"views": "both"}, "^data set n: unknown views 'both'"),
    ({"robot": ""}, "neither a robot nor labels"),
    ({"robot": "", "labels": "l"}, None),
    ({"episodes": (0, 1)}, None),
    (
      {"episodes": (-1, 1)},
      r"episodes are \(-1, 1\), expected \(first, last\) with 0 <= first < last$",
    ),
    ({"episodes": (2, 2)}, "episodes are"),
    ({"episodes": (1,)}, "episodes are"),
    ({"episodes": (0, 1.5)}, "episodes are"),
    ({"episodes": (np.int64(0), np.int64(2))}, None),
  ],
)
def test_entries_of_a_mixture(change, message):
  one = dataclasses.replace(policy_index.PolicySet("p/n", robot="arm"), **change)
  if message is None:
    assert one.check() is one
  else:
    with pytest.raises(errors.UserError, match=message):
      one.check()


def test_chunks_by_hand():
  even, uneven = (
    FrameTimes(0.0, 0.1, 6),
    FrameTimes(0.0, 0.2, 5, np.array([0.0, 0.1, 0.2, 0.9, 1.0])),
  )
  for times, t, step, edges, begins in (
    (even, 2, 0.0, [2, 3, 4, 5], [1, 1, 1]),
    (even, 4, 0.0, [4, 5, 6, 6], [1, 1, 0]),
    (even, 1, 0.2, [1, 3, 5, 6], [1, 1, 1]),
    (even, 5, 0.2, [5, 6, 6, 6], [1, 0, 0]),
    (even, 0, 0.15, [0, 1, 3, 4], [1, 0, 1]),
    (uneven, 0, 0.2, [0, 2, 2, 3], [1, 0, 0]),
  ):
    found = policy_index.chunk_edges(times, t, step, 3)
    assert (found[0].tolist(), found[1].astype(int).tolist()) == (edges, begins), (t, step)
  assert policy_index.history_frames(even, 2, 0.0, 4).tolist() == [
    0,
    0,
    1,
    2,
  ] and policy_index.history_frames(even, 4, 0.2, 3).tolist() == [0, 2, 4]
  assert policy_index.history_frames(even, 5, 0.2, 1).tolist() == [
    5
  ] and policy_index.history_frames(uneven, 3, 0.2, 3).tolist() == [2, 3, 3]


def test_examples_by_hand():
  records = test_index.table([("x", 0, 4, 10), ("x", 4, 3, 10), ("y", 0, 5, 10)])
  records.has_action[:] = [True, False, False]
  whole, keep = np.ones(3, bool), np.array([True, True, False])

  def make(**given):
    return policy_index.enumerate_examples(
      records,
      **dict(
        split_mask=whole,
        example_mask=keep,
        cameras=(1, 0),
        views="together",
        actions=True,
        offset_seconds=0.2,
      )
      | given,
    )

  found = make()
  # four with actions, one with a motion
  assert [dataclasses.astuple(found[i]) for i in range(len(found))] == [
    (0, -1, t) for t in range(5)
  ]
  assert [column.tolist() for column in found.frame_ranges()] == [
    [0],
    [0],
    [5],
  ] and found.rows().tolist() == [0, 1]
  assert (
    len(make(offset_seconds=None)) == 4
    and len(make(actions=False)) == 5
    and len(make(actions=False, offset_seconds=None)) == 0
  )
  assert make(actions=False, offset_seconds=None).rows().tolist() == []
  each = make(views="each", example_mask=whole)
  assert [dataclasses.astuple(each[i]) for i in (0, 4, 5, 9, 10, 12, 13, 15)] == [
    (0, 0, 0),
    (0, 0, 4),
    (0, 1, 0),
    (0, 1, 4),
    (1, 0, 0),
    (1, 0, 2),
    (1, 1, 0),
    (1, 1, 2),
  ] and len(each) == 16
  assert [column.tolist() for column in each.frame_ranges()] == [[0, 1], [0, 0], [5, 3]]
  for i in (-1, 16):
    with pytest.raises(IndexError):
      each[i]
