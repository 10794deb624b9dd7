"""A folder of shards: its manifest, its table of clips, and its segments.

A segment is a run of clips of one episode and one shot without a gap. A window lies within one
segment, but may span several of its clips.

Legend: R clips of a data set, S segments.
"""

import bisect
import dataclasses
import json
import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from como_jax import errors, storage
from como_jax.data import frame_index, times

MANIFEST = "manifest.json"
RECORDS = "records.parquet"
KIND = "como_jax shards"
VERSION = 2
SECONDS = "seconds"  # name of the array with the times of a clip that is not uniform
# Columns of records.parquet, one row per clip. `interval` is the mean where times are not uniform.
# `seconds` is null where they are uniform.
SCHEMA = pa.schema(
  [
    ("shard", pa.int32()),
    ("clip", pa.int32()),
    ("episode", pa.string()),
    ("start", pa.int64()),
    ("length", pa.int32()),
    ("first", pa.float64()),
    ("interval", pa.float64()),
    ("seconds", pa.list_(pa.float64())),
    ("shot", pa.int32()),
    ("task", pa.string()),
    ("group", pa.string()),
    ("has_action", pa.bool_()),
    ("has_state", pa.bool_()),
    ("split_key", pa.int64()),
    ("motion", pa.float32()),
    ("global_motion", pa.float32()),
    ("still", pa.float32()),
    ("repeated", pa.float32()),
    ("duplicate", pa.bool_()),
  ]
)
_TEXTS = ("episode", "task", "group")
_PART = 4096  # rows of the table for which times are read at once


def shard_name(shard: int) -> str:
  """Name of the file of a shard."""
  return f"shard-{shard:05d}.shard"


def read_manifest(path: str) -> dict:
  """Reads and checks the manifest of a folder of shards.

  Raises:
    errors.UserError: it is missing, or of another kind or version.
  """
  file = os.path.join(path, MANIFEST)
  if not storage.exists(file):
    raise errors.UserError(
      f"{path} is not a finished folder of como_jax shards: {MANIFEST} is missing (run ingest "
      "first)"
    )
  try:
    with storage.open_copy(file) as content:
      manifest = json.loads(content.read().decode())
    kind, version = manifest["kind"], int(manifest["version"])
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    raise errors.UserError(f"{file} is not a manifest of como_jax shards ({error})") from error
  if kind != KIND:
    raise errors.UserError(f"{file} is of kind {kind!r}, expected {KIND!r}")
  if version < VERSION:
    raise errors.UserError(
      f"{file} has version {version}, this program reads version {VERSION}: ingest the source again"
    )
  if version > VERSION:
    raise errors.UserError(
      f"{file} has version {version}, this program reads version {VERSION}: update como_jax"
    )
  return manifest


def file_hash(path: str) -> str:
  """The xxh64 hash of a file, in hexadecimal digits."""
  digest = xxhash.xxh64()
  with open(path, "rb") as file:
    while block := file.read(1 << 20):
      digest.update(block)
  return digest.hexdigest()


def verify(path: str) -> list[str]:
  """One line for each file that is missing or has changed since it was written."""
  problems, entries = [], read_manifest(path)["shards"]
  for shard in entries:
    file = os.path.join(path, shard["file"])
    if not os.path.isfile(file):
      problems.append(f"{file} is missing")
    elif file_hash(file) != shard["xxh64"]:
      problems.append(f"{file} has changed since it was written (xxh64 differs)")
  return problems + frame_index.problems(path, entries)


