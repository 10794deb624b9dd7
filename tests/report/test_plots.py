"""Curves are smoothed, and odd data is drawn."""

import numpy as np
import pytest

from como_jax import report
from como_jax.report import plots, themes


def test_smoothing_does_not_lag_and_skips_nan():
  line = np.arange(300.0)
  np.testing.assert_allclose(plots.smooth(line)[30:-30], line[30:-30], atol=1e-6)
  line[100] = np.nan
  assert np.isfinite(plots.smooth(line)).all() and np.isnan(plots.smooth(np.array([np.nan]))).all()
  np.testing.assert_allclose(plots.smooth(np.full(5, 2.0)), 2.0)


@pytest.mark.parametrize(
  "curves",
  [
    {"one": ([1], [2.0])},
    {"validation/only": ([1, 2], [0.0, 1.0])},
    {"bad": ([0, 1], [np.nan, np.inf])},
    {"flat": ([0, 1], [0, 0])},
  ],
)
def test_odd_curves_are_drawn(curves):
  assert plots.curves(curves, themes.LIGHT).startswith(b"\x89PNG")


def test_odd_plots_are_drawn():
  nothing = np.zeros(0)
  assert plots.s_pcfc({"all the same": np.ones(5), "none": nothing}, themes.DARK)
  assert plots.probes(
    {f"{i}": report.Scatter(np.ones(3), np.ones(3), float("nan")) for i in range(5)}, themes.LIGHT
  )
  assert plots.pca(report.Projection(np.zeros((4, 2)), {}), themes.LIGHT)
  assert plots.similarity(
    report.Similarity(np.full((20, 20), np.nan), [f"group {i}" for i in range(20)]), themes.DARK
  )
