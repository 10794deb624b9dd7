"""Episodes of numbered pictures, and their encoded clips."""

import dataclasses

import numpy as np

from como_jax.data import episode, episode_encoder
from como_jax.data.ingest_settings import Settings
from tests.data import makers

SETTINGS = Settings(0, "squash", "jpeg", 95, 128, ("a",), 64, {})


def raw(*, count=6, cameras=("a",), task="go", size=(16, 16), seconds=None, **more):
  seconds = np.arange(count) / 10 if seconds is None else seconds

  def frames(geometry):
    return (
      (float(second), geometry.apply(makers.picture(t % 39, *size)))
      for t, second in enumerate(seconds)
    )

  return episode.RawEpisode(
    "e", task, dict.fromkeys(cameras, frames), more.pop("arrays", {}), **more
  )


def encode(one, *, told=None, **settings):
  settings = dataclasses.replace(SETTINGS, cameras=tuple(one.cameras), **settings)
  return episode_encoder.encode(one, settings, (told if told is not None else []).append)
