"""A shard: encoded frames, arrays and an index in one file, written once, read by byte ranges.

  magic, version | frames, clip by clip and camera by camera | arrays, column by column | index |
  offset of the index

The index is one safetensors block. It is read in one range when the shard is opened. It holds the
offset, size and xxh64 checksum of every blob of frames and of every array, and the facts measured
for each frame. So only the bytes of the requested frames are read. Checksums are verified on every
read. Files of labels have the same format, without frames.

Legend: C clips of a shard, F frames of all clips together, B blobs of a camera, D numbers of a row.
"""

import dataclasses
import json
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.numpy
import xxhash

from como_jax import errors
from como_jax.data import columns, stored, video

MAGIC = b"COMOSHRD"
VERSION = 2
CODECS = {"jpeg": 1, "h264": 10}  # codec -> frames per blob
_HEAD = struct.Struct("<8sH6x")
_TAIL = struct.Struct("<QQQ8s")  # offset of the index, its size, its xxh64, magic


@dataclasses.dataclass(frozen=True)
class Frames:
  """The encoded frames of one camera of one clip.

  Attributes:
    codec: a key of `CODECS`, which sets the number of frames per blob.
    count: number of frames.
    height: of the frames, in pixels.
    width: of the frames, in pixels.
    blobs: encoded bytes.
  """

  codec: str
  count: int
  height: int
  width: int
  blobs: Sequence[bytes]


@dataclasses.dataclass(frozen=True)
class Clip:
  """A clip to be added to a shard.

  Attributes:
    start: number of the first frame within the episode.
    length: number of frames, T.
    frames: camera -> encoded frames.
    arrays: name -> numbers [T, D] or [T].
    frame_facts: name -> values measured for each frame, [T, ...].
    statistics: name of an array -> its summary (`data.summaries`), [S, D].
  """

  start: int
  length: int
  frames: Mapping[str, Frames]
  arrays: Mapping[str, np.ndarray]
  frame_facts: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
  statistics: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Writer:
  """Writes one shard. Its bytes depend only on the clips. `close` returns facts about the index."""

  def __init__(self, path: str):
    self._file = open(path, "wb")  # noqa: SIM115  `close` closes it
    self._file.write(_HEAD.pack(MAGIC, VERSION))
    self._clips: list[Clip] = []  # without their frames
    self._cameras: dict[str, dict[str, list]] = {}

  def add(self, clip: Clip) -> None:
    """Appends a clip. All clips of a shard have the same cameras and codec."""
    if self._clips and set(clip.frames) != set(self._cameras):
      raise ValueError(f"cameras {sorted(clip.frames)} in a shard of {sorted(self._cameras)}")
    for name, frames in clip.frames.items():
      column = self._cameras.setdefault(
        name, {key: [] for key in ("codec", "offset", "height", "width", "size", "checksum")}
      )
      column["codec"].append(frames.codec)
      column["offset"].append(self._file.tell())
      column["height"].append(frames.height)
      column["width"].append(frames.width)
      column["size"] += [len(blob) for blob in frames.blobs]
      column["checksum"] += [xxhash.xxh64_intdigest(blob) for blob in frames.blobs]
      for blob in frames.blobs:
        self._file.write(blob)
    self._clips.append(dataclasses.replace(clip, frames={}))

  def close(self) -> dict[str, Any]:
    """Writes the arrays and the index; returns {"index_offset", "index_size", "index_xxh64"}."""
    clips, index, text = self._clips, {}, {}
    index["start"] = np.array([clip.start for clip in clips], np.int64)
    index["length"] = np.array([clip.length for clip in clips], np.int32)
    for name, column in self._cameras.items():
      codecs = set(column.pop("codec"))
      if len(codecs) != 1:
        raise ValueError(f"codecs {sorted(codecs)} in one shard")
      text[f"codec/{name}"] = codecs.pop()
      kinds = {
        "offset": np.uint64,
        "height": np.int32,
        "width": np.int32,
        "size": np.uint32,
        "checksum": np.uint64,
      }
      index |= {f"{key}/{name}": np.array(values, kinds[key]) for key, values in column.items()}
    for name in sorted({name for clip in clips for name in clip.arrays}):
      index |= self._write_array(name, [clip.arrays.get(name) for clip in clips], text)
    for name in sorted({name for clip in clips for name in clip.frame_facts}):
      if not all(name in clip.frame_facts for clip in clips):
        raise errors.UserError(
          f"{name} was measured in some episodes and not in others: the episodes of a source must "
          "all be continuous, or none of them (RawEpisode.continuous)"
        )
      index[f"frame/{name}"] = np.concatenate([clip.frame_facts[name] for clip in clips])
    for name in sorted({name for clip in clips for name in clip.statistics}):
      index[f"statistics/{name}"] = np.concatenate(
        [clip.statistics[name] for clip in clips if name in clip.statistics], axis=1
      )
    # All metadata is one entry, because the library writes several entries in random order.
    data = safetensors.numpy.save(index, {columns.TEXT: json.dumps(text, sort_keys=True)})
    offset = self._file.tell()
    offset += self._file.write(b"\0" * (-offset % 8))
    self._file.write(data)
    checksum = xxhash.xxh64_intdigest(data)
    self._file.write(_TAIL.pack(offset, len(data), checksum, MAGIC))
    self._file.flush()
    os.fsync(self._file.fileno())
    self._file.close()
    return {"index_offset": offset, "index_size": len(data), "index_xxh64": f"{checksum:016x}"}

  def _write_array(
    self, name: str, arrays: list[np.ndarray | None], text: dict[str, str]
  ) -> dict[str, np.ndarray]:
    """Writes one array of all clips; returns its entries of the index.

    Args:
      name: of the array.
      arrays: one per clip, None when the clip does not have it (width 0).
      text: metadata of the index; the dtype is added.
    """
    dtypes = {array.dtype.newbyteorder("<") for array in arrays if array is not None}
    if len(dtypes) != 1 or next(iter(dtypes)).kind not in "biuf":
      raise TypeError(
        f"array {name!r} has dtypes {sorted(map(str, dtypes))}, expected one kind of numbers"
      )
    dtype = text[f"dtype/{name}"] = next(iter(dtypes)).str
    offsets, widths, checksums = [], [], []
    for array in arrays:
      data = b"" if array is None else np.ascontiguousarray(array, dtype).tobytes()
      offsets.append(self._file.tell())
      # width -1: a row is a single number
      widths.append(0 if array is None else -1 if array.ndim == 1 else array.shape[1])
      checksums.append(xxhash.xxh64_intdigest(data))
      self._file.write(data)
    return {
      f"array_offset/{name}": np.array(offsets, np.uint64),
      f"array_width/{name}": np.array(widths, np.int32),
      f"array_checksum/{name}": np.array(checksums, np.uint64),
    }


