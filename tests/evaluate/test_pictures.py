"""The network on pictures: known moves of known pictures."""

import numpy as np

from como_jax.evaluate import picture_probe


def moved_squares(count=200):
  """A bright square on its own ground in each picture, and by how much it moves to the right and down between them."""
  rng = np.random.default_rng(0)
  place, move = rng.integers(3, 8, size=(count, 2)), rng.integers(-3, 4, size=(count, 2))
  pictures = np.repeat(rng.integers(0, 120, size=(count, 1, 1, 3)), 2, axis=0).reshape(count, 2, 1, 1, 3) + np.zeros((1, 1, 16, 16, 1))
  for row in range(count):
    for k in range(2):
      x, y = place[row] + k * move[row]
      pictures[row, k, y : y + 5, x : x + 5] = 250
  return pictures[:, 0].astype(np.uint8), pictures[:, 1].astype(np.uint8), move.astype(np.float64)


def test_the_network_on_both_pictures_reads_the_move_and_the_one_on_the_first_does_not():
  first, second, move = moved_squares()
  fit, test = slice(0, 160), slice(160, None)
  errors = {}
  for kind in ("both", "first"):
    probe = picture_probe.fit(first[fit], second[fit], move[fit], groups=np.arange(160) // 2, mirrored=(-1.0, 1.0),
                              settings={"kind": kind, "steps": 100, "seed": 0, "batch_size": 16})
    errors[kind] = np.mean((probe.predict(first[test], second[test]) - move[test]) ** 2, axis=0) / np.mean(move[test] ** 2, axis=0)
    assert f"on {kind}, 100 steps of 16" in probe.text
  assert errors["both"].max() < 0.6 < 0.8 < errors["first"].min()
