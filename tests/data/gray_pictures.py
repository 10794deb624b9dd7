"""Pictures of one gray level."""

import numpy as np


def gray(*levels):
  return [np.full((16, 16, 3), level, np.uint8) for level in levels]