@dataclasses.dataclass(frozen=True)
class Table:
  """The table of clips (records.parquet) as numpy arrays, sorted by episode, shot and frame.

  Each column of `SCHEMA` is an attribute [R], except `seconds` (see `explicit_times`). The columns
  `episode`, `task` and `group` hold indices into `episodes`, `tasks` and `groups`.

  Attributes:
    path: of the file, or its address, to read the times of clips that are not uniform.
    episodes: the different episode ids.
    tasks: the different instructions.
    groups: the different groups of episodes.
    cameras: names of the cameras that every clip has, sorted.
    uniform: whether the times of a clip are uniform, bool [R].
    order: row of each clip in the file, [R].
  """

  path: str
  episodes: tuple[str, ...]
  tasks: tuple[str, ...]
  groups: tuple[str, ...]
  cameras: tuple[str, ...]
  shard: np.ndarray
  clip: np.ndarray
  episode: np.ndarray
  start: np.ndarray
  length: np.ndarray
  first: np.ndarray
  interval: np.ndarray
  uniform: np.ndarray
  shot: np.ndarray
  task: np.ndarray
  group: np.ndarray
  has_action: np.ndarray
  has_state: np.ndarray
  split_key: np.ndarray
  motion: np.ndarray
  global_motion: np.ndarray
  still: np.ndarray
  repeated: np.ndarray
  duplicate: np.ndarray
  order: np.ndarray

  def __len__(self) -> int:
    return len(self.shard)

  @property
  def rates(self) -> np.ndarray:
    """Frames per second of each clip, float64 [R], 0 for a single frame; for reports."""
    return np.divide(1.0, self.interval, out=np.zeros(len(self)), where=self.interval > 0)

  @property
  def seconds(self) -> float:
    """Total length of all clips in seconds."""
    return float(np.sum(self.length * self.interval))

  def times(self, row: int) -> times.FrameTimes:
    """Times of the frames of a uniform clip."""
    return times.FrameTimes(
      float(self.first[row]), float(self.interval[row]), int(self.length[row])
    )

  def explicit_times(self, rows: np.ndarray) -> dict[int, np.ndarray]:
    """Times of the frames of clips that are not uniform: row -> seconds, float64 [T].

    Args:
      rows: of the clips.
    """
    seconds: dict[int, np.ndarray] = {}
    for part in self.explicit_parts(rows):
      seconds |= part
    return seconds

  def explicit_parts(self, rows: np.ndarray) -> Iterator[dict[int, np.ndarray]]:
    """Yields what `explicit_times` returns in parts, in the order of the file, to save memory."""
    rows, row_of, offset = np.asarray(rows, np.int64), np.full(len(self), -1), 0
    if not len(rows):
      return
    row_of[self.order[rows]] = rows
    with storage.open_copy(self.path) as file:
      for batch in pq.ParquetFile(file, page_checksum_verification=True).iter_batches(
        _PART, columns=["seconds"]
      ):
        rows_of_batch, column = row_of[offset : offset + len(batch)], batch.column(0)
        yield {
          int(rows_of_batch[i]): np.asarray(column[i].values)
          for i in np.flatnonzero(rows_of_batch >= 0).tolist()
        }
        offset += len(batch)


def read_table(path: str, *, cameras: tuple[str, ...] | None = None) -> Table:
  """Reads records.parquet, except the times of clips that are not uniform.

  Args:
    path: the folder.
    cameras: names of the cameras of the clips, None = those in the folder's manifest.

  Raises:
    errors.UserError: the file is missing, damaged or not such a table.
  """
  file = os.path.join(path, RECORDS)
  cameras = tuple(read_manifest(path)["cameras"]) if cameras is None else cameras
  try:
    names = [name for name in SCHEMA.names if name != "seconds"]
    with storage.open_copy(file) as content:
      parquet = pq.ParquetFile(
        content, read_dictionary=list(_TEXTS), page_checksum_verification=True
      )
      table = parquet.read(columns=names).unify_dictionaries().combine_chunks()
      uniform = _uniform(parquet, len(table))
    columns, texts = {"uniform": uniform}, {}
    for name in names:
      column = table.column(name)
      column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
      if name in _TEXTS:
        texts[name] = tuple(column.dictionary.to_pylist()) if len(column) else ()
        column = column.indices if len(column) else pa.array([], pa.int32())
      columns[name] = column.to_numpy(zero_copy_only=False)
  except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, AttributeError) as error:
    raise errors.UserError(
      f"{file} is not the table of a folder of shards ({str(error).splitlines()[0]})"
    ) from error
  order = np.lexsort((columns["start"], columns["shot"], columns["episode"]))
  columns = {name: column[order] for name, column in columns.items()}
  return Table(
    file,
    texts["episode"],
    texts["task"],
    texts["group"],
    tuple(sorted(cameras)),
    **columns,
    order=order,
  )


def _uniform(parquet: pq.ParquetFile, rows: int) -> np.ndarray:
  """Whether the column `seconds` of each clip is null, bool [rows].

  Row groups in which all are null are recognized by their statistics and are not read.
  """
  column = next(
    i
    for i in range(parquet.metadata.num_columns)
    if parquet.metadata.schema.column(i).path.startswith("seconds")
  )
  is_null, start = np.ones(rows, bool), 0
  for group in range(parquet.metadata.num_row_groups):
    size, statistics = (
      parquet.metadata.row_group(group).num_rows,
      parquet.metadata.row_group(group).column(column).statistics,
    )
    # a column with only null values has no minimum
    if statistics is None or statistics.has_min_max:
      row = start
      for batch in parquet.iter_batches(_PART, row_groups=[group], columns=["seconds"]):
        is_null[row : row + len(batch)] = batch.column(0).is_null().to_numpy(zero_copy_only=False)
        row += len(batch)
    start += size
  return is_null


