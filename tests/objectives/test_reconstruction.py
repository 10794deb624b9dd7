"""Errors of predicted and of copied pixels."""

import numpy as np

from como_jax import objectives
from tests.models import tiny
from tests.objectives.means import BATCH, mean


def test_reconstruction_and_copy_baseline():
  target = tiny.frames((2, 3, 4, 4))
  outputs = {"target": target, "pixels": target + 2.0, "current": target - 3.0}
  terms = objectives.build({"reconstruction": {"weight": 1.0}})(outputs, BATCH)
  np.testing.assert_allclose(mean(terms["reconstruction"]), 4.0, rtol=1e-5)
  np.testing.assert_allclose(mean(terms["copy_current"]), 9.0, rtol=1e-5)
  assert terms["reconstruction"][1] == 6
