"""H.264 blobs of a few frames, the second codec of shards."""

import io
from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np

from como_jax.data import images, video_color

_BT601, _LIMITED = 6, 1  # of ITU-T H.273 and FFmpeg
H264_RATE = 25  # frame number = pts * time base * rate; the true rate is in the clip's header


class H264Encoder:
  """Frame by frame into one mp4 blob with a key frame every `group` frames and no B-frames: cheap
  to enter anywhere.
  """

  def __init__(self, quality: int, rate: int | Fraction = H264_RATE, group: int = 10):
    self._buffer = io.BytesIO()
    self._container = av.open(self._buffer, mode="w", format="mp4", options={"fflags": "+bitexact"})
    self._quality, self._rate, self._group, self._stream, self.count = quality, rate, group, None, 0

  def add(self, image: np.ndarray) -> None:
    if self._stream is None:
      # One thread: x264's output depends on the number of threads.
      options = {
        "crf": str(self._quality),
        "g": str(self._group),
        "bf": "0",
        "threads": "1",
        "preset": "medium",
      }
      self._stream = self._container.add_stream("libx264", rate=self._rate, options=options)
      self._stream.height, self._stream.width = image.shape[:2]
      odd = image.shape[0] % 2 or image.shape[1] % 2
      self._stream.pix_fmt = "yuv444p" if odd else "yuv420p"
      # state what PyAV converts RGB to, so that no reader has to guess
      context = self._stream.codec_context
      context.colorspace, context.color_range = _BT601, _LIMITED
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    frame.pts, self.count = self.count, self.count + 1
    self._container.mux(self._stream.encode(frame))

  def finish(self) -> bytes:
    self._container.mux(self._stream.encode(None))
    self._container.close()
    return self._buffer.getvalue()


def decode_h264(blob: bytes, indices: Iterable[int]) -> dict[int, np.ndarray]:
  """Frames of an `H264Encoder` blob by number. Raises ValueError when one is missing."""
  wanted, found = sorted(set(indices)), {}
  # blobs of older versions state none
  convert = video_color.Converter(images.Geometry(), untagged="ITU601")
  with av.open(io.BytesIO(blob)) as container:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    position = -1
    for index in wanted:
      if index in found:
        continue
      # further than a group of pictures: enter at the key frame before it
      if position < 0 or index - position > 10:
        container.seek(int(index / H264_RATE / stream.time_base), stream=stream)
      for frame in container.decode(stream):
        position = round(float(frame.pts * frame.time_base) * H264_RATE)
        if position in wanted:
          found[position] = convert(frame)
        if position >= index:
          break
      if index not in found:
        raise ValueError(f"frame {index} is missing in the H.264 data")
  return found
