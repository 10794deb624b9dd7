"""Reads segments of shards: pictures, arrays and times by frame number within a segment.

A segment may span several clips. The caller does not see where one clip ends.
"""

import collections
import functools
import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from como_jax.data import frame_codec, frame_index, shard_file, shards, video
from como_jax.data.times import FrameTimes

_OPEN_FILES = 256  # shards kept open in a process; the usual limit on open files is 1024
_KNOWN_TIMES = 512  # segments with times that are not uniform; their times are cached


Shard = shard_file.ShardFile | frame_index.IndexedShard


def open_shards(path: str, manifest: Mapping[str, Any]) -> "ShardCache":
  """The shards of a folder, by its index of all frames where it has one.

  Raises `errors.UserError`: the index is damaged, of other shards or of another version.
  """
  return ShardCache(path, manifest["shards"], frame_index.open_index(path, manifest["shards"]))


class ShardCache:
  """The open shards of a folder. May be pickled; safe to share between threads."""

  def __init__(
    self, path: str, entries: Sequence[dict], index: frame_index.FrameIndex | None = None
  ):
    """Stores the list of shards; a shard is opened at its first use.

    Args:
      path: the folder.
      entries: of the shards in its manifest: shard, file, index_offset, index_size, index_xxh64.
      index: of all frames; None = the shards are read by their own indexes.
    """
    self.__setstate__((path, {int(entry["shard"]): entry for entry in entries}, index))

  @property
  def index(self) -> frame_index.FrameIndex | None:
    """The index of all frames; None where the shards are read by their own indexes."""
    return self._index

  def __getstate__(self):
    return self._path, self._entries, self._index

  def __setstate__(self, state):
    self._path, self._entries, self._index = state
    self._files: collections.OrderedDict[int, Shard] = collections.OrderedDict()
    self._lock = threading.Lock()

  def __getitem__(self, shard: int) -> Shard:
    """The shard of a number. Raises `video.UnreadableError` naming the file."""
    shard = int(shard)
    with self._lock:
      if shard in self._files:
        self._files.move_to_end(shard)
        return self._files[shard]
    entry = self._entries.get(shard)
    if entry is None:
      raise video.UnreadableError(f"{self._path}: the manifest lists no {shards.shard_name(shard)}")
    file = os.path.join(self._path, entry["file"])
    if self._index is not None:
      opened = frame_index.IndexedShard(self._index, shard, file)
    else:
      opened = shard_file.ShardFile(file, entry)
    with self._lock:
      self._files[shard] = opened
      if len(self._files) > _OPEN_FILES:
        self._files.popitem(last=False)  # closed when no thread uses it anymore
    return opened


class ShardFiles(ShardCache):
  """Shards that are read by their own indexes, which hold the facts of whole clips."""

  def __getitem__(self, shard: int) -> shard_file.ShardFile:
    """The shard of a number. Raises `video.UnreadableError` naming the file."""
    return cast(shard_file.ShardFile, super().__getitem__(shard))


FrameNumbers = Sequence[int] | np.ndarray  # int [n]


