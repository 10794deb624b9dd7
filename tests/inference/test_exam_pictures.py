"""The pictures of an exam set, and a motion model's latents of them."""

import chex
import jax
import numpy as np
import pytest

from como_jax.exam import pictures
from como_jax.inference import exam_pictures
from como_jax.models import pixels
from tests.exam import made_set
from tests.models import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return made_set.write_pictures(tmp_path_factory.mktemp("set"))


def test_pictures_are_read_view_after_view(folder):
  frames = exam_pictures.frames(folder / "hand", 0)
  views = len(frames)
  chex.assert_shape(frames, (views, 3, 64, 64, 3))
  numbers = np.rint((frames.mean(axis=(2, 3, 4)) - 20) / 4)  # the codec is off by a level or so
  np.testing.assert_array_equal(numbers, (np.arange(3 * views) % 50).reshape(-1, 3))


def test_a_models_latents_do_not_depend_on_the_batch(folder):
  _, parameters = tiny.made(tiny.MOTION)
  config = {"model": tiny.section(tiny.MOTION)}
  found, other = (
    exam_pictures.latents(parameters, config, folder / "hand", views=size) for size in (64, 9)
  )
  assert set(found) == {"z", "z_ba", "z_ac", "z_aa", "z_shifted"}
  assert len(found["z"]) == 2 * len(found["z_ac"])
  chex.assert_trees_all_close(found, other, atol=1e-4)  # XLA sums in another order at another size


@pytest.mark.parametrize(
  "changes",
  [
    {"idm.inputs": "rgb_diff"},
    {"idm.inputs": "future"},
    {"idm.inputs": "none", "bottleneck": {"kind": "vq", "latent_dim": 4, "num_codes": 8}},
    {"image_size": 32, "idm.components": 4, "idm.components_of": "flow"},
  ],
  ids=str,
)
def test_a_models_latents_are_those_of_each_pair_alone(monkeypatch, changes):
  """Pictures encoded once for all their pairs, against pairs that know nothing of each other."""
  model, parameters = tiny.made(tiny.MOTION, **changes)
  shape = (model.image_size, model.image_size, 3)
  shown = np.random.default_rng(0).integers(0, 256, size=(3, 3, *shape)).astype(np.uint8)
  monkeypatch.setattr(exam_pictures, "frames", lambda folder, size: shown)
  found = exam_pictures.latents(
    parameters, {"model": tiny.section(tiny.MOTION, **changes)}, None, views=2
  )
  first, second = (shown[:, side].reshape(-1, *shape) for side in ([0, 1], [1, 2]))
  wanted = {
    "z": (first, second),
    "z_ba": (second, first),
    "z_ac": (shown[:, 0], shown[:, 2]),
    "z_aa": (shown[:, 0], shown[:, 0]),
    "z_shifted": pictures.shifted(shown).swapaxes(0, 1),
  }
  assert set(found) == set(wanted)
  images = (pixels.normalize(np.concatenate(side)) for side in zip(*wanted.values(), strict=False))
  z = np.asarray(jax.jit(lambda *images: model.encode(parameters, *images).z)(*images))
  together = np.concatenate([found[name] for name in wanted])
  np.testing.assert_allclose(together, z, atol=1e-5 * np.abs(z).max())


def test_pairs_for_others_have_the_shifted_pictures(monkeypatch, tmp_path):
  frames = np.random.default_rng(0).integers(0, 255, size=(6, 3, 32, 32, 3)).astype(np.uint8)
  monkeypatch.setattr(exam_pictures, "frames", lambda folder, size: frames)
  exam_pictures.write_pairs(None, tmp_path / "pairs.npz")
  with np.load(tmp_path / "pairs.npz") as file:
    np.testing.assert_array_equal(file["frames"], frames)
    np.testing.assert_array_equal(file["shifted"], pictures.shifted(frames))
