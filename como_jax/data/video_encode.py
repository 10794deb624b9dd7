"""Encodes a few frames as an H.264 blob, the second codec of shards, and decodes it."""

from __future__ import annotations  # PyAV is imported at its first use

import io
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from como_jax.data import images, video_color, video_end
from como_jax.data.pyav import av

_BT601, _LIMITED = 6, 1  # codes of ITU-T H.273 and FFmpeg
H264_RATE = 25  # frame number = pts * time base * rate; the true times are stored with the clip


class H264Encoder:
  """Encodes frames into one mp4 blob.

  It has a key frame every `group` frames and no B-frames, so that random access is fast.
  """

  def __init__(self, quality: int, rate: int | Fraction = H264_RATE, group: int = 10):
    self._buffer = io.BytesIO()
    self._container = av.open(self._buffer, mode="w", format="mp4", options={"fflags": "+bitexact"})
    self._quality, self._rate, self._group, self.count = quality, rate, group, 0
    self._stream: av.VideoStream | None = None

  def add(self, image: np.ndarray) -> None:
    """Appends a frame, uint8 [H, W, 3]. All frames have the same size."""
    stream = self._stream
    if stream is None:
      # One thread: x264's output depends on the number of threads.
      options = {
        "crf": str(self._quality),
        "g": str(self._group),
        "bf": "0",
        "threads": "1",
        "preset": "medium",
      }
      stream = self._stream = self._container.add_stream(
        "libx264", rate=self._rate, options=options
      )
      stream.height, stream.width = image.shape[:2]
      odd = image.shape[0] % 2 or image.shape[1] % 2
      stream.pix_fmt = "yuv444p" if odd else "yuv420p"
      # Declare the color format to which PyAV converts RGB, so that readers need not guess it.
      context = stream.codec_context
      context.colorspace, context.color_range = _BT601, _LIMITED
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    frame.pts, self.count = self.count, self.count + 1
    self._container.mux(stream.encode(frame))

  def finish(self) -> bytes:
    """Ends the blob and returns its bytes. Raises ValueError when no frame was added."""
    if self._stream is None:
      raise ValueError("no frame was added")
    self._container.mux(self._stream.encode(None))
    self._container.close()
    return self._buffer.getvalue()


def decode_h264(blob: bytes, indices: Iterable[int]) -> dict[int, np.ndarray]:
  """Frames of an `H264Encoder` blob by number. Raises ValueError when one is missing."""
  requested, images_by_index = sorted(set(indices)), {}
  # Blobs of older versions declare no color matrix.
  convert = video_color.Converter(images.Geometry(), untagged="ITU601")
  with av.open(io.BytesIO(blob), "r") as container:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    position = -1
    for index in requested:
      if index in images_by_index:
        continue
      # Further than a group of pictures: seek to the key frame before it.
      if position < 0 or index - position > 10:
        container.seek(int(index / H264_RATE / video_end.time_base(stream)), stream=stream)
      for frame in container.decode(stream):
        if frame.pts is None or frame.time_base is None:
          raise ValueError(f"a frame near {index} has no time in the H.264 data")
        position = round(float(frame.pts * frame.time_base) * H264_RATE)
        if position in requested:
          images_by_index[position] = convert(frame)
        if position >= index:
          break
      if index not in images_by_index:
        raise ValueError(f"frame {index} is missing in the H.264 data")
  return images_by_index
