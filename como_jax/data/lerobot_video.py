"""Encodes the video files of a LeRobot data set: H.264, several episodes in a file."""

from __future__ import annotations  # PyAV is imported at its first use

import dataclasses
import fractions
import pathlib

import numpy as np

from como_jax import errors
from como_jax.data.pyav import OutputContainer, PictureType, av

VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
FILES_A_CHUNK = 1000


@dataclasses.dataclass(frozen=True)
class VideoOptions:
  """How the frames of a data set are encoded.

  Attributes:
    crf: H.264 quality (0 lossless .. 51); 23 is the codec's default.
    gop: number of frames from key frame to key frame; small values make random access fast.
    video_megabytes: a new video file is started when the file is larger than this.
  """

  crf: int = 23
  gop: int = 4
  video_megabytes: float = 200

  def check(self) -> None:
    """Raises `errors.UserError` when a number is out of range."""
    if self.gop < 1 or not 0 <= self.crf <= 51:
      raise errors.UserError(
        f"gop = {self.gop}, crf = {self.crf}: expected gop >= 1 and 0 <= crf <= 51"
      )


class VideoFiles:
  """The video files of one camera.

  Frame t of an episode is at `from_timestamp + t / fps` in its file. Every episode starts with a
  key frame.

  Args:
    root: folder of the data set.
    key: feature of the camera.
    fps: frames per second.
    size: (height, width) of the frames.
    options: how they are encoded.
  """

  def __init__(
    self,
    root: pathlib.Path,
    key: str,
    fps: fractions.Fraction,
    size: tuple[int, int],
    options: VideoOptions,
  ):
    self._root, self._key, self._fps, self._size = root, key, fps, size
    self._options = options
    self._number, self._count = -1, 0
    self._file: _OpenFile | None = None

  def add(self, frames: np.ndarray) -> dict[str, int | float]:
    """Encodes uint8 [T, H, W, 3]; returns their location as columns of the episodes table."""
    if self._file is None or self._file.bytes_written() > self._options.video_megabytes * 2**20:
      self._file = self._open()
    start = self._count
    for i, frame in enumerate(frames):
      picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
      picture.pts, picture.time_base = self._count, 1 / self._fps
      if i == 0:
        picture.pict_type = PictureType.I
      self._file.container.mux(self._file.stream.encode(picture))
      self._count += 1
    chunk, number = divmod(self._number, FILES_A_CHUNK)
    return {
      "chunk_index": chunk,
      "file_index": number,
      "from_timestamp": float(start / self._fps),
      "to_timestamp": float(self._count / self._fps),
    }

  def close(self) -> None:
    """Closes the current file."""
    if self._file is not None:
      self._file.container.mux(self._file.stream.encode(None))
      self._file.container.close()
      self._file = None

  def _open(self) -> _OpenFile:
    """Closes the current file and opens the next one."""
    self.close()
    self._number, self._count = self._number + 1, 0
    chunk, number = divmod(self._number, FILES_A_CHUNK)
    path = self._root / VIDEO_PATH.format(video_key=self._key, chunk_index=chunk, file_index=number)
    path.parent.mkdir(parents=True, exist_ok=True)
    container = av.open(str(path), "w")
    options = {"crf": str(self._options.crf), "preset": "slow", "forced-idr": "1"}
    stream = container.add_stream("libx264", rate=self._fps, options=options)
    stream.height, stream.width = self._size
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = 1 / self._fps
    stream.codec_context.gop_size = self._options.gop
    stream.codec_context.max_b_frames = 0
    stream.codec_context.thread_count = 1
    return _OpenFile(path, container, stream)


@dataclasses.dataclass(frozen=True)
class _OpenFile:
  """A video file that is being written."""

  path: pathlib.Path
  container: OutputContainer
  stream: av.VideoStream

  def bytes_written(self) -> int:
    """Size of the file so far, 0 while there is none: the encoder buffers a few frames."""
    return self.path.stat().st_size if self.path.exists() else 0
