"""A clip of a few frames."""

import numpy as np

from como_jax.data import shard_file


def small_clip(**changes):
  return shard_file.Clip(
    **dict(
      start=0,
      length=2,
      frames={"a": shard_file.Frames("jpeg", 2, 4, 6, [b"xyz", b"q"])},
      arrays={"v": np.arange(2)},
    )
    | changes
  )
