"""Plots in the light and in the dark theme."""

import numpy as np
import pytest
from matplotlib import layout_engine
from PIL import Image

from como_jax import report
from como_jax.report import plots, themes


def test_images_exist_and_show_something(written):
  page, text = written
  names = {path.name for path in page.parent.glob("*.png")}
  drawn = {"curves", "goodput", "s_pcfc", "probes", "pca", "similarity", "success"}
  assert names == {f"{n}{s}.png" for n in drawn for s in ("", "-dark")} | {
    "reconstruction.png",
    "transfer.png",
    "films.png",
  }
  for name in names:
    image = np.asarray(Image.open(page.parent / name).convert("RGB"))
    assert image.std() > 2 and min(image.shape[:2]) > 100, name
  for name in drawn:
    light, dark = (
      np.asarray(Image.open(page.parent / f"{name}{s}.png").convert("L")) for s in ("", "-dark")
    )
    # the bar of goodput fills most of its figure
    ground = np.max if name == "goodput" else np.median
    assert light.shape == dark.shape and ground(light) > 240
    assert (np.min if name == "goodput" else np.median)(dark) < 40


@pytest.mark.parametrize(
  "draw",
  [
    lambda theme: plots.pca(
      report.Projection(np.eye(4, 2), {"a": np.arange(4.0), "b": np.ones(4)}), theme
    ),
    lambda theme: plots.similarity(
      report.Similarity(np.eye(2), ["long name of a group"] * 2), theme
    ),
  ],
)
def test_a_figure_is_laid_out_once_and_looks_as_if_for_each_theme(draw, monkeypatch):
  """Color bars are placed in their own way."""
  apart = tuple(draw(theme) for theme in themes.THEMES)
  execute, calls = layout_engine.ConstrainedLayoutEngine.execute, []
  monkeypatch.setattr(
    layout_engine.ConstrainedLayoutEngine,
    "execute",
    lambda self, figure: calls.append(1) or execute(self, figure),
  )
  assert themes.in_all_themes(draw) == apart and len(calls) == 1
  assert draw(themes.DARK) == apart[1] and len(calls) == 2  # by itself it is laid out again
