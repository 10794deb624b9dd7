"""Encoded video."""

import pytest

from como_jax.data import frame_codec, video_encode


@pytest.mark.parametrize(
  "encoder", [frame_codec.FrameEncoder("h264", 20), video_encode.H264Encoder(20)]
)
def test_an_encoder_without_a_frame_says_so(encoder):
  with pytest.raises(ValueError, match="no frame was added"):
    encoder.finish()
