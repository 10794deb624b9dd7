"""Rows of a policy's inputs, by hand."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import policy_row, statistics

TEXT = (np.ones((2, 3), np.float32), np.array([True, False]))


def units(low, high):
  one = statistics.Accumulator()
  one.add(np.float64([low, high]))
  return one.finish()


@pytest.fixture(name="rows", scope="module")
def _rows():
  """Two robots with 1 and 3 numbers of state."""
  transforms = {
    "arm": units([2], [6]).transforms(),
    "leg": units([0, 0, 0], [2, 4, 8]).transforms(),
  }
  return policy_row.RowBuilder(("arm", "leg"), 3, 2, 4, 3, transforms)


def test_the_oldest_observation_stands_in_for_those_before_it(rows):
  assert rows.pad_history(["a"]) == ["a"] * 3
  assert rows.pad_history(["a", "b"]) == ["a", "a", "b"]
  assert rows.pad_history(["a", "b", "c"]) == ["a", "b", "c"]
  for wrong in ([], ["a"] * 4):
    with pytest.raises(errors.UserError, match=f"of {len(wrong)} observations, expected 1 to 3"):
      rows.pad_history(wrong)


def test_states_are_normalized_and_padded(rows):
  row = rows.non_image_inputs("arm", np.float32([6]), TEXT)
  np.testing.assert_array_equal(row["state"], np.float32([1, 0, 0]))
  assert row["state_mask"] and row["robot"] == 0 and row["robot"].dtype == np.int32
  row = rows.non_image_inputs("leg", np.float32([2, 4, 0]), TEXT)
  np.testing.assert_array_equal(row["state"], np.float32([1, 1, -1]))
  assert row["robot"] == 1 and row["language"] is TEXT[0] and row["language_mask"] is TEXT[1]


@pytest.mark.parametrize("robot", ["", "leg"])
def test_what_is_not_there_is_zero_and_masked(rows, robot):
  row = rows.non_image_inputs(robot, None, TEXT)
  assert not row["state"].any() and not row["state_mask"]
  assert row["robot"] == (1 if robot else 0)


def test_images_fill_their_slots(rows):
  frames = np.full((3, 4, 4, 3), 7, np.uint8)
  row = rows.images([None, frames])
  assert row["images"].shape == (3, 2, 4, 4, 3) and row["images_mask"].tolist() == [False, True]
  np.testing.assert_array_equal(row["images"][:, 1], frames)
  assert not row["images"][:, 0].any()
  assert rows.images([])["images_mask"].tolist() == [False, False]
