"""The record: one clip of one episode, all cameras, in bytes without pickle; and what a source hands to ingest.

Layout: magic, uint16 version, uint32 header length (little endian), JSON header, payload. The header gives each array's
dtype and shape and each frame's size, so a reader touches only the frames it wants.
"""

import dataclasses
import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import xxhash

from como_jax import errors
from como_jax.data import video

MAGIC = b"COMOCLIP"
VERSION = 1
CODECS = ("jpeg", "h264")
_PREFIX = struct.Struct("<8sHI")


@dataclasses.dataclass(frozen=True)
class Frames:
  """The encoded frames of one camera of one clip.

  Attributes:
    codec: "jpeg" (one blob a frame) or "h264" (one blob in all).
    count, height, width: number and size of the frames.
    blobs: encoded bytes, or views of the record's bytes.
  """

  codec: str
  count: int
  height: int
  width: int
  blobs: Sequence[bytes | memoryview]

  def reduction(self, to: tuple[int, int]) -> int:
    """How many times smaller the frames may be decoded when they are then resized to `to`, (height, width), see `video.reduction`."""
    return video.reduction(self.height, self.width, *to) if self.codec == "jpeg" else 1

  def decode(self, indices: Sequence[int], *, to: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Frames by number, uint8 [n, H, W, 3].

    Args:
      to: height and width that the caller resizes them to: H and W are then divided by `reduction(to)`. (0, 0) = none.

    Raises:
      video.Unreadable: the bytes are damaged.
    """
    by, indices = self.reduction(to), [int(i) for i in indices]
    if any(not 0 <= i < self.count for i in indices):
      raise IndexError(f"frame numbers {indices} of a clip of {self.count}")
    try:
      if self.codec == "jpeg":
        images = {i: video.decode_jpeg(self.blobs[i], by=by) for i in set(indices)}
      else:
        images = video.decode_h264(self.blobs[0], indices)
    except video.DECODE_ERRORS as error:
      raise video.Unreadable(f"damaged {self.codec} frame ({error})") from error
    return np.stack([images[i] for i in indices]) if indices else np.zeros((0, self.height // by, self.width // by, 3), np.uint8)


class FrameEncoder:
  """Collects one camera's frames of a clip, encoding as they come."""

  def __init__(self, codec: str, quality: int):
    self._codec, self._quality = codec, quality
    self._blobs, self._shape = [], None
    self._h264 = video.H264Encoder(quality) if codec == "h264" else None

  def add(self, image: np.ndarray) -> None:
    """Appends [H, W, 3]. Raises `video.Unreadable` when the size changes within the clip."""
    if self._shape is None:
      self._shape = image.shape
    if image.shape != self._shape:
      raise video.Unreadable(f"the frame size changes from {self._shape[:2]} to {image.shape[:2]}")
    if self._h264 is not None:
      self._h264.add(image)
    else:
      self._blobs.append(video.encode_jpeg(image, self._quality))

  def finish(self) -> Frames:
    if self._h264 is not None:
      return Frames("h264", self._h264.count, *self._shape[:2], (self._h264.finish(),))
    return Frames("jpeg", len(self._blobs), *self._shape[:2], tuple(self._blobs))


@dataclasses.dataclass(frozen=True)
class Clip:
  """One contiguous stretch of one episode, all cameras; what a shard record holds.

  Attributes:
    episode: id, unique in its data set.
    start: frame number in the episode of the first frame.
    fps: frames a second.
    task: language instruction, "" when unknown.
    frames: camera name -> encoded frames, all of the same count T.
    arrays: "action" [T, A] float32, "state" [T, S] float32, "timestamp" [T] seconds; any may be absent.
  """

  episode: str
  start: int
  fps: float
  task: str
  frames: dict[str, Frames]
  arrays: dict[str, np.ndarray]

  def __len__(self) -> int:
    return next(iter(self.frames.values())).count


def encode(clip: Clip) -> bytes:
  """Clip -> bytes; the same clip always gives the same bytes."""
  header = {
    "episode": clip.episode,
    "start": clip.start,
    "fps": clip.fps,
    "task": clip.task,
    "frames": {},
    "arrays": {},
  }
  payload = []
  for name, array in sorted(clip.arrays.items()):
    array = np.ascontiguousarray(array)
    if array.dtype.kind not in "biuf":
      raise TypeError(f"array {name!r} has dtype {array.dtype}, expected numbers")
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    header["arrays"][name] = {"dtype": array.dtype.str, "shape": array.shape}
    payload.append(array.tobytes())
  for name, frames in clip.frames.items():
    header["frames"][name] = {
      "codec": frames.codec,
      "count": frames.count,
      "height": frames.height,
      "width": frames.width,
      "sizes": [len(blob) for blob in frames.blobs],
    }
    payload.extend(frames.blobs)
  text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
  return b"".join([_PREFIX.pack(MAGIC, VERSION, len(text)), text, *payload])


def decode(data: bytes) -> Clip:
  """The inverse of `encode`; frames stay encoded, arrays are copies.

  Raises:
    errors.UserError: written by a newer version.
    video.Unreadable: not a clip, or cut short.
  """
  if len(data) < _PREFIX.size:
    raise video.Unreadable(f"{len(data)} bytes are too few for a clip")
  magic, version, length = _PREFIX.unpack_from(data)
  if magic != MAGIC:
    raise video.Unreadable("not a como_jax clip (wrong magic bytes)")
  if version > VERSION:
    raise errors.UserError(f"clip record has version {version}, this program reads up to {VERSION}: update como_jax")
  view, at = memoryview(data), _PREFIX.size + length
  try:
    header = json.loads(bytes(view[_PREFIX.size : at]))

    def take(size):
      nonlocal at
      at += size
      if at > len(view):
        raise ValueError("the record is cut short")
      return view[at - size : at]  # no copy: most frames of a record are never looked at

    arrays = {}
    for name, spec in header["arrays"].items():
      dtype = np.dtype(spec["dtype"])
      arrays[name] = np.frombuffer(take(dtype.itemsize * math.prod(spec["shape"])), dtype).reshape(spec["shape"]).copy()
    frames = {
      name: Frames(
        spec["codec"], spec["count"], spec["height"], spec["width"], tuple(take(size) for size in spec["sizes"])
      )
      for name, spec in header["frames"].items()
    }
    return Clip(header["episode"], header["start"], header["fps"], header["task"], frames, arrays)
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise video.Unreadable(f"damaged clip ({error})") from error


@dataclasses.dataclass(frozen=True)
class RawEpisode:
  """What a source yields: an episode whose frames are still to be decoded.

  Attributes:
    episode, fps, task: as in `Clip`.
    cameras: name -> function of a `video.Geometry` giving an iterator of uint8 [H, W, 3]; it may raise
      `video.Unreadable` at any frame, and the whole episode is then discarded.
    arrays: name -> [T, ...] for the whole episode.
    notes: remarks (not errors), possibly added while the frames are read.
    group: episodes of one group show the same motion (in other scenes, say) and stay on one side of a split; "" = alone.
  """

  episode: str
  fps: float
  task: str
  cameras: dict[str, Callable[[video.Geometry], Iterator[np.ndarray]]]
  arrays: dict[str, np.ndarray]
  notes: list[str] = dataclasses.field(default_factory=list)
  group: str = ""


def fingerprint(root: str, files: Sequence[str]) -> str:
  """Hash of names, sizes and modification times: changes when the source does, without reading it."""
  digest = xxhash.xxh64()
  for name in files:
    stat = os.stat(os.path.join(root, name))
    digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
  return digest.hexdigest()
