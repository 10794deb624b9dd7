"""Encodes the frames of an episode, one by one or clip by clip, and keeps their bytes."""

import tempfile
from collections.abc import Sequence

import numpy as np

from como_jax.data import clip_plan, frame_codec, video
from como_jax.data.ingest_settings import Settings

# Bytes. If the encoded frames of an episode are larger, they go to a temporary file.
_SPOOL = 1 << 28


class Blobs:
  """The encoded frames of an episode, in memory or in a temporary file when they are many.

  Attributes:
    sizes: (height, width) of each frame by camera.
  """

  def __init__(self, cameras: Sequence[str]):
    self._spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL)  # noqa: SIM115  `close` closes it
    self._locations: dict[str, list[tuple[int, int]]] = {name: [] for name in cameras}
    self.sizes: dict[str, list[tuple[int, int]]] = {name: [] for name in cameras}

  def add(self, camera: str, data: bytes) -> None:
    """Stores the next blob of a camera."""
    self._locations[camera].append((self._spool.tell(), len(data)))
    self._spool.write(data)

  def read(self, camera: str, i: int) -> bytes:
    """Blob i of a camera."""
    offset, size = self._locations[camera][i]
    self._spool.seek(offset)
    return self._spool.read(size)

  def close(self) -> None:
    """Removes the temporary file."""
    self._spool.close()


class FrameCoder:
  """Encodes each frame alone, as JPEG."""

  def __init__(self, settings: Settings, blobs: Blobs):
    self._settings, self._blobs = settings, blobs

  def add(self, t: int, images: Sequence[np.ndarray]) -> None:
    """Encodes frame t: one image per camera."""
    del t
    for name, image in zip(self._settings.cameras, images, strict=True):
      self._blobs.sizes[name].append((image.shape[0], image.shape[1]))
      self._blobs.add(name, video.encode_jpeg(image, self._settings.quality))


class ClipCoder:
  """Encodes the frames of each clip together."""

  def __init__(self, settings: Settings, blobs: Blobs, plan: clip_plan.Plan):
    self._settings, self._blobs = settings, blobs
    spans = [span for segment in plan.segments for span in segment]
    self._starts = {int(plan.source[span.first]) for span in spans}
    self._stops = {int(plan.source[span.last - 1]) for span in spans}
    self._stored = {int(i) for span in spans for i in plan.source[span.first : span.last]}
    self._encoders: dict[str, frame_codec.FrameEncoder] = {}

  def add(self, t: int, images: Sequence[np.ndarray]) -> None:
    """Encodes frame t: one image per camera. A frame that is in no clip is left out."""
    cameras = self._settings.cameras
    if t in self._starts:
      codec, quality = self._settings.codec, self._settings.quality
      self._encoders = {name: frame_codec.FrameEncoder(codec, quality) for name in cameras}
    for name, image in zip(cameras, images, strict=True):
      self._blobs.sizes[name].append((image.shape[0], image.shape[1]))
      if t in self._stored:
        self._encoders[name].add(image)
    if t in self._stops:
      for name in cameras:
        for data in self._encoders[name].finish().blobs:
          self._blobs.add(name, data)
