"""Geometry, augmentation and codecs of pictures, with numbers worked out by hand."""

import io

import numpy as np
import pytest
from PIL import Image

from como_jax import errors
from como_jax.data import frame_codec, images, transforms, video_encode
from como_jax.data.images import Geometry
from como_jax.data.sources.options import SourceOptions


@pytest.mark.parametrize(
  "geometry, source, aspect, inner",
  [
    (Geometry(), (48, 64), 1.0, (48, 64)),
    (Geometry(), (48, 64), 2.0, (48, 64)),
    (Geometry(bars=(0.25, 0.25, 0.125, 0.0)), (48, 64), 1.0, (24, 56)),
    (Geometry(bars=(0.5, 0.5, 0.0, 0.0)), (48, 64), 1.0, (1, 64)),
    (Geometry(16), (48, 64), 2.0, (16, 16)),
    (Geometry(16, "crop"), (48, 64), 1.0, (16, 21)),
    (Geometry(16, "crop"), (48, 64), 2.0, (16, 43)),
    (Geometry(16, "pad"), (48, 64), 1.0, (12, 16)),
    (Geometry(16, "pad"), (48, 64), 2.0, (6, 16)),
    (Geometry(16, "pad"), (64, 48), 1.0, (16, 12)),
    (Geometry(16, "crop"), (64, 48), 1.0, (21, 16)),
    (Geometry(16, "crop", (0.25, 0.0, 0.0, 0.0)), (64, 48), 1.0, (16, 16)),
    (Geometry(16, "pad", (0.0, 0.0, 0.25, 0.25)), (64, 64), 1.0, (16, 8)),
    (Geometry(16, "pad"), (2, 64), 1.0, (1, 16)),
    (Geometry(16, "pad"), (64, 2), 1.0, (16, 1)),
  ],
)
def test_the_size_to_scale_to(geometry, source, aspect, inner):
  assert geometry.inner(*source, pixel_aspect=aspect) == inner
  if aspect == 1:
    assert geometry.inner(*source) == inner


def test_bars_are_around_what_is_kept():
  geometry = Geometry(bars=(0.25, 0.125, 0.5, 0.25))
  assert geometry.outer(25, 16) == (40, 64) and Geometry().outer(0, 0) == (1, 1)
  image = np.arange(40 * 64, dtype=np.int64).reshape(40, 64)
  assert geometry.without_bars(image, 25, 16).tolist() == image[10:35, 32:48].tolist()
  # no further than the picture goes
  assert geometry.without_bars(image, 35, 40).tolist() == image[5:, 24:].tolist()
  whole = np.zeros((40, 64, 3), np.uint8)
  whole[10:35, 32:48] = np.random.default_rng(0).integers(0, 256, (25, 16, 3))
  np.testing.assert_array_equal(geometry.apply(whole), whole[10:35, 32:48])


def test_crops_are_from_the_middle_and_borders_around_it():
  image = np.random.default_rng(0).integers(1, 256, (6, 9, 3), np.uint8)
  np.testing.assert_array_equal(Geometry(6, "crop").finish(image), image[:, 1:7])
  np.testing.assert_array_equal(
    Geometry(6, "crop").finish(image.swapaxes(0, 1)), image.swapaxes(0, 1)[1:7]
  )
  for padded, part in (
    (Geometry(9, "pad").finish(image), (slice(1, 7), slice(None))),
    (Geometry(9, "pad").finish(image.swapaxes(0, 1)).swapaxes(0, 1), (slice(1, 7), slice(None))),
  ):
    assert (
      padded.shape == (9, 9, 3)
      and padded.dtype == np.uint8
      and not padded[0].any()
      and not padded[7:].any()
    )
    np.testing.assert_array_equal(padded[part], image)
  assert Geometry(6).finish(image) is image and Geometry(0, "crop").finish(image) is image


def test_shrinking_averages_and_growing_interpolates():
  image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
  assert images.resize(image, 8, 8) is image
  np.testing.assert_allclose(
    images.resize(image, 4, 8), image.reshape(4, 2, 8, 3).mean(1), atol=0.51
  )
  np.testing.assert_allclose(
    images.resize(image, 8, 2), image.reshape(8, 2, 4, 3).mean(2), atol=0.51
  )
  for height, width in ((16, 8), (8, 12), (4, 12), (12, 4)):  # one side grows
    bicubic = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(images.resize(image, height, width), bicubic)


