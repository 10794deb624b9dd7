"""Grids of frames and their differences."""

import io

import numpy as np
import pytest
from PIL import Image

from como_jax import errors, report
from como_jax.report import grids
from tests.report.pictures import frames


def test_difference_amplification():
  quiet = np.full((1, 8, 8), 20.0)
  assert (
    grids.factor_for(quiet) == 8
    and grids.factor_for(quiet * 3) == 4
    and grids.factor_for(quiet * 10) == 1
  )
  still = report.Reconstruction(frames(0), frames(0), frames(0))
  grid = grids.reconstruction(still)
  assert (grid.columns["target − current"] == grids.palette()[0]).all() and grid.captions == (
    "",
    "",
  )
  assert "×8" in grids.legend(grid.factor) and "0 … 32" in grids.legend(grid.factor)


def test_frames_need_not_be_square(tmp_path):
  pictures = [frames(seed, 1, 12, 24) for seed in range(3)]
  sheet = grids.sheet(grids.reconstruction(report.Reconstruction(*pictures)))
  assert Image.open(io.BytesIO(sheet)).size[1] < 160


def test_bad_frames_are_named():
  with pytest.raises(errors.UserError, match="'predicted' are float"):
    grids.reconstruction(report.Reconstruction(frames(0), frames(1), frames(2) / 255.0))
  with pytest.raises(errors.UserError, match="b_current"):
    grids.transfer(report.Transfer(frames(0), frames(1), frames(2, 3), frames(3)))
