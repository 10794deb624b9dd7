"""Plots in the light and in the dark theme."""

import numpy as np
from PIL import Image


def test_images_exist_and_show_something(written):
  page, text = written
  names = {path.name for path in page.parent.glob("*.png")}
  drawn = {"curves", "s_pcfc", "probes", "pca", "similarity", "success"}
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
    assert light.shape == dark.shape and np.median(light) > 240 and np.median(dark) < 40
