"""Latents without a motion model: cheats and baselines."""

import numpy as np

from como_jax.evaluate import exam_baselines
from como_jax.inference import exam_pictures
from tests.exam import made_set


def test_cheats_and_baselines_are_what_they_are_called():
  pictures = made_set.pictures()
  rows = exam_baselines.build(pictures, exam_pictures.moved_cells)
  assert tuple(rows) == exam_baselines.CHEATS + exam_baselines.BASELINES
  assert set(exam_baselines.KINDS) == set(rows)
  assert exam_baselines.KINDS["true displacement"] == "control"
  pairs = 2 * len(pictures.frames)
  assert all(len(row["z"]) == pairs and np.isfinite(row["z"]).all() for row in rows.values())
  first = rows["first picture"]["z"]
  np.testing.assert_allclose(
    first,
    rows["first picture"]["z_ac"].repeat(2, axis=0) * (np.arange(pairs) % 2 == 0)[:, None]
    + first * (np.arange(pairs) % 2 == 1)[:, None],
    atol=1e-4,
  )
  # the future of a pair is the first of the next
  np.testing.assert_allclose(rows["future picture"]["z"][::2], first[1::2], atol=1e-4)
  future = rows["future picture"]
  np.testing.assert_allclose(future["z_shifted"], future["z"][1::2], atol=1e-4)
  difference = rows["components of the difference"]
  np.testing.assert_allclose(difference["z_shifted"], difference["z"][1::2], atol=1e-4)
  for row in (rows["components of the optical flow"], rows["flow magnitude"]):
    assert row["z_shifted"].shape == row["z"][::2].shape and np.isfinite(row["z_shifted"]).all()
    # the flow is found of other pixels
    assert not np.allclose(row["z_shifted"], row["z"][::2], atol=1e-2)
  np.testing.assert_allclose(
    difference["z_ba"] + difference["z"],
    np.broadcast_to(2 * difference["z_aa"][:1], difference["z"].shape),
    atol=1e-3,
  )
  episode = rows["episode"]["z"]
  np.testing.assert_array_equal(episode[::2], episode[1::2])
  assert rows["wide random map of both"]["z"].shape[1] == exam_baselines.WIDE
  other = exam_baselines._others(pictures, np.random.default_rng(0))
  assert (pictures.of_pairs("chain")[other] != pictures.of_pairs("chain")).all()
  key = 1000 * pictures.of_pairs("camera") + pictures.of_pairs("scene")
  several = np.array([len(set(pictures.of_pairs("chain")[key == one])) > 1 for one in key])
  assert several.mean() > 0.5 and (key[other] == key)[several].all()
