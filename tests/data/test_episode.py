"""The record's bytes."""

import struct

import numpy as np
import pytest

from como_jax import errors
from como_jax.data import episode, video
from tests.data import makers


def make(codec="jpeg", quality=95, count=25, size=(16, 24)):
  encoder = episode.FrameEncoder(codec, quality)
  for t in range(count):
    encoder.add(makers.picture(t, *size))
  arrays = {"action": np.arange(count * 3, dtype=np.float32).reshape(count, 3), "timestamp": np.arange(count) / 10}
  return episode.Clip("e/1", 7, 29.97, "öffne die Tür", {"top": encoder.finish()}, arrays)


@pytest.mark.parametrize("codec,quality,size", [("jpeg", 95, (16, 24)), ("h264", 10, (16, 24)), ("h264", 10, (17, 23))])
def test_round_trip_decodes_the_wanted_frames(codec, quality, size):
  clip = make(codec, quality, size=size)
  back = episode.decode(episode.encode(clip))
  assert (back.episode, back.start, back.fps, back.task, len(back)) == (clip.episode, 7, 29.97, clip.task, 25)
  np.testing.assert_array_equal(back.arrays["action"], clip.arrays["action"])
  assert back.arrays["action"].flags.owndata and back.arrays["timestamp"].dtype == np.float64
  images = back.frames["top"].decode([24, 0, 13, 13, 2])
  assert images.shape == (5, *size, 3) and images.dtype == np.uint8
  assert [makers.number(image) for image in images] == [24, 0, 13, 13, 2]


def test_same_clip_same_bytes():
  for codec in episode.CODECS:
    assert episode.encode(make(codec, 20)) == episode.encode(make(codec, 20))


def test_newer_version_is_refused():
  data = episode.encode(make())
  newer = data[:8] + struct.pack("<H", episode.VERSION + 1) + data[10:]
  with pytest.raises(errors.UserError, match=f"version {episode.VERSION + 1}.*update como_jax"):
    episode.decode(newer)


@pytest.mark.parametrize(
  "change", [lambda d: d[:5], lambda d: d[:-10], lambda d: b"x" + d[1:], lambda d: d[:14] + b"}" + d[15:]]
)
def test_damaged_bytes_are_unreadable(change):
  with pytest.raises(video.Unreadable):
    episode.decode(change(episode.encode(make())))


def test_damaged_frame_and_bad_numbers():
  frames = make().frames["top"]
  with pytest.raises(IndexError):
    frames.decode([25])
  broken = episode.Frames("jpeg", 1, 16, 24, (b"not a jpeg",))
  with pytest.raises(video.Unreadable, match="damaged jpeg"):
    broken.decode([0])


def test_size_change_within_a_clip_is_unreadable():
  encoder = episode.FrameEncoder("jpeg", 95)
  encoder.add(makers.picture(0, 16, 16))
  with pytest.raises(video.Unreadable, match="size changes"):
    encoder.add(makers.picture(0, 16, 18))
