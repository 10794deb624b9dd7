"""Frames for reports."""

import numpy as np


def frames(seed, count=2, height=16, width=16):
  return np.random.default_rng(seed).integers(0, 255, (count, height, width, 3), dtype=np.uint8)
