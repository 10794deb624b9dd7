"""Tables of LeRobot folders: columns and rows that are odd, missing or damaged."""

import os

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from como_jax.data import video
from como_jax.data.sources import lerobot_tables
from tests.data import lerobot_makers as makers
from tests.data.lerobot_makers import (
  WRIST,
  Folder,
  check,
  each,
  features,
  opened,
  refused,
  rows,
  without,
)


def test_indices_as_floating_point(tmp_path):
  def floats(row):
    return {key: float(value) if isinstance(value, int) else value for key, value in row.items()}

  names = ("frame_index", "episode_index", "task_index")
  change = rows(lambda e, columns: {name: columns[name].cast(pa.float64()) for name in names})
  path = Folder(version="v3.0", rows=change, episodes=each(floats)).write(tmp_path / "set")
  source = opened(path, timestamps="frame_index")
  for i in range(2):
    check(source[i], i, range((6, 8)[i]))
    assert source[i].task == makers.TASKS[i]
  change = rows(lambda e, columns: {"task_index": pa.array([0.0, 0.5] + [0.0] * 4)}, only=0)
  source = opened(Folder(rows=change).write(tmp_path / "half"))
  refused(source, 0, "column 'task_index' of .*parquet.*0.5 at frame 1, expected a whole")
  half = each(lambda row: {"data/chunk_index": 0.5 if row["episode_index"] else 0.0})
  source = opened(Folder(version="v3.0", episodes=half).write(tmp_path / "chunk"))
  refused(source, 1, "column 'data/chunk_index' of meta/episodes is 0.5, expected a whole number")
  check(source[0], 0, range(6))


@pytest.mark.parametrize(
  "missing, note",
  [
    ("frame_index", None),
    ("index", None),
    ("episode_index", None),
    ("task_index", None),
    ("timestamp", "no column 'timestamp': times are frame_index / 10"),
  ],
)
def test_columns_that_are_missing_and_not_needed(tmp_path, missing, note):
  raw = opened(Folder(rows=without(missing)).write(tmp_path / "set"))[1]
  check(raw, 1, range(8))
  assert raw.task == makers.TASKS[1] and raw.notes == ([note] if note else [])


def test_rows_without_any_time(tmp_path):
  raw = opened(Folder(rows=without("timestamp", "frame_index")).write(tmp_path / "set"))[1]
  check(raw, 1, range(8))
  assert raw.notes == ["no column 'timestamp': times are frame_index / 10"]
  change = rows(lambda e, columns: {"timestamp": makers.vector([[t, t] for t in range(8)])}, only=1)
  refused(
    opened(Folder(rows=change).write(tmp_path / "two")),
    1,
    "column 'timestamp' has 2 numbers a row, expected 1",
  )


def test_columns_that_are_missing_and_needed(tmp_path):
  path = Folder(rows=without("action")).write(tmp_path / "a")
  refused(opened(path), 1, "episode_000001.parquet has no column 'action'")
  path = Folder(version="v3.0", rows=without("episode_index")).write(tmp_path / "b")
  refused(opened(path), 1, "file-000.parquet has no column 'episode_index'")
  path = Folder(rows=without("frame_index")).write(tmp_path / "c")
  refused(opened(path, timestamps="frame_index"), 1, "no column 'frame_index'")
  path = Folder(images=(WRIST,), rows=without(WRIST)).write(tmp_path / "d")
  refused(opened(path), 1, f"episode_000001.parquet has no column '{WRIST}' of camera 'wrist'")


def test_rows_of_another_episode_or_number(tmp_path):
  change = rows(lambda e, columns: {"episode_index": pa.array([7] * 8)}, only=1)
  source = opened(Folder(rows=change).write(tmp_path / "a"))
  refused(source, 1, r"rows of episode 7 \(column 'episode_index'\), expected 1")
  for version in ("v2.1", "v3.0"):
    for wrong, text in ((5, "has (8|more than 5) rows"), (9, "has 8 rows")):
      change = each(lambda row, wrong=wrong: {"length": wrong} if row["episode_index"] else {})
      source = opened(
        Folder(version=version, episodes=change).write(tmp_path / f"{version}{wrong}")
      )
      refused(source, 1, f"{text} of episode 1, the episodes table declares {wrong}")
      check(source[0], 0, range(6))


def test_an_episode_without_end_is_not_read(tmp_path, monkeypatch):
  path = Folder(version="v3.0", episodes=each(lambda row: {"length": None})).write(tmp_path / "set")
  check(opened(path)[1], 1, range(8))
  monkeypatch.setattr(lerobot_tables, "MAX_ROWS", 7)
  refused(opened(path), 1, "has more than 7 rows")
  check(opened(path)[0], 0, range(6))