class SegmentReader:
  """Frames of segments by number. May be pickled; safe to share between threads.

  Attributes:
    segments: the segments.
    shards: the shard files, by number.
  """

  def __init__(self, path: str, segments: shards.Segments):
    """Opens a folder of shards.

    Args:
      path: folder of shards.
      segments: of its table.
    """
    self.__setstate__((segments, open_shards(path, shards.read_manifest(path))))

  def __getstate__(self):
    return self.segments, self.shards

  def __setstate__(self, state):
    self.segments, self.shards = state
    self._times = functools.lru_cache(_KNOWN_TIMES)(self._read_times)

  def times(self, segment: int) -> FrameTimes:
    """Times of all frames of a segment."""
    uniform = self.segments.uniform_times(segment)
    if uniform is not None:
      return uniform
    return self._times(segment)

  def _read_times(self, segment: int) -> FrameTimes:
    return FrameTimes.from_seconds(
      np.concatenate([self.clip_times(row) for row in self.segments.rows(segment)])
    )

  def clip_times(self, row: int) -> np.ndarray:
    """Seconds of the frames of a clip, by its row in the table."""
    shard, clip = self.segments.clip_location(row)
    seconds = self.shards[shard].array(clip, shards.SECONDS)
    if seconds is None:
      return self.segments.table.times(row).seconds_at(np.arange(self.segments.table.length[row]))
    return seconds

  def images(
    self, segment: int, camera: str, frames: FrameNumbers, *, to: tuple[int, int] = (0, 0)
  ) -> np.ndarray:
    """Reads frames, uint8 [n, H, W, 3].

    Args:
      segment: index of the segment.
      camera: name of the camera.
      frames: numbers of the frames within the segment.
      to: height and width to which the caller will resize the frames. A JPEG may then be decoded at
        a reduced size, see `frame_codec.reduction`. (0, 0) = decode at full size.

    Raises:
      video.UnreadableError: a frame is damaged. The message names file and clip.
    """
    size, by = self.frame_size(segment, camera, frames, to=to)
    out = np.empty((len(frames), -(-size[0] // by), -(-size[1] // by), 3), np.uint8)
    self.read_into(segment, camera, frames, list(out), by=by)
    return out

  def frame_size(
    self, segment: int, camera: str, frames: FrameNumbers, *, to: tuple[int, int]
  ) -> tuple[tuple[int, int], int]:
    """The size of stored frames, and by how much it may be reduced when they are decoded.

    Args:
      segment: index of the segment.
      camera: name of the camera.
      frames: numbers of the frames within the segment; the first one is looked up.
      to: height and width to which the caller will resize the frames, (0, 0) = not at all.

    Returns:
      ((height, width), the factor by which both may be divided).

    Raises:
      video.UnreadableError: the shard cannot be opened.
    """
    row, _ = self.segments.locate(segment, int(frames[0]) if len(frames) else 0)
    shard, clip = self.segments.clip_location(row)
    file = self.shards[shard]
    size = file.size(clip, camera)
    return size, frame_codec.reduction(file.codec(camera), size, to)

  def read_into(
    self, segment: int, camera: str, frames: FrameNumbers, out: Sequence[np.ndarray], *, by: int = 1
  ) -> None:
    """Reads frames into existing arrays.

    Args:
      segment: index of the segment.
      camera: name of the camera.
      frames: numbers of the n frames within the segment.
      out: n arrays [H / by, W / by, 3] to write to.
      by: the factor by which the decoded size is reduced, as `frame_size` returns it.

    Raises:
      video.UnreadableError: a frame is damaged. The message names file and clip.
    """
    locations = [self.segments.locate(segment, int(frame)) for frame in frames]
    for row in dict.fromkeys(row for row, _ in locations):
      indices = [i for i, location in enumerate(locations) if location[0] == row]
      shard, clip = self.segments.clip_location(row)
      file, clip_frames = self.shards[shard], [locations[i][1] for i in indices]
      codec = file.codec(camera)
      blobs = file.blobs(clip, camera, frame_codec.blob_indices(codec, clip_frames))
      try:
        frame_codec.decode(codec, blobs, clip_frames, [out[i] for i in indices], by=by)
      except video.UnreadableError as error:
        raise video.UnreadableError(
          f"{file.path} clip {clip} camera {camera!r}: {error}"
        ) from error

  def read_array(self, segment: int, name: str, first: int, last: int) -> np.ndarray | None:
    """Reads an array (actions, for example) for a range of frames.

    Args:
      segment: index of the segment.
      name: of the array.
      first: first frame within the segment. The range is clipped to the segment.
      last: last frame, exclusive.

    Returns:
      [n, D] or [n]; None when the episode does not have the array.
    """
    first, last = max(0, first), min(last, self.segments.length(segment))
    parts = []
    for row in self.segments.rows(segment):
      start = self.segments.first_frame(segment, row)
      stop = start + int(self.segments.table.length[row])
      if start >= last or stop <= first:
        continue
      shard, clip = self.segments.clip_location(row)
      rows = self.shards[shard].array_rows(
        clip, name, max(first - start, 0), min(last, stop) - start
      )
      if rows is None:
        return None
      parts.append(rows)
    return np.concatenate(parts) if parts else None
