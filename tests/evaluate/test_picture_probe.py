"""The network on whole pictures and on windows reads moves that one picture does not tell."""

import numpy as np
import pytest

from como_jax.evaluate import picture_probe, window_probe
from tests.evaluate.squares import moved_squares


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