@pytest.mark.parametrize("column", ["action", "observation.state"])
@pytest.mark.parametrize("value", [float("nan"), None, float("-inf"), 1e300])
def test_rows_that_are_not_finite(tmp_path, column, value):
  def change(e, columns):
    values = [list(map(float, row)) for row in columns[column].to_pylist()]
    values[5] = None if value is None else [*values[5][:-1], value]
    return {column: pa.array(values, pa.list_(pa.float64()))}

  path = Folder(rows=rows(change, only=1)).write(tmp_path / "set")
  source = opened(path)
  refused(
    source,
    1,
    f"column '{column}' of .*episode_000001.parquet is null or not finite at frame 5, 1 of 8 rows",
  )
  check(source[0], 0, range(6))
  raw = opened(path, invalid_rows="cut_episode")[1]
  check(raw, 1, range(5))
  assert len(raw.notes) == 1 and "at frame 5, 1 of 8 rows: cut before it" in raw.notes[0]


def test_an_action_of_another_size(tmp_path):
  narrow = rows(
    lambda e, columns: {"action": makers.vector(np.zeros((len(columns["index"]), 2)))}, only=0
  )
  path = Folder(rows=narrow).write(tmp_path / "set")
  refused(
    opened(path), 0, "column 'action' of .* has 2 numbers a row, those of the data set have 3"
  )
  check(opened(path)[1], 1, range(8))
  narrow = rows(
    lambda e, columns: {"action": makers.vector(np.zeros((len(columns["index"]), 2)))}, only=1
  )
  # without a shape
  folder = Folder(rows=narrow, info=features(action={"dtype": "float32", "names": None}))
  source = opened(folder.write(tmp_path / "shapeless"))
  refused(source, 1, "has 2 numbers a row, those of the data set have 3")
  check(source[0], 0, range(6))
  ragged = rows(lambda e, columns: {"action": pa.array([[0.0] * 3] * 4 + [[0.0] * 2] * 4)}, only=1)
  source = opened(Folder(rows=ragged).write(tmp_path / "ragged"))
  refused(source, 1, "column 'action'.*frame 4 has 2 numbers, the frames before it 3")
  text = rows(lambda e, columns: {"action": pa.array([["a"] * 3] * 8)}, only=1)
  refused(
    opened(Folder(rows=text).write(tmp_path / "text")),
    1,
    "column 'action'.*it holds string, expected numbers",
  )


def test_two_columns_of_one_name(tmp_path):
  path = Folder().write(tmp_path / "set")
  for name in ("action", "episode_index"):
    file = f"{path}/data/chunk-000/episode_000001.parquet"
    table = pq.read_table(file)
    pq.write_table(table.append_column(name, table.column(name)), file)
    refused(opened(path), 1, f"episode_000001.parquet has 2 columns named '{name}'")
    pq.write_table(table, file)


def test_the_number_of_rows_by_the_places_of_the_rows(tmp_path):
  """v3: without a column 'length', rows that lie in another file would be left out in silence."""

  def change(table):
    rest = [{key: value for key, value in row.items() if key != "length"} for row in table]
    return [
      row | {"dataset_from_index": (0, 6)[e], "dataset_to_index": (6, 14)[e]}
      for e, row in enumerate(rest)
    ]

  path = Folder(version="v3.0", episodes=change).write(tmp_path / "set")
  check(opened(path)[1], 1, range(8))
  file = f"{path}/data/chunk-000/file-000.parquet"
  pq.write_table(pq.read_table(file).slice(0, 10), file)
  refused(opened(path), 1, "has 4 rows of episode 1, the episodes table declares 8")
  check(opened(path)[0], 0, range(6))


@pytest.mark.parametrize(
  "array, rows",
  [
    (pa.array([1, 2]), [[1], [2]]),
    (pa.array([True, False]), [[1], [0]]),
    (pa.array([1.5, None]), [[1.5], [np.nan]]),
    (pa.array([None, None]), [[np.nan], [np.nan]]),
    (pa.array([[1, 2], None, [3, 4]]), [[1, 2], [np.nan, np.nan], [3, 4]]),
    (pa.array([None, None], pa.list_(pa.int64())), [[np.nan], [np.nan]]),
    (pa.array([[[1, 2], [3, 4]]]), [[1, 2, 3, 4]]),
    (pa.array([[1, 2]], pa.large_list(pa.float32())), [[1, 2]]),
    (pa.array([[1, 2], None], pa.list_(pa.float32(), 2)), [[1, 2], [np.nan, np.nan]]),
    (pa.array([[1, None]]), [[1, np.nan]]),
  ],
)
def test_columns_to_numbers(array, rows):
  found = lerobot_tables.to_matrix(array)
  assert found.dtype == np.float64
  np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize(
  "array, message",
  [
    (pa.array(["a"]), "^it holds string, expected numbers$"),
    (pa.array([["a"]]), "^it holds string, expected numbers$"),
    (pa.array([[1], None, [1, 2]]), "^frame 2 has 2 numbers, the frames before it 1$"),
  ],
)
def test_columns_that_are_no_numbers(array, message):
  with pytest.raises(ValueError, match=message):
    lerobot_tables.to_matrix(array)


