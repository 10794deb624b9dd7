"""Windows and their first frames by hand."""

import numpy as np
import pytest

from como_jax.data import index
from como_jax.data.times import FrameTimes
from tests.data import test_index


def test_windows_by_number():
  found = index.windows(
    test_index.table([("x", 0, 4, 10), ("y", 0, 3, 10)]), frames=2, offset_seconds=0.1
  )
  assert len(found) == 10 and (found[0], found[9]) == (index.Window(0, 0, 0), index.Window(1, 1, 1))
  for i in (-1, 10):
    with pytest.raises(IndexError):
      found[i]


def test_runs_of_first_frames(monkeypatch):
  """Uniform segments are one run each, others one for each stretch in which every frame begins a
  window.
  """
  records = test_index.table([("x", 0, 6, 10), ("y", 0, 8, 10), ("z", 0, 2, 10)], cameras=("a",))
  records.uniform[1] = False
  uneven = FrameTimes(0.0, 0.2, 8, np.array([0.0, 0.1, 0.2, 0.3, 0.9, 1.0, 1.5, 1.6]))
  monkeypatch.setattr(
    type(records), "explicit_parts", lambda self, rows: iter([{1: uneven.explicit}])
  )
  found = index.start_ranges(index.shards.segments(records), frames=2, offset=0.1)
  assert [column.tolist() for column in found[:3]] == [
    [0, 1, 1, 1, 2],
    [0, 0, 4, 6, 0],
    [5, 3, 1, 1, 1],
  ] and found[3] == 2
