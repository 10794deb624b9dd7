"""Single pictures: geometry, resizing, and images of tables of every kind."""

import io

import numpy as np
import pytest
from PIL import Image

from como_jax.data import video
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
    video.Unreadable, match=r"16-bit picture \(values 400 to 4400\): set depth_range"
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
