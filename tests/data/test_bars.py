"""Bars around a picture."""

import numpy as np
import pytest

from como_jax.data import bars


def test_bars_need_an_edge():
  finder = bars.BarFinder()
  ramp = np.repeat(np.minimum(np.arange(60) * 2, 120)[:, None], 60, 1).astype(np.uint8)
  for t in range(12):
    finder.add(np.repeat((ramp + t)[..., None], 3, 2))
  assert finder.find() == (0, 0, 0, 0)


@pytest.mark.parametrize(
  "lines, found",
  [((40, 43), (40, 43)), ((40, 45), (0, 0)), ((6, 8), (6, 8)), ((6, 9), (0, 0)), ((20, 0), (0, 0))],
)
def test_bars_that_are_not_black_are_about_alike(lines, found):
  """Within 2 lines, or a tenth of the larger one."""
  rng, finder = np.random.default_rng(0), bars.BarFinder()
  for _ in range(12):
    picture = np.full((200, 60, 3), 120, np.uint8)
    inner = picture[lines[0] : 200 - lines[1]]
    inner[:] = rng.integers(0, 256, inner.shape)
    finder.add(picture)
  assert finder.find()[:2] == found