def test_transparency_is_black_and_depth_needs_a_range():
  def coded(image, **arguments):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **arguments)
    return buffer.getvalue()

  gray = Image.fromarray(np.array([[100, 200], [0, 255]], np.uint8))
  clear = coded(gray, transparency=200)  # a gray level that stands for transparent
  np.testing.assert_array_equal(
    images.decode_image(clear, Geometry())[..., 0], [[100, 0], [0, 255]]
  )
  deep = Image.fromarray(np.array([[0, 301], [500, 60000]], np.uint16))
  with pytest.raises(images.Unreadable, match=r"^16-bit picture \(values 0 to 60000\)"):
    images.decode_image(coded(deep), Geometry())
  with pytest.raises(images.Unreadable, match=r"^32-bit picture \(values 0.5 to 1.5\)"):
    images._scale_depth(np.array([[0.5, 1.5]], np.float32), "F", ())
  with pytest.raises(images.Unreadable, match="^32-bit"):
    images._scale_depth(np.array([[1, 2]], np.int32), "I", ())
  scaled = images.decode_image(coded(deep), Geometry(), SourceOptions(depth_range=(100, 500)))
  assert scaled.shape == (2, 2, 3) and scaled[..., 0].tolist() == scaled[..., 2].tolist() == [
    [0, 128],
    [255, 255],
  ]
  assert images._scale_depth(np.array([[np.nan, 151]], np.float32), "F", (100, 200))[
    ..., 0
  ].tolist() == [[0, 130]]


def test_jpeg_keeps_color_at_full_resolution():
  image = np.zeros((16, 16, 3), np.uint8)
  image[:, ::2, 0], image[:, 1::2, 2] = 255, 255  # columns of red and blue
  found = images.decode_jpeg(images.encode_jpeg(image, 100))
  assert np.abs(found.astype(int) - image).max() < 8
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  assert len(images.encode_jpeg(noise, 50)) < len(images.encode_jpeg(noise, 90))
  with pytest.raises(ValueError, match="^a frame of 16x16 pixels, expected 16x32$"):
    images.decode_jpeg(images.encode_jpeg(image, 90), np.zeros((16, 32, 3), np.uint8))
  assert (
    images.reduction(64, 64, 16, 0) == images.reduction(64, 64, 0, 16) == 1
    and images.reduction(64, 64, 1, 1) == 8
  )
  for shape, by in (((15, 17), 2), ((15, 17), 4)):
    small = images.decode_jpeg(images.encode_jpeg(np.zeros((*shape, 3), np.uint8), 90), by=by)
    assert small.shape == (-(-shape[0] // by), -(-shape[1] // by), 3)


def gray(*levels):
  return [np.full((16, 16, 3), level, np.uint8) for level in levels]


def test_groups_of_ten_frames_and_their_numbers():
  encoder = frame_codec.FrameEncoder("h264", 10)
  levels = [10 + 10 * t for t in range(23)]
  for image in gray(*levels):
    encoder.add(image)
  frames = encoder.finish()
  assert (frames.codec, len(frames.blobs)) == ("h264", 3) and frame_codec.blob_numbers(
    "h264", [0, 9, 10, 22, 9]
  ) == [0, 1, 2]
  assert frame_codec.blob_numbers("jpeg", [3, 1, 3]) == [1, 3]
  wanted = [21, 0, 10, 9, 21]
  out = np.zeros((5, 16, 16, 3), np.uint8)
  frame_codec.decode("h264", {i: frames.blobs[i] for i in (0, 1, 2)}, wanted, out)
  np.testing.assert_allclose(out.mean((1, 2, 3)), [levels[t] for t in wanted], atol=3)
  with pytest.raises(images.Unreadable, match="^the frame size changes from .16, 16. to .8, 16.$"):
    encoder.add(np.zeros((8, 16, 3), np.uint8))
  with pytest.raises(images.Unreadable, match="^damaged h264 frame"):
    frame_codec.decode("h264", {0: b"x"}, [0], out)
  assert (
    frame_codec.reduction("jpeg", (32, 32), (16, 16)) == 2
    and frame_codec.reduction("h264", (32, 32), (16, 16)) == 1
  )
  ten = frame_codec.FrameEncoder("h264", 10)
  for image in gray(*levels[:10]):
    ten.add(image)
  assert len(ten.finish().blobs) == 1


def test_frames_of_jpeg_are_those_asked_for():
  encoder = frame_codec.FrameEncoder("jpeg", 90)
  for image in gray(10, 90, 170, 250):
    encoder.add(image)
  frames = encoder.finish()
  out = np.zeros((2, 16, 16, 3), np.uint8)
  frame_codec.decode("jpeg", {1: frames.blobs[1], 3: frames.blobs[3]}, [3, 1], out)
  np.testing.assert_allclose(out.mean((1, 2, 3)), [250, 90], atol=2)


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


@pytest.mark.parametrize(
  "encoder", [frame_codec.FrameEncoder("h264", 20), video_encode.H264Encoder(20)]
)
def test_an_encoder_without_a_frame_says_so(encoder):
  with pytest.raises(ValueError, match="no frame was added"):
    encoder.finish()
