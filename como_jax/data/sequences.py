"""Iterates over every frame of every segment once, in order; labels are made this way.

A sequence is one camera of one segment (`data.shards`). Its clips are joined. So the two frames of
a pair may lie in different clips, but never on two sides of a cut or a gap. The second frame of a
pair is the partner of the first (`data.times`).

Legend: T frames of a segment, S side of a picture in pixels.
"""

import dataclasses
from collections import abc

import grain
import numpy as np

from como_jax import errors
from como_jax.data import index, reader, shards, stream, times, transforms, video


@dataclasses.dataclass(frozen=True)
class Pairs:
  """The pairs of a segment, one for each of its T frames.

  Attributes:
    second: int64 [T], the partner of frame t.
    valid: bool [T], whether frame t has a partner.
    difference: float32 [T], seconds from frame t to its partner, 0 where there is none.
    left_out: number of frames without a partner although the segment is long enough: no frame is
      close enough to the target time.
    at_end: number of frames without a partner because the segment ends.
  """

  second: np.ndarray
  valid: np.ndarray
  difference: np.ndarray
  left_out: int
  at_end: int

  @classmethod
  def from_times(cls, seconds: times.FrameTimes, offset: float) -> "Pairs":
    """The pairs of the frames of a segment.

    Args:
      seconds: times of the frames.
      offset: seconds between the two frames of a pair.
    """
    frames = np.arange(len(seconds))
    second, valid = seconds.partners(frames, offset)
    difference = np.where(valid, seconds.seconds_at(second) - seconds.seconds_at(frames), 0).astype(
      np.float32
    )
    left_out = seconds.valid_starts(offset, 2)[1]
    return cls(second, valid, difference, left_out, int((~valid).sum()) - left_out)


@dataclasses.dataclass(frozen=True, slots=True)
class Sequence:
  """One camera of one segment of `length` frames."""

  segment: int
  camera: str
  length: int


@dataclasses.dataclass(frozen=True)
class Plan:
  """The data to iterate over.

  Attributes:
    segments: of the data.
    cameras: names.
    offset_seconds: target seconds between the two frames of a pair.
    explicit: times of the clips that are not uniform, by row of the table.
    reach: the largest number of frames from the first to the second frame of any pair.
  """

  segments: shards.Segments
  cameras: tuple[str, ...]
  offset_seconds: float
  explicit: dict[int, np.ndarray]
  reach: int

  def times(self, segment: int) -> times.FrameTimes:
    """Times of all frames of a segment."""
    return index.segment_times(self.segments, segment, self.explicit)

  def pairs(self, segment: int) -> Pairs:
    """The pairs of a segment."""
    return Pairs.from_times(self.times(segment), self.offset_seconds)

  def sequences(self, shard: int) -> list[Sequence]:
    """The sequences of a shard, in order of its clips, then of the cameras."""
    table, first = self.segments.table, self.segments.first_row
    own = np.flatnonzero(table.shard[first] == shard)
    own = own[np.argsort(table.clip[first[own]], kind="stable")]
    return [
      Sequence(int(s), camera, self.segments.length(s)) for s in own for camera in self.cameras
    ]


def plan(
  table: shards.Table,
  *,
  offset_seconds: float,
  cameras: abc.Sequence[str] = (),
  name: str = "data set",
) -> Plan:
  """Plans the iteration over a whole data set.

  Args:
    table: its clips.
    offset_seconds: target seconds between the two frames of a pair.
    cameras: names, () = all.
    name: of the data set in messages.

  Raises:
    errors.UserError: a camera is unknown, the offset is not valid, an episode lies in several
      shards, or there is no pair of frames.
  """
  names = tuple(table.cameras[i] for i in index.camera_ids(table, tuple(cameras), name=name))
  times.check_offset(offset_seconds, name)
  a, b = np.arange(len(table) - 1), np.arange(1, len(table))
  divided = b[(table.episode[a] == table.episode[b]) & (table.shard[a] != table.shard[b])]
  if len(divided):
    raise errors.UserError(
      f"{name}: episode {table.episodes[table.episode[divided[0]]]!r} lies in several shards, "
      "expected all of it in one: ingest it again"
    )
  order = np.lexsort((table.clip, table.shard))
  begins = np.searchsorted(table.shard[order], table.shard[order])  # of each row's shard
  if (table.clip[order] != np.arange(len(table)) - begins).any():
    raise errors.UserError(
      f"{name}: {shards.RECORDS} does not list every clip of its shards: ingest it again"
    )
  segments = shards.segments(table)
  if not len(index.start_ranges(segments, frames=2, offset=offset_seconds)[0]):
    longest = int(segments.count.argmax())
    interval = float(table.interval[segments.first_row[longest]])
    rate = f" at {1 / interval:.6g} frames a second" if interval else ""
    raise errors.UserError(
      f"{name}: no pair of frames is {offset_seconds} s apart: the longest segment has "
      f"{segments.count[longest]} frames{rate}. Set config.offset_seconds to a multiple of the "
      "frames' interval that fits"
    )
  varying = np.flatnonzero(~segments.uniform)
  rows = np.array(
    [row for s in varying for row in segments.rows(int(s)) if not table.uniform[row]], np.int64
  )
  result = Plan(
    segments, names, float(offset_seconds), table.explicit_times(rows) if len(rows) else {}, 0
  )
  reach = index.offset_in_frames(table, offset_seconds, segments.first_row[segments.uniform])
  for s in varying:
    pairs = result.pairs(int(s))
    reach.append(int((pairs.second - np.arange(len(pairs.second)))[pairs.valid].max(initial=0)))
  return dataclasses.replace(result, reach=max(1, *reach))


