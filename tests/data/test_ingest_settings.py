"""Settings of an ingest."""

import dataclasses

import pytest

from como_jax import errors
from tests.data.encoded_episodes import SETTINGS


@pytest.mark.parametrize(
  "name, low, high, codec",
  [
    ("image_size", 0, 8192, "jpeg"),
    ("clip_frames", 1, 100_000, "jpeg"),
    ("episodes_per_shard", 1, 1_000_000, "jpeg"),
    ("quality", 1, 100, "jpeg"),
    ("quality", 0, 51, "h264"),
  ],
)
def test_limits_of_settings(name, low, high, codec):
  base = dataclasses.replace(SETTINGS, codec=codec, quality=18)
  for value in (low, high):
    made = dataclasses.replace(base, **{name: value})
    assert made.check() is made
  for value in (low - 1, high + 1):
    with pytest.raises(
      errors.UserError, match=f"^ingest {name} is {value}, expected {low} to {high}$"
    ):
      dataclasses.replace(base, **{name: value}).check()


def test_settings_by_name():
  for name, value in (("measure", "onn"), ("resize", "cop"), ("codec", "jpg")):
    with pytest.raises(errors.UserError, match=f"^ingest {name} '{value}': did you mean '.*'"):
      dataclasses.replace(SETTINGS, **{name: value}).check()
  with pytest.raises(errors.UserError):
    dataclasses.replace(SETTINGS, filters={"drop_stil": True}).check()