class ShardFile:
  """A shard that is open for reading; safe to share between threads.

  Attributes:
    path: of the file.
    index: name -> array, views of the file.
    text: name -> str, the metadata of the index (codecs, dtypes).
    bytes_read: number of bytes read so far: the index, frames and arrays.
  """

  def __init__(self, path: str, entry: Mapping[str, Any] | None = None):
    """Opens a shard.

    Args:
      path: the file.
      entry: the facts that `Writer.close` returned, from a manifest; None = read them from the end
        of the file.

    Raises:
      video.UnreadableError: the file is missing, truncated or damaged. The message names it.
      errors.UserError: the file was written by another version.
    """
    self.path = path
    try:
      self._file = stored.StoredFile(path)
      head = self._pread(0, _HEAD.size)
      magic, version = _HEAD.unpack(head) if len(head) == _HEAD.size else (b"", 0)
      if magic != MAGIC:
        raise video.UnreadableError(f"{path} is not a shard (wrong magic bytes)")
      if version != VERSION:
        raise errors.UserError(
          f"{path} has version {version}, this program reads version {VERSION}"
        )
      size = self._file.size
      if entry is None:
        offset, length, checksum, magic = _TAIL.unpack(self._pread(size - _TAIL.size, _TAIL.size))
        if magic != MAGIC:
          raise video.UnreadableError(f"{path} is cut short (its end is missing)")
      else:
        offset, length, checksum = (
          int(entry["index_offset"]),
          int(entry["index_size"]),
          int(entry["index_xxh64"], 16),
        )
      if offset + length > size:
        raise video.UnreadableError(
          f"{path} is cut short: {size} bytes, its index ends at {offset + length}"
        )
      data = self._file.view(offset, length)
      self.bytes_read = length
      if xxhash.xxh64_intdigest(data) != checksum:
        raise video.UnreadableError(f"{path}: the index is damaged (checksum differs)")
      self.index, _, self.text = columns.parse(data)
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
      if isinstance(error, errors.UserError):
        raise
      raise video.UnreadableError(f"{path}: {error}") from error
    lengths = self.index["length"].astype(np.int64)
    self._first_frame = np.concatenate([[0], np.cumsum(lengths)])
    self._first_blob = {
      codec: np.concatenate([[0], np.cumsum(-(-lengths // per))]) for codec, per in CODECS.items()
    }

  def __len__(self) -> int:
    """Number of clips."""
    return len(self.index["length"])

  @property
  def cameras(self) -> tuple[str, ...]:
    """Names of the cameras."""
    return tuple(name.removeprefix("codec/") for name in self.text if name.startswith("codec/"))

  @property
  def arrays(self) -> tuple[str, ...]:
    """Names of the arrays."""
    return tuple(name.removeprefix("dtype/") for name in self.text if name.startswith("dtype/"))

  def length(self, clip: int) -> int:
    """Number of frames of a clip."""
    return int(self.index["length"][clip])

  def codec(self, camera: str) -> str:
    """Codec of a camera, a key of `CODECS`."""
    return self.text[f"codec/{camera}"]

  def size(self, clip: int, camera: str) -> tuple[int, int]:
    """(height, width) of a camera's frames in a clip."""
    return int(self.index[f"height/{camera}"][clip]), int(self.index[f"width/{camera}"][clip])

  def blobs(self, clip: int, camera: str, numbers: Sequence[int]) -> dict[int, bytes]:
    """Reads encoded blobs of a clip; consecutive blobs are read in one range.

    Args:
      clip: number of the clip.
      camera: name of the camera.
      numbers: of the blobs within the clip.

    Returns:
      Number of the blob -> bytes.

    Raises:
      IndexError: there is no such blob.
      video.UnreadableError: a blob is damaged.
    """
    sizes, checksums = self.index[f"size/{camera}"], self.index[f"checksum/{camera}"]
    firsts = self._first_blob[self.codec(camera)]
    base, count = int(firsts[clip]), int(firsts[clip + 1] - firsts[clip])
    start, position, blobs = int(self.index[f"offset/{camera}"][clip]), 0, {}
    for run in runs(sorted(set(map(int, numbers)))):
      if not 0 <= run[0] <= run[-1] < count:
        raise IndexError(f"blobs {run[0]} to {run[-1]} of a clip of {count}")
      start += int(sizes[base + position : base + run[0]].sum(dtype=np.int64))
      position = run[0]
      lengths = sizes[base + run[0] : base + run[-1] + 1].tolist()
      data, inside = self._pread(start, sum(lengths)), 0
      self.bytes_read += len(data)
      for number, length in zip(run, lengths, strict=True):
        blob = data[inside : inside + length] if len(lengths) > 1 else data
        if xxhash.xxh64_intdigest(blob) != checksums[base + number]:
          raise video.UnreadableError(
            f"{self.path} clip {clip} camera {camera!r}: the checksum of blob {number} differs "
            "(damaged)"
          )
        blobs[number] = blob
        inside += length
    return blobs

  def array(self, clip: int, name: str) -> np.ndarray | None:
    """A copy of an array of a clip, [T, D] or [T]; None when the clip does not have it.

    Raises `video.UnreadableError`.
    """
    width = int(self.index[f"array_width/{name}"][clip]) if f"dtype/{name}" in self.text else 0
    if not width:
      return None
    shape = (self.length(clip),) if width < 0 else (self.length(clip), width)
    dtype = np.dtype(self.text[f"dtype/{name}"])
    data = self._pread(
      int(self.index[f"array_offset/{name}"][clip]), int(np.prod(shape)) * dtype.itemsize
    )
    self.bytes_read += len(data)
    if xxhash.xxh64_intdigest(data) != self.index[f"array_checksum/{name}"][clip]:
      raise video.UnreadableError(
        f"{self.path} clip {clip}: the checksum of {name!r} differs (damaged)"
      )
    return np.frombuffer(data, dtype).reshape(shape).copy()

  def array_rows(self, clip: int, name: str, first: int, last: int) -> np.ndarray | None:
    """Rows first to last (exclusive) of `array`; the whole array is read and verified."""
    array = self.array(clip, name)
    return None if array is None else array[first:last]

  def frame_fact(self, clip: int, name: str) -> np.ndarray:
    """A fact measured for each frame of a clip, [T, ...]."""
    return self.index[f"frame/{name}"][self._first_frame[clip] : self._first_frame[clip + 1]]

  def statistics(self, name: str) -> list[np.ndarray]:
    """The summaries [S, D] of an array, one for each clip that has it."""
    widths = self.index[f"array_width/{name}"]
    return np.split(
      self.index[f"statistics/{name}"], np.cumsum(np.abs(widths[widths != 0]))[:-1], axis=1
    )

  def _pread(self, offset: int, size: int) -> bytes:
    try:
      return self._file.read(offset, size)
    except OSError as error:
      raise video.UnreadableError(f"{self.path}: {error}") from error


def runs(numbers: Sequence[int]) -> list[list[int]]:
  """Groups sorted numbers into runs of consecutive numbers."""
  found: list[list[int]] = []
  for number in numbers:
    if found and number == found[-1][-1] + 1:
      found[-1].append(number)
    else:
      found.append([number])
  return found


def is_whole(path: str, entry: Mapping[str, Any]) -> bool:
  """Whether a shard has the size and the footer with which it was written; reads 32 bytes.

  Args:
    path: the file.
    entry: the facts that `Writer.close` returned.
  """
  offset, size = int(entry["index_offset"]), int(entry["index_size"])
  try:
    with open(path, "rb") as file:
      file.seek(offset + size)
      end = file.read(_TAIL.size + 1)
  except OSError:
    return False
  return end == _TAIL.pack(offset, size, int(entry["index_xxh64"], 16), MAGIC)
