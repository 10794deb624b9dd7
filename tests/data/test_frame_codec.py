"""Frames as stored: which are decoded, and their numbers."""

import numpy as np
import pytest

from como_jax.data import frame_codec, images
from tests.data.gray_pictures import gray


def test_groups_of_ten_frames_and_their_numbers():
  encoder = frame_codec.FrameEncoder("h264", 10)
  levels = [10 + 10 * t for t in range(23)]
  for image in gray(*levels):
    encoder.add(image)
  frames = encoder.finish()
  assert (frames.codec, len(frames.blobs)) == ("h264", 3) and frame_codec.blob_indices(
    "h264", [0, 9, 10, 22, 9]
  ) == [0, 1, 2]
  assert frame_codec.blob_indices("jpeg", [3, 1, 3]) == [1, 3]
  wanted = [21, 0, 10, 9, 21]
  out = np.zeros((5, 16, 16, 3), np.uint8)
  frame_codec.decode("h264", {i: frames.blobs[i] for i in (0, 1, 2)}, wanted, out)
  np.testing.assert_allclose(out.mean((1, 2, 3)), [levels[t] for t in wanted], atol=3)
  with pytest.raises(
    images.UnreadableError, match="^the frame size changes from .16, 16. to .8, 16.$"
  ):
    encoder.add(np.zeros((8, 16, 3), np.uint8))
  with pytest.raises(images.UnreadableError, match="^damaged h264 frame"):
    frame_codec.decode("h264", {0: b"x"}, [0], out)
  assert (
    frame_codec.reduction("jpeg", (32, 32), (16, 16)) == 2
    and frame_codec.reduction("h264", (32, 32), (16, 16)) == 1
  )
  ten = frame_codec.FrameEncoder("h264", 10)
  for image in gray(*levels[:10]):
    ten.add(image)
  assert len(ten.finish().blobs) == 1


def test_frames_of_jpeg_are_those_asked_for():
  encoder = frame_codec.FrameEncoder("jpeg", 90)
  for image in gray(10, 90, 170, 250):
    encoder.add(image)
  frames = encoder.finish()
  out = np.zeros((2, 16, 16, 3), np.uint8)
  frame_codec.decode("jpeg", {1: frames.blobs[1], 3: frames.blobs[3]}, [3, 1], out)
  np.testing.assert_allclose(out.mean((1, 2, 3)), [250, 90], atol=2)
