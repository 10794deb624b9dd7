"""Augmentation: shared parameters, exact values."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import transforms

ALL = {
  "shift": {"fraction": 0.2},
  "crop": {"scale": [0.4, 0.8]},
  "color": {"brightness": 0.5},
  "flip": {},
}


def sample(seed=0, size=(24, 32), equal=True):
  image = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
  image = np.repeat(np.repeat(image[::8, ::8], 8, 0), 8, 1)
  return {"frames": np.stack([image] * 3), "jittered": np.stack([image] * 2), "other": np.arange(4)}


@pytest.mark.parametrize("name", list(ALL))
@pytest.mark.parametrize("seed", range(4))
def test_all_frames_of_a_sample_are_treated_alike(name, seed):
  before = sample()
  after = transforms.apply(transforms.build({name: ALL[name]}), before, np.random.default_rng(seed))
  for image in [*after["frames"], *after["jittered"]]:
    np.testing.assert_array_equal(image, after["frames"][0])
  assert after["frames"].shape == before["frames"].shape and after["frames"].dtype == np.uint8
  assert after["frames"].flags.c_contiguous and after["other"] is not None
  again = transforms.apply(
    transforms.build({name: ALL[name]}), sample(), np.random.default_rng(seed)
  )
  np.testing.assert_array_equal(again["frames"], after["frames"])


@pytest.mark.parametrize("name", list(ALL))
def test_it_does_something(name):
  changed = [
    not np.array_equal(
      transforms.build({name: ALL[name]})[0](sample(), np.random.default_rng(seed))["frames"],
      sample()["frames"],
    )
    for seed in range(8)
  ]
  assert any(changed)


def test_shift_moves_whole_pixels_and_repeats_the_border():
  ramp = np.broadcast_to(np.arange(20, dtype=np.uint8)[None, :, None], (20, 20, 3)).copy()
  seen = set()
  for seed in range(60):
    out = transforms.RandomShift(0.2)({"frames": ramp[None]}, np.random.default_rng(seed))[
      "frames"
    ][0, 0, :, 0].astype(int)
    by = out[10] - 10
    np.testing.assert_array_equal(out, np.clip(np.arange(20) + by, 0, 19))
    seen.add(int(by))
  assert seen == set(range(-4, 5))


def test_color_without_range_changes_nothing_and_brightness_scales():
  gray = {"frames": np.full((1, 8, 8, 3), 100, np.uint8)}
  same = transforms.ColorJitter(0, 0, 0)(sample(), np.random.default_rng(0))
  np.testing.assert_allclose(same["frames"].astype(int), sample()["frames"], atol=1)
  values = [
    transforms.ColorJitter(0.5, 0, 0)(gray, np.random.default_rng(seed))["frames"][0, 0, 0, 0]
    for seed in range(40)
  ]
  assert 50 <= min(values) < 65 and 135 < max(values) <= 150


def test_single_images_have_no_time_dimension():
  one = {"frames": sample()["frames"][0]}
  out = transforms.apply(
    (*transforms.build(ALL), transforms.Resize(16)), one, np.random.default_rng(0)
  )
  assert out["frames"].shape == (16, 16, 3)


def test_resize_averages_when_it_shrinks():
  stripes = np.zeros((2, 16, 16, 3), np.uint8)
  stripes[:, ::2] = 200
  np.testing.assert_allclose(transforms.Resize(4)({"frames": stripes})["frames"], 100, atol=1)
  assert transforms.Resize(24)({"frames": stripes})["frames"].shape == (2, 24, 24, 3)


def test_misspelled_names_are_told():
  with pytest.raises(errors.UserError, match="'shfit'.*did you mean 'shift'"):
    transforms.build({"shfit": {}})
  with pytest.raises(errors.UserError, match="no setting 'fracton'.*did you mean 'fraction'"):
    transforms.build({"shift": {"fracton": 1}})


@pytest.mark.parametrize(
  "names", [(), ("shift",), ("color",), ("shift", "flip"), ("crop", "shift"), tuple(ALL)]
)
@pytest.mark.parametrize("size", [24, 16])
def test_results_may_be_written_into_given_arrays(names, size):
  chain = (*transforms.build({name: ALL[name] for name in names}), transforms.Resize(size))
  images = {
    name: value for name, value in sample(size=(24, 24)).items() if name in transforms.IMAGES
  }
  for seed in range(3):
    expected = transforms.apply(chain, images, np.random.default_rng(seed))
    out = {name: np.zeros((len(value), size, size, 3), np.uint8) for name, value in images.items()}
    transforms.apply(chain, images, np.random.default_rng(seed), out)
    for name, value in expected.items():
      np.testing.assert_array_equal(out[name], value)
    if size == 24:  # the sample's own arrays
      same = {name: value.copy() for name, value in images.items()}
      transforms.apply(chain, same, np.random.default_rng(seed), same)
      for name, value in expected.items():
        np.testing.assert_array_equal(same[name], value)


@pytest.mark.parametrize("dy, dx", [(0, 0), (3, -2), (-7, 7), (8, -9), (0, 5), (-20, 0)])
def test_shift_repeats_the_border_however_far_it_goes(dy, dx):
  image = np.random.default_rng(0).integers(0, 255, (2, 8, 9, 3), np.uint8)
  y, x = np.clip(np.arange(8) + dy, 0, 7), np.clip(np.arange(9) + dx, 0, 8)
  before, expected = image.copy(), image[:, y][:, :, x]
  np.testing.assert_array_equal(transforms._shift(image, dy, dx), expected)
  np.testing.assert_array_equal(image, before)
  np.testing.assert_array_equal(transforms._shift(image, dy, dx, image), expected)
  np.testing.assert_array_equal(image, expected)
