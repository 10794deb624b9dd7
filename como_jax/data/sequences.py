"""Every frame of every episode once, in order: the walk that labels are made on.

A sequence is one camera of one episode, its clips joined: frames that `clip_overlap` stored twice appear once, and a pair of frames
may lie on both sides of a border between clips. All episodes of a record table lie in one shard each (ingest sees to it).

Legend: L frames of a sequence, S side of a picture, n frames between the two of a pair.
"""

import dataclasses
from collections import abc

import grain
import numpy as np

from como_jax import errors
from como_jax.data import index, labels, pipeline, transforms, video
from como_jax.data.sources import shards


@dataclasses.dataclass(frozen=True)
class Piece:
  """Frames first to last (exclusive) of an episode, to be read from the clip in `row` of the record table."""

  row: int
  first: int
  last: int


@dataclasses.dataclass(frozen=True)
class Sequence:
  """One camera of one episode.

  Attributes:
    rows: its clips in the record table, in order of time.
    start: frame number in the episode of the first frame.
    length: L. stride: n.
    pieces: the parts that make up the L frames.
  """

  episode: str
  camera: str
  rows: tuple[int, ...]
  start: int
  length: int
  stride: int
  pieces: tuple[Piece, ...]


def plan(table: shards.Table, shard: int, *, offset_seconds: float, cameras: abc.Sequence[str] = ()) -> list[Sequence]:
  """The sequences of one shard, in order of its records and of their cameras; no file is opened.

  Args:
    table: of the data.
    shard: its number.
    offset_seconds: between the frames of a pair.
    cameras: names to walk through, () = all.

  Raises:
    errors.UserError: an episode's clips leave a gap, or lie in several shards.
  """
  rows = np.flatnonzero(table.shard == shard)
  groups: dict[str, list[int]] = {}
  for row in rows[np.argsort(table.record[rows], kind="stable")]:
    groups.setdefault(table.episode[row], []).append(int(row))
  found = []
  for episode, mine in groups.items():
    mine = labels.in_order(table, mine)
    pieces, end = [], int(table.start[mine[0]])
    for row in mine:
      first, last = int(table.start[row]), int(table.start[row] + table.length[row])
      if first > end:
        raise errors.UserError(f"episode {episode!r}: no clip holds its frames {end} to {first - 1}: ingest it again")
      if last > end:
        pieces.append(Piece(row, end, last))
        end = last
    start, stride = int(table.start[mine[0]]), int(index.strides(table.fps[mine[0]], offset_seconds))
    for camera in table.cameras[mine[0]]:
      if not cameras or camera in cameras:
        found.append(Sequence(episode, camera, tuple(mine), start, end - start, stride, tuple(pieces)))
  return found


def check(table: shards.Table, *, offset_seconds: float, cameras: abc.Sequence[str], name: str) -> tuple[str, ...]:
  """The cameras that are walked through, once at least one pair of frames is known to exist.

  Raises:
    errors.UserError: an unknown camera, a bad offset, or no episode has a frame that far from another.
  """
  known = index.camera_names(table)
  for camera in cameras:
    if camera not in known:
      raise errors.UserError(f"{name}: camera {camera!r} does not exist: {errors.nearest(camera, known)}")
  if not offset_seconds > 0:
    raise errors.UserError(f"{name}: the offset is {offset_seconds} s, expected more than 0")
  home: dict[str, int] = {}
  for episode, shard in zip(table.episode, table.shard, strict=True):
    if home.setdefault(episode, shard) != shard:
      raise errors.UserError(f"{name}: episode {episode!r} lies in {shards.shard_name(home[episode])} and {shards.shard_name(shard)}, "
                             "expected all of it in one shard: ingest it again")
  ends = table.start + table.length
  longest = max((int(end), float(fps)) for end, fps in zip(ends, table.fps, strict=True))
  if not np.any(index.strides(table.fps, offset_seconds) < ends):
    raise errors.UserError(f"{name}: no pair of frames is {offset_seconds} s apart: the longest episode has {longest[0]} frames at "
                           f"{longest[1]:g} frames a second. Lower config.offset_seconds")
  return tuple(camera for camera in known if not cameras or camera in cameras)


@dataclasses.dataclass
class _Load:
  """Number of a piece -> its frames; damage is a result here, not an exception, so that the walk goes on."""

  reader: shards.Reader
  table: shards.Table
  places: list[tuple[Sequence, Piece]]
  resize: transforms.Resize

  def __call__(self, i: int) -> dict[str, np.ndarray]:
    """{"frames": uint8 [k, S, S, 3], "readable": bool [k], "damage": why the clip cannot be read, "" when it can}."""
    sequence, piece = self.places[int(i)]
    count = piece.last - piece.first
    try:
      frames = self._read(sequence, piece.row, np.arange(piece.first, piece.last))
      return {"frames": frames, "readable": np.ones(count, bool), "damage": np.str_("")}
    except video.Unreadable as error:
      damage = str(error).replace("\n", " ")
    frames, readable = np.zeros((count, self.resize.size, self.resize.size, 3), np.uint8), np.zeros(count, bool)
    for row in sequence.rows:  # frames that a neighbour repeats are not lost
      start = int(self.table.start[row])
      numbers = np.arange(max(piece.first, start), min(piece.last, start + int(self.table.length[row])))
      if row == piece.row or not len(numbers):
        continue
      try:
        frames[numbers - piece.first] = self._read(sequence, row, numbers)
        readable[numbers - piece.first] = True
      except video.Unreadable:
        continue  # it is reported where it is read for its own frames
    return {"frames": frames, "readable": readable, "damage": np.str_(damage)}

  def _read(self, sequence: Sequence, row: int, numbers: np.ndarray) -> np.ndarray:
    shard, record = int(self.table.shard[row]), int(self.table.record[row])
    clip = self.reader.clip(shard, record)
    where = f"{shards.shard_name(shard)} record {record} camera {sequence.camera}"
    if sequence.camera not in clip.frames or len(clip) != self.table.length[row] or clip.start != self.table.start[row]:
      raise video.Unreadable(f"{where}: the record is not the one that {shards.RECORDS} lists")
    try:
      frames = clip.frames[sequence.camera].decode(list(numbers - clip.start), to=transforms.resized_to((self.resize,)))
    except video.Unreadable as error:
      raise video.Unreadable(f"{where}: {error}") from error
    return self.resize({"frames": frames})["frames"]


def walk(
  path: str,
  table: shards.Table,
  sequences: abc.Sequence[Sequence],
  *,
  image_size: int,
  workers: int = 0,
  threads: int = 4,
  prefetch: int = 8,
) -> pipeline.Batches:
  """Iterator over the pieces of the sequences in order, read and decoded ahead in the background.

  Args:
    path: folder of shards.
    table: its records.
    sequences: of `plan`.
    image_size: S.
    workers: processes that decode; 0 = only threads of this one.
    threads: in each process; 0 = none.
    prefetch: pieces (at most a clip each) prepared ahead.

  Returns:
    For each piece {"frames": uint8 [k, S, S, 3], "readable": bool [k] (False: a black frame stands in), "damage": text, "" when
    the clip is whole}.
  """
  places = [(sequence, piece) for sequence in sequences for piece in sequence.pieces]
  load = _Load(shards.Reader(path), table, places, transforms.Resize(image_size))

  def make(step: int) -> grain.MapDataset:
    return grain.MapDataset.range(step, len(places)).map(load)

  return pipeline.Batches(make, step=0, workers=workers, threads=threads, prefetch=prefetch)
