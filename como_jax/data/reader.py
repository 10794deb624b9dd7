"""Reads segments of shards: pictures, numbers and times by frame number, whichever clips they lie
in.
"""

import collections
import functools
import os
import threading
from collections.abc import Sequence

import numpy as np

from como_jax.data import frame_codec, shard_file, shards, video
from como_jax.data.times import FrameTimes

_OPEN_FILES = 256  # shards kept open in a process; the usual limit on open files is 1024
_KNOWN_TIMES = 512  # segments whose times are not uniform and are kept


class ShardCache:
  """The open shards of a folder. May be pickled; safe to share between threads."""

  def __init__(self, path: str, entries: Sequence[dict]):
    """Args:
    path: the folder.
    entries: of its manifest: file, index_offset, index_size, index_xxh64.
    """
    self.__setstate__((path, {int(entry["shard"]): entry for entry in entries}))

  def __getstate__(self):
    return self._path, self._entries

  def __setstate__(self, state):
    self._path, self._entries = state
    self._files: collections.OrderedDict[int, shard_file.ShardFile] = collections.OrderedDict()
    self._lock = threading.Lock()

  def __getitem__(self, shard: int) -> shard_file.ShardFile:
    """Raises `video.Unreadable` naming the file."""
    shard = int(shard)
    with self._lock:
      if shard in self._files:
        self._files.move_to_end(shard)
        return self._files[shard]
    entry = self._entries.get(shard)
    if entry is None:
      raise video.Unreadable(f"{self._path}: the manifest lists no {shards.shard_name(shard)}")
    opened = shard_file.ShardFile(os.path.join(self._path, entry["file"]), entry)
    with self._lock:
      self._files[shard] = opened
      if len(self._files) > _OPEN_FILES:
        self._files.popitem(last=False)  # closed when the last thread using it lets go
    return opened


class SegmentReader:
  """Frames of segments by number. May be pickled; safe to share between threads.

  Attributes:
    segments: the segments. shards: their files, by number.
  """

  def __init__(self, path: str, segments: shards.Segments):
    """Args:
    path: folder of shards.
    segments: of its table.
    """
    self.__setstate__((segments, ShardCache(path, shards.read_manifest(path)["shards"])))

  def __getstate__(self):
    return self.segments, self.shards

  def __setstate__(self, state):
    self.segments, self.shards = state
    self._times = functools.lru_cache(_KNOWN_TIMES)(self._read_times)

  def times(self, segment: int) -> FrameTimes:
    """Of all frames of a segment."""
    uniform = self.segments.uniform_times(segment)
    if uniform is not None:
      return uniform
    return self._times(segment)

  def _read_times(self, segment: int) -> FrameTimes:
    return FrameTimes.of(
      np.concatenate([self.clip_times(row) for row in self.segments.rows(segment)])
    )

  def clip_times(self, row: int) -> np.ndarray:
    """Seconds of the frames of a clip, by its row in the table."""
    shard, clip = self.segments.place(row)
    seconds = self.shards[shard].array(clip, shards.SECONDS)
    if seconds is None:
      return self.segments.table.times(row).at(np.arange(self.segments.table.length[row]))
    return seconds

  def images(
    self, segment: int, camera: str, frames: Sequence[int], *, to: tuple[int, int] = (0, 0)
  ) -> np.ndarray:
    """Frames by number within the segment, uint8 [n, H, W, 3].

    Args:
      to: height and width that the caller resizes them to: a JPEG may then be decoded smaller, see
        `frame_codec.reduction`. (0, 0) = none.

    Raises:
      video.Unreadable: a frame is damaged; the text names file and clip.
    """
    size, by = self.frame_size(segment, camera, frames, to=to)
    out = np.empty((len(frames), -(-size[0] // by), -(-size[1] // by), 3), np.uint8)
    self.read_into(segment, camera, frames, list(out), by=by)
    return out

  def frame_size(
    self, segment: int, camera: str, frames: Sequence[int], *, to: tuple[int, int]
  ) -> tuple[tuple[int, int], int]:
    """((height, width) of stored frames, how many times smaller they may be decoded)."""
    row, _ = self.segments.locate(segment, int(frames[0]) if len(frames) else 0)
    shard, clip = self.segments.place(row)
    file = self.shards[shard]
    size = file.size(clip, camera)
    return size, frame_codec.reduction(file.codec(camera), size, to)

  def read_into(
    self,
    segment: int,
    camera: str,
    frames: Sequence[int],
    out: Sequence[np.ndarray],
    *,
    by: int = 1,
  ) -> None:
    """Frames by number within the segment into n arrays [H / by, W / by, 3].

    Raises `video.Unreadable`.
    """
    places = [self.segments.locate(segment, int(frame)) for frame in frames]
    for row in dict.fromkeys(row for row, _ in places):
      here = [i for i, place in enumerate(places) if place[0] == row]
      shard, clip = self.segments.place(row)
      file, numbers = self.shards[shard], [places[i][1] for i in here]
      codec = file.codec(camera)
      blobs = file.blobs(clip, camera, frame_codec.blob_numbers(codec, numbers))
      try:
        frame_codec.decode(codec, blobs, numbers, [out[i] for i in here], by=by)
      except video.Unreadable as error:
        raise video.Unreadable(f"{file.path} clip {clip} camera {camera!r}: {error}") from error

  def numbers(self, segment: int, name: str, first: int, last: int) -> np.ndarray | None:
    """An array of frames first to last (exclusive, cut to the segment), [n, D] or [n]; None when
    the episode has none.
    """
    first, last = max(0, first), min(last, self.segments.length(segment))
    parts = []
    for row in self.segments.rows(segment):
      begin = self.segments.begin(segment, row)
      stop = begin + int(self.segments.table.length[row])
      if begin >= last or stop <= first:
        continue
      shard, clip = self.segments.place(row)
      array = self.shards[shard].array(clip, name)
      if array is None:
        return None
      parts.append(array[max(first - begin, 0) : last - begin])
    return np.concatenate(parts) if parts else None