def test_index_columns():
  found = lerobot_tables.whole_numbers(np.array([[3.0], [-1.0]]))
  assert found.tolist() == [3, -1] and found.dtype == np.int64
  for bad, message in (
    ([0.0, 1.25], "1.25 at frame 1"),
    ([np.nan, 1.0], "nan at frame 0"),
    ([0.0, np.inf], "inf at frame 1"),
  ):
    with pytest.raises(ValueError, match=f"^{message}, expected a whole number$"):
      lerobot_tables.whole_numbers(np.array(bad)[:, None])


@pytest.fixture(name="table")
def _table(tmp_path):
  """Episodes 0, 0, 1 | 1, 1, 2 | 4 in three row groups."""
  path = str(tmp_path / "data" / "chunk-000" / "file.parquet")
  os.makedirs(os.path.dirname(path))
  columns = {
    "nested": pa.array([[t, t] for t in range(7)]),
    "episode_index": [0, 0, 1, 1, 1, 2, 4],
    "action": [float(t) for t in range(7)],
    "stats/x": [0] * 7,
  }
  pq.write_table(pa.table(columns), path, row_group_size=3)
  return path


def test_rows_of_one_episode(table, monkeypatch):
  def read(number, names=("action",), *, single_episode=False, size=2):
    return [
      batch.to_pydict()
      for batch in lerobot_tables.batches(
        table, number, names, batch_size=size, single_episode=single_episode
      )
    ]

  assert [row for one in read(1) for row in one["action"]] == [2, 3, 4] and all(
    set(one) == {"action", "episode_index"} for one in read(1)
  )
  assert read(3) == [] and read(4, ("none", "action")) == [{"action": [6.0], "episode_index": [4]}]
  assert [one["action"] for one in read(9, single_episode=True, size=4)] == [
    [0, 1, 2, 3],
    [4, 5, 6],
  ]
  groups = []
  whole = pq.ParquetFile.iter_batches
  monkeypatch.setattr(
    pq.ParquetFile,
    "iter_batches",
    lambda self, **more: groups.append(more["row_groups"]) or whole(self, **more),
  )
  for number in (0, 1, 2, 3, 4, 5):
    read(number)
  assert groups == [[0], [0, 1], [1], [], [2], []]
  assert lerobot_tables.short(table) == "data/chunk-000/file.parquet" and list(
    lerobot_tables.column_types(table)
  ) == ["nested", "episode_index", "action", "stats/x"]
  assert lerobot_tables.read_table(table, leave_out="stats/").column_names == [
    "nested",
    "episode_index",
    "action",
  ]
  assert lerobot_tables.read_table(table).num_columns == 4


def test_an_episode_of_a_table(table):
  def read(number, length=None, *, single_episode=False):
    return lerobot_tables.read_episode(
      table, number, ["nested", "action"], single_episode=single_episode, length=length
    )

  found = read(1, 3)
  assert (
    found["episode_index"].tolist() == [1, 1, 1]
    and found["action"].tolist() == [[2], [3], [4]]
    and found["nested"].shape == (3, 2)
  )
  for call, message in (
    (lambda: read(3), "^data/chunk-000/file.parquet has no row of episode 3$"),
    (
      lambda: read(1, 4),
      "has 3 rows of episode 1, the episodes table declares 4 .column 'length'.$",
    ),
    (lambda: read(1, 2), "has more than 2 rows of episode 1, the episodes table declares 2"),
    (
      lambda: read(1, 6, single_episode=True),
      "has 7 rows of episode 1, the episodes table declares 6",
    ),
    (
      lambda: read(1, single_episode=True),
      "holds rows of episode 0 .column 'episode_index'., expected 1 alone$",
    ),
    (
      lambda: list(
        lerobot_tables.batches("gone.parquet", 1, [], batch_size=1, single_episode=True)
      ),
      "^gone.parquet is missing$",
    ),
    (
      lambda: lerobot_tables.read_episode("gone.parquet", 1, [], single_episode=True, length=3),
      "^gone.parquet is missing$",
    ),
    (lambda: lerobot_tables.first_cell("gone.parquet", "x"), "^gone.parquet is missing$"),
  ):
    with pytest.raises(video.UnreadableError, match=message):
      call()


def test_first_cells(table, tmp_path):
  assert lerobot_tables.first_cell(table, "none") is None
  cell = lerobot_tables.first_cell(table, "nested")
  assert len(cell) == 1 and cell.to_pylist() == [[0, 0]]
  pq.write_table(pa.table({"x": pa.array([], pa.int64())}), tmp_path / "none.parquet")
  assert lerobot_tables.first_cell(str(tmp_path / "none.parquet"), "x") is None