@dataclasses.dataclass(frozen=True)
class Segments:
  """The segments of a data set. Frames are numbered from 0 within a segment.

  Attributes:
    table: the clips.
    first_row: first row of the table, [S].
    last_row: last row of the table, exclusive, [S].
    start: number of a segment's first frame within its episode, [S].
    count: number of frames, [S].
    uniform: whether the times of the frames are uniform, bool [S].
  """

  table: Table
  first_row: np.ndarray
  last_row: np.ndarray
  start: np.ndarray
  count: np.ndarray
  uniform: np.ndarray

  def __len__(self) -> int:
    return len(self.first_row)

  def length(self, segment: int) -> int:
    """Number of frames of a segment."""
    return int(self.count[segment])

  def rows(self, segment: int) -> range:
    """Rows of the table that a segment consists of."""
    return range(int(self.first_row[segment]), int(self.last_row[segment]))

  def all_rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`rows` and `first_frame` of all segments, in order.

    Returns:
      (rows of the table, their segments, their first frames within the segment), int64 [n] each.
    """
    segment = np.repeat(np.arange(len(self)), self.last_row - self.first_row)
    rows = concatenate_ranges(self.first_row, self.last_row)
    return rows, segment, self.table.start[rows] - self.start[segment]

  def first_frame(self, segment: int, row: int) -> int:
    """The first frame of a clip, as a number within the segment."""
    return int(self.table.start[row] - self.start[segment])

  def locate(self, segment: int, frame: int) -> tuple[int, int]:
    """Finds the clip of a frame: (row of the table, frame within that clip).

    Args:
      segment: index of the segment.
      frame: number within the segment.

    Raises:
      IndexError: the segment has no such frame.
    """
    if not 0 <= frame < self.count[segment]:
      raise IndexError(f"frame {frame} of a segment of {self.count[segment]}")
    low, high = int(self.first_row[segment]), int(self.last_row[segment])
    number = frame + int(self.start[segment])
    row = bisect.bisect_right(self.table.start, number, low, high) - 1
    return row, number - int(self.table.start[row])

  def clip_location(self, row: int) -> tuple[int, int]:
    """(shard, clip within the shard) of a row of the table."""
    return int(self.table.shard[row]), int(self.table.clip[row])

  def uniform_times(self, segment: int) -> times.FrameTimes | None:
    """Times of a segment's frames, None where they are not uniform."""
    if not self.uniform[segment]:
      return None
    row = int(self.first_row[segment])
    return times.FrameTimes(
      float(self.table.first[row]), float(self.table.interval[row]), int(self.count[segment])
    )


def concatenate_ranges(first: np.ndarray, last: np.ndarray) -> np.ndarray:
  """Concatenates the ranges first[i] to last[i] (exclusive), int64 [sum of their lengths]."""
  count = np.maximum(last - first, 0)
  return np.arange(count.sum()) + np.repeat(first - (np.cumsum(count) - count), count)


def segments(table: Table, clip_mask: np.ndarray | None = None) -> Segments:
  """The segments of a table.

  Args:
    table: the clips.
    clip_mask: clips to use, bool [R]; None = all. A clip that is left out ends a segment.
  """
  rows = np.flatnonzero(np.ones(len(table), bool) if clip_mask is None else clip_mask)
  if not len(rows):
    none = np.zeros(0, np.int64)
    return Segments(table, none, none, none, none, np.zeros(0, bool))
  a, b = rows[:-1], rows[1:]
  joined = (
    (b == a + 1)
    & (table.episode[a] == table.episode[b])
    & (table.shot[a] == table.shot[b])
    & (table.start[a] + table.length[a] == table.start[b])
  )
  starts = np.flatnonzero(np.concatenate([[True], ~joined]))
  ends = np.concatenate([starts[1:], [len(rows)]]) - 1
  first, last = rows[starts], rows[ends] + 1
  expected = table.first[a] + table.length[a] * table.interval[a]
  steady = (
    table.uniform[a]
    & table.uniform[b]
    & (np.abs(table.interval[a] - table.interval[b]) < 1e-9)
    & (np.abs(expected - table.first[b]) < 1e-6)
  )
  breaks = np.concatenate([[0], np.cumsum(joined & ~steady)])
  uniform = table.uniform[first] & (breaks[ends] == breaks[starts])
  return Segments(
    table,
    first,
    last,
    table.start[first],
    table.start[last - 1] + table.length[last - 1] - table.start[first],
    uniform,
  )
