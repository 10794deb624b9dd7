"""Reads the tables of a LeRobot data set: parquet files and numeric columns.

What cannot be read correctly raises `errors.UserError` when the whole data set depends on it, and
`video.UnreadableError` when only one episode depends on it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from como_jax import errors
from como_jax.data import video
from como_jax.data.sources import lerobot_json

EPISODE = "episode_index"
# Largest number of rows of an episode, about four days at 30 per second. A file that declares more
# is damaged or malicious.
MAX_ROWS = 10_000_000
INDICES = (EPISODE, "frame_index", "index", "task_index")
_READ_ERRORS = (OSError, pa.ArrowException)


def read_table(path: str, *, leave_out: str = "") -> pa.Table:
  """Reads a whole parquet file.

  Args:
    path: of the file.
    leave_out: columns whose name starts with this text are not read, "" = all are read.

  Raises:
    errors.UserError: the file is missing or damaged.
  """
  try:
    file = pq.ParquetFile(path)
    names = [
      name for name in file.schema_arrow.names if not (leave_out and name.startswith(leave_out))
    ]
    return file.read(columns=names)
  except _READ_ERRORS as error:
    raise errors.UserError(f"{path}: {_reason(path, error)}") from error


def to_values(table: pa.Table | pa.ChunkedArray, path: str) -> list:
  """Converts a table to one dictionary per row, or a column to a list of Python values.

  Args:
    table: the table or column.
    path: of its file, for messages.

  Raises:
    errors.UserError: a text is not UTF-8.
  """
  try:
    return table.to_pylist()
  except UnicodeDecodeError as error:
    raise errors.UserError(f"{path} holds text that is not UTF-8 ({error})") from error


def column_types(path: str) -> dict[str, pa.DataType]:
  """Name -> type of a parquet file's columns. Raises `video.UnreadableError`."""
  try:
    return {field.name: field.type for field in pq.ParquetFile(path).schema_arrow}
  except _READ_ERRORS as error:
    raise video.UnreadableError(_reason(path, error)) from error


def first_cell(path: str, name: str) -> pa.Array | None:
  """The first row of a column, [1]; None when the file has no such column or no row.

  Raises `video.UnreadableError`.
  """
  try:
    file = pq.ParquetFile(path)
    if name not in file.schema_arrow.names:
      return None
    batch = next(file.iter_batches(batch_size=1, columns=[name]), None)
    return None if batch is None else batch.column(0)
  except _READ_ERRORS as error:
    raise video.UnreadableError(_reason(path, error)) from error


def batches(
  path: str, episode_index: int, names: Sequence[str], *, batch_size: int, single_episode: bool
) -> Iterator[pa.RecordBatch]:
  """Yields the rows of one episode in order, without reading row groups of other episodes.

  Row groups are skipped by their statistics.

  Args:
    path: of the file.
    episode_index: of the episode.
    names: columns to read. Columns that the file does not have are left out.
    batch_size: number of rows to read at a time.
    single_episode: True when the file holds only this episode. Then no row is filtered out.

  Raises:
    video.UnreadableError: the file is damaged, or has no column episode_index.
  """
  try:
    file = pq.ParquetFile(path)
    existing = file.schema_arrow.names
    duplicates = [name for name in (*names, EPISODE) if existing.count(name) > 1]
    if duplicates:
      raise video.UnreadableError(
        f"{short(path)} has {existing.count(duplicates[0])} columns named {duplicates[0]!r}"
      )
    names = [name for name in dict.fromkeys(names) if name in existing]
    groups = range(file.metadata.num_row_groups)
    if not single_episode:
      if EPISODE not in existing:
        raise video.UnreadableError(
          f"{short(path)} has no column {EPISODE!r}, by which its episodes are told apart"
        )
      names = [*names, *([] if EPISODE in names else [EPISODE])]
      groups = [group for group in groups if _may_hold(file.metadata, group, episode_index)]
    for batch in file.iter_batches(batch_size=batch_size, row_groups=list(groups), columns=names):
      if not single_episode:
        batch = batch.filter(pa.array(_index_values(batch.column(EPISODE), path) == episode_index))
      if len(batch):
        yield batch
  except _READ_ERRORS as error:
    raise video.UnreadableError(_reason(path, error)) from error


def _may_hold(metadata: pq.FileMetaData, group: int, episode_index: int) -> bool:
  # The column is found by its path, because nested columns shift the physical index. A list column
  # has another path.
  column = next(
    (i for i in range(metadata.num_columns) if metadata.schema.column(i).path == EPISODE), None
  )
  stats = None if column is None else metadata.row_group(group).column(column).statistics
  if stats is None or not stats.has_min_max or not isinstance(stats.min, (int, float)):
    return True
  return stats.min <= episode_index <= stats.max


def _index_values(array: pa.Array, path: str) -> np.ndarray:
  """Values of the column episode_index, float64 [T], NaN = null. Raises `video.UnreadableError`."""
  try:
    return _single(to_matrix(array))
  except ValueError as error:
    raise video.UnreadableError(f"column {EPISODE!r} of {short(path)}: {error}") from error


