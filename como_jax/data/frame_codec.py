"""Encodes frames into the blobs that a shard stores, and decodes them."""

from collections.abc import Mapping, Sequence

import numpy as np

from como_jax.data import shard_file, video


class FrameEncoder:
  """Encodes the frames of one camera of one clip, one frame at a time."""

  def __init__(self, codec: str, quality: int):
    self._codec, self._quality = codec, quality
    self._blobs: list[bytes] = []
    self._count = 0
    self._shape: tuple[int, ...] | None = None
    self._group: video.H264Encoder | None = None

  def add(self, image: np.ndarray) -> None:
    """Appends [H, W, 3]. Raises `video.UnreadableError` when the size changes within the clip."""
    if self._shape is None:
      self._shape = image.shape
    if image.shape != self._shape:
      raise video.UnreadableError(
        f"the frame size changes from {self._shape[:2]} to {image.shape[:2]}"
      )
    self._count += 1
    if self._codec == "jpeg":
      self._blobs.append(video.encode_jpeg(image, self._quality))
      return
    if self._group is None:
      self._group = video.H264Encoder(self._quality)
    self._group.add(image)
    if self._group.count == shard_file.CODECS[self._codec]:
      self._end_group(self._group)

  def _end_group(self, group: video.H264Encoder) -> None:
    self._blobs.append(group.finish())
    self._group = None

  def finish(self) -> shard_file.Frames:
    """The encoded frames of the clip. Raises ValueError when no frame was added."""
    if self._shape is None:
      raise ValueError("no frame was added")
    if self._group is not None:
      self._end_group(self._group)
    height, width = self._shape[:2]
    return shard_file.Frames(self._codec, self._count, height, width, tuple(self._blobs))


def blob_indices(codec: str, frames: Sequence[int]) -> list[int]:
  """Numbers of the blobs that hold some frames of a clip, sorted."""
  return sorted({int(frame) // shard_file.CODECS[codec] for frame in frames})


def reduction(codec: str, size: tuple[int, int], to: tuple[int, int]) -> int:
  """The factor by which frames may be reduced when they are decoded, see `video.reduction`.

  Args:
    codec: of the frames.
    size: (height, width) of the frames.
    to: (height, width) to which they will be resized.
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
  """Decodes frames of a clip into existing arrays.

  Args:
    codec: of the blobs.
    blobs: the blobs of `blob_indices`, by number.
    frames: n frame numbers within the clip.
    out: n arrays uint8 [H / by, W / by, 3] to write to.
    by: a factor from `reduction`.

  Raises:
    video.UnreadableError: the bytes are damaged.
  """
  try:
    if codec == "jpeg":
      for image, frame in zip(out, frames, strict=True):
        video.decode_jpeg(blobs[int(frame)], image, by=by)
      return
    per = shard_file.CODECS[codec]
    for number, blob in blobs.items():
      indices = [i for i, frame in enumerate(frames) if int(frame) // per == number]
      images = video.decode_h264(blob, [int(frames[i]) % per for i in indices])
      for i in indices:
        out[i][:] = images[int(frames[i]) % per]
  except video.decode_errors() as error:
    raise video.UnreadableError(f"damaged {codec} frame ({error})") from error
