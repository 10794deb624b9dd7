"""The score in each camera or scene."""

import numpy as np
import pytest

from como_jax.exam import motion_score, spread
from tests.exam.made_errors import GROUPS, MOVES, made


def test_spread_is_that_of_the_levels():
  camera = np.tile([0, 1, 2], 200)
  z = made([0.5, 0.3], noise=0) + np.array([0.0, 0.1, 0.2])[camera][:, None]
  found = spread.over_levels(made([0.8, 0.6]), z, made([0.2, 0.2]), MOVES, levels=camera)
  assert found.levels == (0, 1, 2)
  np.testing.assert_allclose([s.s.value for s in found.scores], [0.6, 0.4, 0.2], atol=1e-9)
  half = np.arange(600) // 300
  halves = spread.over_levels(
    made([0.8, 0.6]), z, made([0.2, 0.2]), MOVES, levels=half, resamples=50
  )
  rows = half == 1
  alone = motion_score.score(
    *(values[rows] for values in (made([0.8, 0.6]), z, made([0.2, 0.2]))),
    motion_score.Moves(GROUPS[rows]),
    resamples=50,
  )
  assert halves.scores[1].s == alone.s and alone.groups == 100
  assert found.range == pytest.approx(0.4) and found.deviation == pytest.approx(0.2)
