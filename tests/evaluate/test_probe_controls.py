"""What the frozen encoder alone tells: components of its difference and of one picture."""

import numpy as np
import pytest

from como_jax.evaluate import probe_controls, probe_targets
from tests.evaluate import test_positions as recordings
from tests.evaluate.test_probe_targets import NAMES, columns


def test_components_are_the_principal_ones():
  rng = np.random.default_rng(0)
  fit, new = (
    rng.normal(size=(rows, 3)) @ np.diag([9.0, 4.0, 1.0]) @ np.eye(3, 40)
    + 0.01 * rng.normal(size=(rows, 40))
    + 5
    for rows in (60, 20)
  )
  one, other = probe_controls.components(fit, new, 2, seed=0)
  _, _, axes = np.linalg.svd(fit - fit.mean(0), full_matrices=False)
  for found, values in ((one, fit), (other, new)):
    np.testing.assert_allclose(
      np.abs(found), np.abs((values - fit.mean(0)) @ axes[:2].T), atol=1e-6
    )
  assert probe_controls.components(fit[:5], new, 32, seed=0)[0].shape == (5, 5)


def test_the_difference_tells_what_the_pictures_tell():
  """The second picture is the first plus the motion, beside much that does not move: as many
  components as z has numbers find it.
  """
  rng, sides = np.random.default_rng(0), []
  for seed in (0, 1):
    found, _ = columns(recordings.delta, seed, first=100 * seed)
    first = 10 * rng.normal(size=(len(found["group"]), 30))
    second = first + found["action"][:, 1] @ np.eye(4, 30)
    sides.append((found, np.stack([first, second], 1)))
  (fit, fit_pictures), (held_out, pictures) = sides
  target = probe_targets.build("action", fit, held_out, names=NAMES, datasets=["arm"])
  z, row, details = probe_controls.difference(fit_pictures, pictures, 4, [target], seed=0)
  assert z.shape == (len(fit_pictures) + len(pictures), 4)
  assert (
    row["lp_mse"][0] < 0.01
    and row["mlp_mse"][0] < 0.2
    and details.notes[0].startswith("difference, action: ridge regression")
  )
  assert details.probes["action"].mse == pytest.approx(row["lp_mse"][0])
  # pictures of experts: the first tells
  told = [np.stack([found["action"][:, 1] @ np.eye(4, 30), seen[:, 0]], 1) for found, seen in sides]
  rows = probe_controls.one_picture(*told, 4, [target], seed=0)
  assert list(rows) == ["first-only", "second-only"]
  (first, details), (second, _) = rows.values()
  assert (
    first["lp_mse"][0] < 0.01
    and second["lp_mse"][0] > 0.9
    and details.probes["action"].mse == pytest.approx(first["lp_mse"][0])
  )
