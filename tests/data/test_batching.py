"""Parts of a batch."""

import pytest

from como_jax import errors
from como_jax.data.batching import Batching, ProcessSlice


def test_what_a_process_gets_of_a_batch():
  assert ProcessSlice(2, 3).rows(6) == 2 and ProcessSlice().rows(1) == 1
  assert Batching(6, process=ProcessSlice(2, 3)).local_rows == 2
  for process, size, message in (
    (ProcessSlice(), 0, "^batch_size 0 does not divide by the number of processes, 1$"),
    (ProcessSlice(0, 2), 7, "^batch_size 7 does not"),
  ):
    with pytest.raises(errors.UserError, match=message):
      process.rows(size)
  for number in (-1, 3):
    with pytest.raises(ValueError, match=f"^process {number} of 3$"):
      ProcessSlice(number, 3).rows(6)
