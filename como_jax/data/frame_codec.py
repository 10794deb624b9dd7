"""Frames to blobs and back: what a shard stores of the pictures of a camera."""

from collections.abc import Mapping, Sequence

import numpy as np

from como_jax.data import shard_file, video


class FrameEncoder:
  """Collects the frames of one camera of one clip, encoding as they come."""

  def __init__(self, codec: str, quality: int):
    self._codec, self._quality = codec, quality
    self._blobs: list[bytes] = []
    self._count, self._shape = 0, None
    self._group: video.H264Encoder | None = None

  def add(self, image: np.ndarray) -> None:
    """Appends [H, W, 3]. Raises `video.Unreadable` when the size changes within the clip."""
    if self._shape is None:
      self._shape = image.shape
    if image.shape != self._shape:
      raise video.Unreadable(f"the frame size changes from {self._shape[:2]} to {image.shape[:2]}")
    self._count += 1
    if self._codec == "jpeg":
      self._blobs.append(video.encode_jpeg(image, self._quality))
      return
    if self._group is None:
      self._group = video.H264Encoder(self._quality)
    self._group.add(image)
    if self._group.count == shard_file.CODECS[self._codec]:
      self._end_group()

  def _end_group(self) -> None:
    self._blobs.append(self._group.finish())
    self._group = None

  def finish(self) -> shard_file.Frames:
    """The frames of the clip; at least one was added."""
    if self._group is not None:
      self._end_group()
    return shard_file.Frames(self._codec, self._count, *self._shape[:2], tuple(self._blobs))


def blob_numbers(codec: str, frames: Sequence[int]) -> list[int]:
  """The blobs of a clip that hold some of its frames."""
  return sorted({int(frame) // shard_file.CODECS[codec] for frame in frames})


def reduction(codec: str, size: tuple[int, int], to: tuple[int, int]) -> int:
  """How many times smaller frames of a size may be decoded when they are then resized to `to`, see
  `video.reduction`.
  """
  return video.reduction(*size, *to) if codec == "jpeg" else 1


def decode(
  codec: str,
  blobs: Mapping[int, bytes],
  frames: Sequence[int],
  out: Sequence[np.ndarray],
  *,
  by: int = 1,
) -> None:
  """Frames of a clip by number into `out`, n arrays uint8 [H / by, W / by, 3].

  Args:
    codec: of the blobs.
    blobs: those of `blob_numbers`, by number.
    frames: n frame numbers within the clip.
    by: a `reduction`.

  Raises:
    video.Unreadable: the bytes are damaged.
  """
  try:
    if codec == "jpeg":
      for image, frame in zip(out, frames, strict=True):
        video.decode_jpeg(blobs[int(frame)], image, by=by)
      return
    per = shard_file.CODECS[codec]
    for number, blob in blobs.items():
      here = [i for i, frame in enumerate(frames) if int(frame) // per == number]
      images = video.decode_h264(blob, [int(frames[i]) % per for i in here])
      for i in here:
        out[i][:] = images[int(frames[i]) % per]
  except video.DECODE_ERRORS as error:
    raise video.Unreadable(f"damaged {codec} frame ({error})") from error