def read_episode(
  path: str,
  episode_index: int,
  names: Sequence[str],
  *,
  single_episode: bool,
  length: int | None,
  optional: Mapping[str, list[str]] | None = None,
) -> dict[str, np.ndarray]:
  """Reads columns of one episode.

  Args:
    path: of the file.
    episode_index: of the episode.
    names: columns to read. Columns that the file does not have are left out.
    single_episode: as in `batches`.
    length: number of rows that the episodes table declares, None = not declared. Reading stops
      after this number.
    optional: column -> list. If the column cannot be read, it is left out and a note is added to
      the list. Other columns that cannot be read raise.

  Returns:
    Name -> values: indices int64 [T], other columns float64 [T, D], NaN where a value is null.

  Raises:
    video.UnreadableError: the episode has no row, or another number of rows than declared, or a
      column does not hold numbers of one size.
  """
  where, parts, rows, optional = short(path), [], 0, optional or {}
  wrong = f"of episode {episode_index}, the episodes table declares {length} (column 'length')"
  max_rows = MAX_ROWS if length is None else min(length, MAX_ROWS)
  if single_episode and length is not None and (file_rows := _row_count(path)) != length:
    raise video.UnreadableError(f"{where} has {file_rows} rows {wrong}")
  for batch in batches(
    path, episode_index, [*names, EPISODE], batch_size=4096, single_episode=single_episode
  ):
    parts.append(batch)
    rows += len(batch)
    if rows > max_rows:
      raise video.UnreadableError(f"{where} has more than {max_rows} rows {wrong}")
  if not rows:
    raise video.UnreadableError(f"{where} has no row of episode {episode_index}")
  if length is not None and rows != length:
    raise video.UnreadableError(f"{where} has {rows} rows {wrong}")
  table, columns = pa.Table.from_batches(parts), {}
  for name in table.column_names:
    try:
      values = to_matrix(pa.concat_arrays(table.column(name).chunks))
      columns[name] = whole_numbers(values) if name in INDICES else values
    except (ValueError, pa.ArrowException) as error:
      text = f"column {name!r} of {where}, episode {episode_index}: {str(error).splitlines()[0]}"
      if name not in optional:
        raise video.UnreadableError(text) from error
      optional[name].append(f"{text}; it is not used")
  indices = columns.setdefault(EPISODE, np.full(rows, episode_index))
  foreign = indices[indices != episode_index]
  if len(foreign):
    raise video.UnreadableError(
      f"{where} holds rows of episode {foreign[0]} (column {EPISODE!r}), expected "
      f"{episode_index} alone"
    )
  return columns


def _row_count(path: str) -> int:
  try:
    return pq.ParquetFile(path).metadata.num_rows
  except _READ_ERRORS as error:
    raise video.UnreadableError(_reason(path, error)) from error


def to_matrix(array: pa.Array) -> np.ndarray:
  """Converts numbers, or lists of lists of numbers, to float64 [T, D]; null becomes NaN.

  Raises:
    ValueError: the sizes of the rows differ, or the values are not numbers.
  """
  if isinstance(array, pa.ExtensionArray):
    array = array.storage
  if isinstance(array, pa.DictionaryArray):
    array = array.dictionary_decode()
  kind = array.type
  if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
    valid = np.asarray(array.is_valid())
    present = array.filter(pa.array(valid))
    sizes = np.asarray(pc.call_function("list_value_length", [present])).astype(np.int64)
    if not len(sizes):
      return np.full((len(array), 1), np.nan)
    if np.any(sizes != sizes[0]):
      row = int(np.flatnonzero(sizes != sizes[0])[0])
      frame = np.flatnonzero(valid)[row]
      raise ValueError(f"frame {frame} has {sizes[row]} numbers, the frames before it {sizes[0]}")
    inner = to_matrix(present.flatten())
    out = np.full((len(array), int(sizes[0]) * inner.shape[1]), np.nan)
    out[valid] = inner.reshape(len(sizes), -1)
    return out
  types = pa.types
  if not (
    types.is_floating(kind)
    or types.is_integer(kind)
    or types.is_boolean(kind)
    or types.is_null(kind)
  ):
    raise ValueError(f"it holds {kind}, expected numbers")
  # safe=False: a clock in nanoseconds has more digits than float64 keeps.
  array = array.cast(pa.float64(), safe=False)
  return np.asarray(array.to_numpy(zero_copy_only=False), np.float64).reshape(-1, 1)


def whole_numbers(values: np.ndarray) -> np.ndarray:
  """Converts an index column [T, 1], possibly stored as floating point, to int64 [T].

  Raises:
    ValueError: a value is not whole (the message names the first), or a row has several values.
  """
  values = _single(values)
  bad = np.flatnonzero(~np.isfinite(values) | (values != np.round(np.nan_to_num(values))))
  if len(bad):
    raise ValueError(f"{values[bad[0]]} at frame {bad[0]}, expected a whole number")
  return values.astype(np.int64)


def _single(values: np.ndarray) -> np.ndarray:
  """Reshapes [T, 1] to [T]. Raises ValueError for other shapes."""
  if values.shape[1] != 1:
    raise ValueError(f"it has {values.shape[1]} numbers a row, expected 1")
  return values[:, 0]


def short(path: str) -> str:
  """The last three parts of a path, which identify a file within its data set."""
  return "/".join(path.split(os.sep)[-3:])


def _reason(path: str, error: Exception) -> str:
  """Text that says why a parquet file cannot be read."""
  name = short(path)
  if not os.path.isfile(path):
    return f"{name} is missing"
  if lerobot_json.is_pointer(path):
    return f"{name} is {lerobot_json.POINTER}"
  try:
    with open(path, "rb") as file:
      file.seek(-4, os.SEEK_END)
      finished = file.read() == b"PAR1"
  except OSError:
    finished = False
  if not finished:
    return (
      f"{name} has no parquet footer: the recording was not finished (LeRobot's finalize() was "
      "not called) or the file is cut"
    )
  return f"{name} is not readable parquet ({str(error).splitlines()[0]})"
