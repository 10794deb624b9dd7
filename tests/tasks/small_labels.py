"""Tiny data, tiny models and the command that labels the ones with the others."""

import pathlib

import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import weights
from como_jax.tasks import extract
from como_jax.train import lock
from tests.data import makers
from tests.end_to_end import program
from tests.models import tiny

CONFIG = f"{program.ROOT}/configs/extract.py:debug"
# at 10 frames a second and 0.3 s: n = 3, so the third episode has no label
LENGTHS = (14, 9, 3, 11)
N = 3


class Noise(makers.Synthetic):
  """Every frame of every camera is other noise."""

  def __getitem__(self, i):
    raw = super().__getitem__(i)

    def camera(name):
      rng = np.random.default_rng([i, len(name)])
      frames = rng.integers(0, 256, (self._lengths[i], 16, 16, 3), np.uint8)
      return lambda geometry: zip(self.seconds(i).tolist(), frames, strict=True)

    raw.cameras.update({name: camera(name) for name in raw.cameras})
    return raw


@pytest.fixture(name="data", scope="module")
def _data(tmp_path_factory):
  """Two cameras; clips of 6 frames; two episodes a shard."""
  return makers.shards(
    tmp_path_factory.mktemp("data") / "s",
    source=Noise(LENGTHS, cameras=("a", "bb")),
    clip_frames=6,
    episodes_per_shard=2,
  )


@pytest.fixture(name="checkpoint", scope="module")
def _checkpoint(data, tmp_path_factory):
  return model_folder(tmp_path_factory.mktemp("model") / "m", data)


@pytest.fixture(name="whole", scope="module")
def _whole(checkpoint, tmp_path_factory):
  """A label set of the data, uninterrupted."""
  return run(tmp_path_factory.mktemp("labels") / "whole", checkpoint)


def model_folder(folder, data="", **changes):
  """A weights folder of a tiny motion model, as a finished run leaves it."""
  section = tiny.section(tiny.MOTION, **changes)
  weights.save(
    folder,
    tiny.made(tiny.MOTION, **changes)[1],
    {"model": section, "data": {"path": data, "offset_seconds": 0.3, "resize": "squash"}},
  )
  return str(folder)


def command(workdir, *words):
  return config_lib.parse(
    [
      "main",
      f"--config={CONFIG}",
      f"--workdir={workdir}",
      "--config.batch_size=8",
      "--config.data.threads=2",
      *words,
    ]
  )


def run(workdir, checkpoint, *words):
  assert extract.run(command(workdir, f"--config.checkpoint={checkpoint}", *words)) == 0
  return str(workdir)


def content(folder):
  return {
    path.name: path.read_bytes()
    for path in pathlib.Path(folder).iterdir()
    if path.name not in (extract.SPEED, lock.LOCK)
  }
