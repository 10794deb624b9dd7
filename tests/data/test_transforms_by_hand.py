"""Transforms of samples, with every draw given."""

import numpy as np
import pytest
from PIL import Image

from como_jax import errors
from como_jax.data import images, transforms


class Draws:
  """A generator that draws given numbers and remembers between which."""

  def __init__(self, *values):
    self.values, self.asked = list(values), []

  def _draw(self, *limits):
    self.asked.append(limits)
    return self.values.pop(0)

  uniform = integers = random = _draw


def sample(*, height=10, width=20):
  image = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
  return {"frames": image, "jittered": image[:1], "other": np.arange(3)}


def test_shifts_are_drawn_within_a_share_of_each_side():
  draws, before = Draws(1, -2), sample()
  out = transforms.RandomShift()(before, draws)
  assert draws.asked == [(-0, 1), (-1, 2)]  # 5 % of 10 and 20, half of a pixel to the even number
  draws = Draws(2, -3)
  out = transforms.RandomShift(0.2)(before, draws)
  assert draws.asked == [(-2, 3), (-4, 5)] and out["other"] is before["other"]
  y, x = np.clip(np.arange(10) + 2, 0, 9), np.clip(np.arange(20) - 3, 0, 19)
  np.testing.assert_array_equal(out["frames"], before["frames"][:, y][:, :, x])
  assert transforms._shift(before["frames"], 0, 0) is before["frames"]
  for dy, dx in ((0, 2), (2, 0)):
    moved = transforms._shift(before["frames"], dy, dx)
    assert (
      moved is not before["frames"]
      and moved.flags.c_contiguous
      and not np.array_equal(moved, before["frames"])
    )


def test_crops_by_hand():
  # A quarter of the area, twice as wide as the picture's own shape: 0.3536 of the height, 0.7071 of
  # the width.
  draws, before = Draws(0.25, np.log(2.0), 3.0, 1.0), sample()
  out = transforms.RandomResizedCrop((0.2, 0.4), (0.5, 2.0))(before, draws)
  h, w = 10 * 0.25**0.5 / 2**0.5, 20 * 0.25**0.5 * 2**0.5
  np.testing.assert_allclose(
    np.concatenate(draws.asked), [0.2, 0.4, np.log(0.5), np.log(2.0), 0, 10 - h, 0, 20 - w]
  )
  expected = Image.fromarray(before["frames"][1]).resize(
    (20, 10), Image.Resampling.BILINEAR, box=(1.0, 3.0, 1.0 + w, 3.0 + h)
  )
  np.testing.assert_array_equal(out["frames"][1], np.asarray(expected))
  assert out["jittered"].shape == (1, 10, 20, 3) and out["other"] is before["other"]
  draws = Draws(1.0, np.log(1.1), 0.0, 0.0)
  transforms.RandomResizedCrop()(before, draws)
  # no wider than it is
  np.testing.assert_allclose(
    np.concatenate(draws.asked), [0.8, 1.0, np.log(0.9), np.log(1.1), 0, 10 - 10 / 1.1**0.5, 0, 0]
  )


def test_colors_by_hand():
  draws, image = Draws(1.5, 0.5, 1.0), np.zeros((1, 8, 8, 3), np.uint8)
  image[..., :4, 0], image[..., 4:, 1] = 100, 200
  out = transforms.ColorJitter(0.5, 0.6, 0.7)({"frames": image}, draws)["frames"]
  np.testing.assert_allclose(draws.asked, [(0.5, 1.5), (0.4, 1.6), (0.3, 1.7)])
  mean = 1.5 * (0.299 * 50 + 0.587 * 100)
  for (y, x, c), value in (((0, 0, 0), 100), ((0, 7, 1), 200), ((0, 0, 2), 0)):
    assert out[0, y, x, c] == int((value * 1.5 - mean) * 0.5 + mean + 0.5)
  bright = transforms.ColorJitter(2.0, 0, 0)({"frames": image}, Draws(2.0, 1.0, 1.0))["frames"]
  assert bright.max() == 255 and bright[0, 0, 0, 0] == 200 and bright.min() == 0
  draws = Draws(1.0, 1.0, 0.0)  # no saturation: gray, by the same weights
  flat = transforms.ColorJitter(2.0, 2.0, 2.0)({"frames": image}, draws)["frames"]
  assert (
    draws.asked == [(0.0, 3.0)] * 3
    and flat[0, 0, 0].tolist() == [30] * 3
    and flat[0, 0, 7].tolist() == [117] * 3
  )
  draws = Draws(1.0, 1.0, 1.0)
  transforms.ColorJitter()({"frames": image}, draws)
  assert draws.asked == [(0.8, 1.2)] * 3


@pytest.mark.parametrize("drawn, flipped", [(0.0, True), (0.49, True), (0.5, False), (0.9, False)])
def test_half_of_the_samples_are_mirrored(drawn, flipped):
  before = sample()
  out = transforms.HorizontalFlip()(before, Draws(drawn))
  np.testing.assert_array_equal(
    out["frames"], before["frames"][..., ::-1, :] if flipped else before["frames"]
  )
  assert out["other"] is before["other"]


def test_settings_of_transforms():
  built = transforms.build(
    {
      "crop": {"scale": [0.5, 0.9]},
      "flip": {"probability": 0.1},
      "shift": {},
      "color": {"contrast": 0.4},
    }
  )
  assert built == (
    transforms.RandomResizedCrop((0.5, 0.9)),
    transforms.HorizontalFlip(0.1),
    transforms.RandomShift(0.05),
    transforms.ColorJitter(0.2, 0.4, 0.2),
  )
  with pytest.raises(
    errors.UserError, match="^augmentation 'flip' has no setting 'p': valid: probability$"
  ):
    transforms.build({"flip": {"p": 1}})


def test_a_resize_that_changes_nothing_costs_nothing():
  before = {"frames": sample(height=16, width=16)["frames"]}
  assert transforms.Resize(16)(before)["frames"] is before["frames"]
  assert transforms.Resize(20)(before)["frames"].shape == (2, 20, 20, 3)
  wide = {"frames": sample(height=16, width=20)["frames"]}
  np.testing.assert_array_equal(
    transforms.Resize(16)(wide)["frames"][1], images.resize(wide["frames"][1], 16, 16)
  )
  shift = transforms.RandomShift(0.5)
  out = {"frames": np.zeros((2, 16, 16, 3), np.uint8)}
  found = transforms.apply((shift, transforms.Resize(16)), before, Draws(3, -1), out)
  assert found["frames"] is out["frames"]
  np.testing.assert_array_equal(out["frames"], transforms._shift(before["frames"], 3, -1))
