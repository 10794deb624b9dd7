"""The network that finds a thing in a picture."""

import numpy as np

from como_jax.evaluate import place_probe
from tests.evaluate.squares import moved_squares


def test_the_place_is_found_in_new_pictures():
  pictures, places, _ = moved_squares()
  find = place_probe.fit(
    pictures[:160].reshape(-1, 32, 32, 3), places[:160].reshape(-1, 2), steps=250, batch_size=16
  )
  new = pictures[160:].reshape(-1, 32, 32, 3)
  error, spread = (
    np.abs(find(new) - places[160:].reshape(-1, 2)).mean(axis=0),
    np.abs(places).mean(axis=(0, 1)),
  )
  assert (error < 0.2 * spread).all()
