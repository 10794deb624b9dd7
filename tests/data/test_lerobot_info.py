"""Statistics that info and tables of a LeRobot data set hold."""

import numpy as np
import pytest

from como_jax.data import lerobot_columns, lerobot_info
from tests.data.made_rows import ROWS, plain


def test_statistics_by_hand():
  assert plain(lerobot_info.frame_statistics(ROWS)) == {
    "min": [1, 10],
    "max": [8, 40],
    "mean": [4, 20],
    "std": pytest.approx([26**0.5 / 3**0.5, 200**0.5]),
    "count": [3],
  }
  assert plain(lerobot_info.frame_statistics(np.array([True, False])))["mean"] == [0.5]
  found = plain(lerobot_columns._statistics(ROWS, ["q10", "q50"]))
  assert (
    found["q50"] == [3, 10]
    and found["q10"] == pytest.approx([1.4, 10])
    and found["count"] == [3]
    and found["std"] == pytest.approx([26**0.5 / 3**0.5, 200**0.5])
  )
  for merge in (lerobot_info.merge, lerobot_columns._merge):
    parts = [
      lerobot_columns._statistics(part, ["q50"] if merge is lerobot_columns._merge else [])
      for part in (ROWS, ROWS[:1] - 5)
    ]
    found, whole = merge(parts), np.concatenate([ROWS, ROWS[:1] - 5])
    for name in ("min", "max", "mean", "std"):
      np.testing.assert_allclose(found[name], getattr(whole, name)(0))
    assert found["count"].tolist() == [4]
  np.testing.assert_allclose(found["q50"], [(3 * 3 - 4) / 4, (3 * 10 + 5) / 4])  # averaged by count
  image = np.zeros((2, 8, 12, 3), np.uint8)
  image[:, ::4, ::4] = [255, 51, 0]
  image[0, 0, 0] = 0  # one of 12
  found = lerobot_info.image_statistics(image)
  np.testing.assert_allclose(found["mean"], np.array([11 / 12, 11 / 60, 0])[:, None, None])
  assert found["max"].tolist() == [[[1.0]], [[0.2]], [[0.0]]] and found["count"].tolist() == [2]
