"""Pictures of a known thing, with its places and moves."""

import numpy as np


def moved_squares(count=200, size=32):
  """A bright square on its own ground in each picture, where its middle is, and by how much it
  moves to the right and down.
  """
  rng = np.random.default_rng(0)
  corner, move = rng.integers(7, 20, size=(count, 2)), rng.integers(-5, 6, size=(count, 2))
  pictures = np.repeat(rng.integers(0, 120, size=(count, 1, 1, 3)), 2, axis=0).reshape(
    count, 2, 1, 1, 3
  ) + np.zeros((1, 1, size, size, 1))
  places = np.stack([corner, corner + move], axis=1)
  for row in range(count):
    for k in range(2):
      x, y = places[row, k]
      pictures[row, k, y : y + 5, x : x + 5] = 250
  return pictures.astype(np.uint8), (places + 2.5) / size - 0.5, move.astype(np.float64)