@dataclasses.dataclass
class _LoadClip:
  """Loads the frames of clip i of the iteration.

  Damage is part of the result, not an exception, so that the iteration continues.
  """

  reader: reader.SegmentReader
  cameras: tuple[str, ...]
  locations: np.ndarray  # int64 [n, 3]: segment, index in `cameras`, row of the table
  resize: transforms.Resize

  def __call__(self, i: int) -> dict[str, np.ndarray | np.str_]:
    """Loads one clip.

    Returns:
      {"frames": uint8 [T of the clip, S, S, 3], "readable": bool [T], "damage": what could not be
      read, "" when everything could}.
    """
    segment, camera, row = self.locations[int(i)]
    segments, camera = self.reader.segments, self.cameras[camera]
    count = int(segments.table.length[row])
    frames = segments.first_frame(segment, row) + np.arange(count)
    try:
      return {
        "frames": self._read(segment, camera, frames),
        "readable": np.ones(count, bool),
        "damage": np.str_(""),
      }
    except video.UnreadableError as error:
      damage = str(error).replace("\n", " ")
    images, readable = (
      np.zeros((count, self.resize.size, self.resize.size, 3), np.uint8),
      np.zeros(count, bool),
    )
    # Read frame by frame: only the damaged frames of the clip are lost.
    for t in range(count if self._opens(segment, camera, frames) else 0):
      try:
        images[t], readable[t] = self._read(segment, camera, frames[t : t + 1])[0], True
      except video.UnreadableError:
        continue
    return {"frames": images, "readable": readable, "damage": np.str_(damage)}

  def _read(self, segment: int, camera: str, frames: np.ndarray) -> np.ndarray:
    images = self.reader.images(segment, camera, frames, to=transforms.resized_to((self.resize,)))
    return self.resize({"frames": images})["frames"]

  def _opens(self, segment: int, camera: str, frames: np.ndarray) -> bool:
    """Whether the clip's shard can be opened."""
    try:
      self.reader.frame_size(segment, camera, frames, to=(0, 0))
      return True
    except video.UnreadableError:
      return False


def iterate_clips(
  path: str,
  plan: Plan,
  sequences: abc.Iterable[Sequence],
  *,
  image_size: int,
  workers: int = 0,
  threads: int = 4,
  prefetch: int = 8,
) -> stream.Batches:
  """Iterator over the clips of the sequences in order, decoded in advance in the background.

  Args:
    path: folder of shards.
    plan: of its table.
    sequences: of the plan.
    image_size: S.
    workers: number of processes that decode; 0 = only threads of this process.
    threads: number of threads in each process; 0 = none.
    prefetch: number of clips that are prepared in advance.

  Returns:
    For each clip {"frames": uint8 [T, S, S, 3], "readable": bool [T] (False = the frame is black
    because it could not be read), "damage": text, "" when the clip is not damaged}.
  """
  number = {camera: i for i, camera in enumerate(plan.cameras)}
  locations = [
    (sequence.segment, number[sequence.camera], row)
    for sequence in sequences
    for row in plan.segments.rows(sequence.segment)
  ]
  load = _LoadClip(
    reader.SegmentReader(path, plan.segments),
    plan.cameras,
    np.array(locations, np.int64).reshape(-1, 3),
    transforms.Resize(image_size),
  )

  def make_dataset(step: int) -> grain.MapDataset:
    return grain.MapDataset.range(step, len(locations)).map(load)

  return stream.Batches(make_dataset, step=0, workers=workers, threads=threads, prefetch=prefetch)
