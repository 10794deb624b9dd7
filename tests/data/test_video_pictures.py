"""Which decoded pictures are trusted."""

from types import SimpleNamespace

import pytest

from como_jax.data import video_pictures


def fakes(codec, *packets):
  """A container and its stream of packets (time, times of the pictures that the decoder then
  gives), all key frames.
  """
  stream = SimpleNamespace(index=0, codec_context=SimpleNamespace(name=codec))
  made = [
    SimpleNamespace(
      stream=stream,
      size=9,
      is_discard=False,
      is_keyframe=True,
      is_corrupt=False,
      pts=pts,
      dts=pts,
      duration=0,
      pos=0,
      time_base=1,
      decode=lambda shown=shown: [SimpleNamespace(pts=one, is_corrupt=False) for one in shown],
    )
    for pts, shown in packets
  ]
  return SimpleNamespace(format=SimpleNamespace(name="mpegts"), demux=lambda: iter(made)), stream


@pytest.mark.parametrize(
  "codec,entered,kept", [("h264", False, [10]), ("hevc", False, [8, 10]), ("hevc", True, [10])]
)
def test_pictures_before_the_key_frame_are_not_trusted(codec, entered, kept):
  """Known decoders give none of those that refer to what came before; this does not rely on it."""
  container, stream = fakes(codec, (10, [8, 10]))
  pictures = video_pictures.pictures(container, stream, video_pictures.Tally(), entered=entered)
  assert [frame.pts for frame in pictures] == kept


def test_packets_that_belong_before_the_first_picture_are_no_loss():
  container, stream = fakes("hevc", (10, [10]), (8, []), (9, []), (11, [11]))
  tally = video_pictures.Tally()
  assert len(list(video_pictures.pictures(container, stream, tally))) == 2
  # of no stated duration
  assert (tally.leading, tally.expected, tally.decoded) == (2, 2, 2) and not tally.lasting


def test_a_key_frame_without_time_is_no_place_to_enter():
  container, stream = fakes("mpeg2video", (None, [None]))
  pictures, tally = video_pictures.pictures, video_pictures.Tally
  assert list(pictures(container, stream, tally(), entered=True)) == []
  assert len(list(pictures(container, stream, tally()))) == 1
