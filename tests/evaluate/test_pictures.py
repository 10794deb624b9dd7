"""The networks on pictures: known places and moves of a known thing."""

import chex
import numpy as np
import pytest

from como_jax.evaluate import picture_probe, place_probe, window_probe


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


def test_the_place_is_found_in_new_pictures():
  pictures, places, _ = moved_squares()
  find = place_probe.fit(
    pictures[:160].reshape(-1, 32, 32, 3), places[:160].reshape(-1, 2), steps=60, batch_size=16
  )
  new = pictures[160:].reshape(-1, 32, 32, 3)
  error, spread = (
    np.abs(find(new) - places[160:].reshape(-1, 2)).mean(axis=0),
    np.abs(places).mean(axis=(0, 1)),
  )
  assert (error < 0.3 * spread).all()


def test_windows_are_cut_about_their_places():
  pictures = np.arange(2 * 16 * 16 * 3).reshape(2, 16, 16, 3).astype(np.uint8)
  cut = window_probe.windows(pictures, np.array([[0.0, 0.0], [0.5, -0.26]]), 4)
  chex.assert_shape(cut.pixels, (2, 12, 12, 3))
  np.testing.assert_array_equal(cut.pixels[0], pictures[0, 2:14, 2:14])
  np.testing.assert_allclose(cut.places, [[0, 0], [0.5, -0.25]])  # the nearest whole pixel
  # up to the edge,
  np.testing.assert_array_equal(cut.pixels[1, :, 5], pictures[1, [0, 0, *range(10)], 15])
  # which goes on outside
  np.testing.assert_array_equal(cut.pixels[1, :, 11], pictures[1, [0, 0, *range(10)], 15])
  assert cut[1:].pixels.shape[0] == 1 and cut[1:].pixel == cut.pixel == 1 / 16


@pytest.mark.parametrize("window", [False, True], ids=["whole pictures", "windows"])
def test_the_network_on_both_pictures_reads_the_move_and_the_one_on_the_first_does_not(window):
  pictures, places, move = moved_squares()
  if not window:
    pictures = pictures[:, :, ::2, ::2]
  first, second = (
    window_probe.windows(pictures[:, k], places[:, k], 16) if window else pictures[:, k]
    for k in range(2)
  )
  fit, test = slice(0, 160), slice(160, None)
  errors, told, steps = {}, {}, 70 if window else 110
  for kind in ("both", "first"):
    probe = (window_probe if window else picture_probe).fit(
      first[fit],
      second[fit],
      move[fit],
      groups=np.arange(160) // 2,
      mirrored=(-1.0, 1.0),
      settings={"kind": kind, "steps": steps, "seed": 0, "batch_size": 16},
    )
    told[kind] = probe.predict(first[test], second[test])
    errors[kind] = np.mean((told[kind] - move[test]) ** 2, axis=0) / np.mean(
      move[test] ** 2, axis=0
    )
    assert f"on {kind}, {steps} steps of 16" in probe.text
    # of other pairs
    assert probe.error == pytest.approx(np.minimum(1, errors[kind]).mean(), abs=0.3)
  assert errors["both"].max() < (0.3 if window else 0.6) and errors["first"].min() > 0.8
  # it sees the first picture alone
  np.testing.assert_allclose(probe.predict(first[test], first[test]), told["first"])


def test_the_way_back_is_the_way_there_turned_around():
  pictures, places, move = moved_squares(40)
  first, second = (window_probe.windows(pictures[:, k], places[:, k], 16) for k in range(2))
  probe = window_probe.fit(
    first,
    second,
    move,
    groups=np.arange(40),
    mirrored=(),
    settings={"kind": "both", "steps": 2, "seed": 0, "batch_size": 8},
  )
  there = probe.predict(first, second)
  assert np.abs(there).max() > 0
  np.testing.assert_allclose(probe.predict(second, first), -there, atol=1e-6)
