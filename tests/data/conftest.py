"""Shards that several files of tests read and none changes."""

import numpy as np
import pytest

from tests.data import makers


@pytest.fixture(scope="session")
def uneven_path(tmp_path_factory):
  """Two segments an episode of 20 frames, clips of 6; the second episode's times are uneven."""
  uneven = np.arange(20) / 10 + 0.03 * (np.arange(20) % 3 == 1)
  return makers.shards(
    tmp_path_factory.mktemp("data") / "s",
    (20, 20),
    cuts=[(14,), ()],
    clip_frames=6,
    episodes_per_shard=1,
    times=lambda i, n: uneven if i else np.arange(n) / 10,
    group=["g", ""],
  )


@pytest.fixture(scope="session")
def many(tmp_path_factory):
  """20 short episodes of two tasks."""
  return makers.shards(tmp_path_factory.mktemp("data") / "s", (5,) * 20, clip_frames=3)
