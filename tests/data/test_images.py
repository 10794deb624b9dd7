"""Single pictures: geometry, resizing, and images of tables of every kind."""

import io

import numpy as np
import pytest
from PIL import Image

from como_jax.data import images, video
from como_jax.data.images import Geometry
from como_jax.data.sources.options import SourceOptions
from tests.data import makers

KEEP = video.Geometry()


@pytest.mark.parametrize("mode,corner", [("squash", 255), ("crop", 255), ("pad", 0)])
def test_geometry(mode, corner):
  image = np.full((20, 40, 3), 255, np.uint8)
  out = video.Geometry(16, mode).apply(image)
  assert out.shape == (16, 16, 3) and out[8, 8, 0] == 255 and out[0, 0, 0] == corner


def test_shrinking_averages():
  stripes = np.zeros((32, 32, 3), np.uint8)
  stripes[:, ::2] = 200  # point sampling would give 0 or 200
  np.testing.assert_allclose(video.resize(stripes, 8, 8), 100, atol=1)


def coded(image, mode=None, form="PNG", **arguments):
  buffer = io.BytesIO()
  image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
  (image.convert(mode) if mode else image).save(buffer, form, **arguments)
  return buffer.getvalue()


def test_pictures_of_16_bits_need_a_range():
  depth = np.linspace(400, 4400, 48 * 64).reshape(48, 64).astype(np.uint16)
  data = coded(depth)
  with pytest.raises(
    video.UnreadableError, match=r"16-bit picture \(values 400 to 4400\): set depth_range"
  ):
    video.decode_image(data, KEEP)
  image = video.decode_image(data, KEEP, SourceOptions(depth_range=(1000, 3000)))
  expected = np.clip((depth.astype(float) - 1000) / 2000, 0, 1) * 255
  np.testing.assert_allclose(image, np.repeat(expected[..., None], 3, 2), atol=0.51)


def test_pictures_of_every_kind():
  upright = makers.cornered()
  for mode, close in (("P", 40), ("CMYK", 2), ("RGBA", 0)):
    image = video.decode_image(coded(upright, mode, "TIFF" if mode == "CMYK" else "PNG"), KEEP)
    np.testing.assert_allclose(makers.corners(image), makers.CORNERS, atol=close)
  clear = np.dstack([upright, np.full(upright.shape[:2], 128, np.uint8)])
  np.testing.assert_allclose(
    makers.corners(video.decode_image(coded(clear), KEEP)), makers.CORNERS / 2, atol=1
  )
  gray = video.decode_image(coded(upright, "L"), KEEP)
  assert gray.shape == (48, 64, 3) and np.ptp(gray, axis=2).max() == 0


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
  with pytest.raises(images.UnreadableError, match=r"^16-bit picture \(values 0 to 60000\)"):
    images.decode_image(coded(deep), Geometry())
  with pytest.raises(images.UnreadableError, match=r"^32-bit picture \(values 0.5 to 1.5\)"):
    images._scale_depth(np.array([[0.5, 1.5]], np.float32), "F", ())
  with pytest.raises(images.UnreadableError, match="^32-bit"):
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
