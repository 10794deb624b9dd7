"""Encoded frames, one by one or clip by clip."""

import numpy as np
import pytest

from como_jax.data import frame_codec, shard_file
from tests.data import makers
from tests.data.encoded_episodes import encode, raw


@pytest.mark.parametrize(
  "codec, clip, sizes",
  [
    ("h264", 12, [(12, 2), (11, 2)]),
    ("h264", 10, [(10, 1), (10, 1), (3, 1)]),
    ("jpeg", 20, [(20, 20), (3, 3)]),
  ],
)
def test_frames_lie_in_their_own_clip(codec, clip, sizes):
  assert shard_file.CODECS == {"jpeg": 1, "h264": 10}
  with encode(
    raw(count=23), codec=codec, quality=90 if codec == "jpeg" else 5, clip_frames=clip
  ) as found:
    made = list(found.clips())
  assert [(row["length"], len(one.frames["a"].blobs)) for one, row in made] == sizes
  for one, row in made:
    out = np.zeros((row["length"], 16, 16, 3), np.uint8)
    frame_codec.decode(codec, dict(enumerate(one.frames["a"].blobs)), range(row["length"]), out)
    assert [makers.number(image) for image in out] == list(
      range(row["start"], row["start"] + row["length"])
    )
