"""Names of encoder sizes."""

import pytest

from como_jax import errors
from como_jax.models import sizes


@pytest.mark.parametrize(
  "text, expected",
  [
    ("L/16", (1024, 24, 16, 4096, 16)),
    ("B/16", (768, 12, 12, 3072, 16)),
    ("S/16", (384, 12, 6, 1536, 16)),
    ("Ti/16", (192, 12, 3, 768, 16)),
    ("debug/8", (128, 6, 4, 512, 8)),
    ("32x2x4/8", (32, 2, 4, 128, 8)),
  ],
)
def test_sizes(text, expected):
  assert sizes.parse(text) == sizes.Size(*expected)


@pytest.mark.parametrize("text", ["L16", "XL/16", "L/x", "32x2/8", "30x2x4/8", "", "L/0"])
def test_unknown_sizes(text):
  with pytest.raises(errors.UserError, match="encoder size"):
    sizes.parse(text)


def test_image_must_be_whole_patches():
  assert sizes.parse("L/16").grid(224) == 14
  with pytest.raises(errors.UserError, match="patch 16"):
    sizes.parse("L/16").grid(225)


@pytest.mark.parametrize(
  "text, size",
  [
    ("H/14", (1280, 32, 16, 5120, 14)),
    ("4x1x1/1", (4, 1, 1, 16, 1)),
    ("12x1x3/2", (12, 1, 3, 48, 2)),
  ],
)
def test_more_sizes(text, size):
  assert sizes.parse(text) == sizes.Size(*size)


@pytest.mark.parametrize("text", ["4x0x1/8", "4x1x0/8", "0x1x1/8", "6x1x3/8", "8x1x3/8"])
def test_sizes_that_cannot_be(text):
  with pytest.raises(errors.UserError, match="the width must be a multiple of the heads and of 4"):
    sizes.parse(text)
