"""Tables of LeRobot folders: columns, rows and lines that are odd, missing or damaged."""

import os
import pathlib

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from como_jax import errors
from como_jax.data.sources import lerobot_tables
from tests.data import lerobot_makers as makers
from tests.data.lerobot_makers import (
  TOP,
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


def test_places_in_shared_files_are_needed(tmp_path):
  def drop(row):
    return {key: value for key, value in row.items() if key != f"videos/{TOP}/from_timestamp"}

  folder = Folder(
    version="v3.0", videos=(TOP, WRIST), episodes=lambda table: list(map(drop, table))
  )
  path = folder.write(tmp_path / "column")
  pattern = f"no column 'videos/{TOP}/from_timestamp', only videos/{WRIST}/from_timestamp"
  with pytest.raises(errors.UserError, match=pattern):
    opened(path)
  check(opened(path, camera_keys=("wrist",))[1], 1, range(8))
  for name in ("data/file_index", f"videos/{WRIST}/chunk_index"):
    folder.episodes = lambda table, name=name: [
      {k: v for k, v in row.items() if k != name} for row in table
    ]
    with pytest.raises(errors.UserError, match=f"no column '{name}'"):
      opened(folder.write(tmp_path / name.replace("/", "_")))
  folder.episodes = lambda table: [table[0] | {f"videos/{TOP}/from_timestamp": None}, table[1]]
  source = opened(folder.write(tmp_path / "row"))
  refused(
    source, 0, f"column 'videos/{TOP}/from_timestamp' of meta/episodes is None, expected seconds"
  )
  check(source[1], 1, range(8))


@pytest.mark.parametrize("end", [None, float("nan")])
def test_ends_in_shared_files_are_not_needed(tmp_path, end):
  change = each(lambda row: {f"videos/{TOP}/to_timestamp": end})
  source = opened(
    Folder(version="v3.0", lengths=(6, 8, 9), episodes=change).write(tmp_path / "set")
  )
  for i in range(3):
    check(source[i], i, range((6, 8, 9)[i]))
    assert source[i].notes == []
  # Pictures between two episodes that belong to neither: of rows that were taken out at the end.
  change = each(lambda row: {f"videos/{TOP}/to_timestamp": (0.6, 1.8)[row["episode_index"]]})
  folder = Folder(
    version="v3.0", pictures=lambda e: range(1000 * e, 1000 * e + (10, 8)[e]), episodes=change
  )
  source = opened(folder.write(tmp_path / "gap"))
  check(source[0], 0, range(6))
  check(source[1], 1, range(8))
  assert source[0].notes == source[1].notes == []
  change = each(lambda row: {f"videos/{TOP}/to_timestamp": (0.6, 0.5, 2.3)[row["episode_index"]]})
  source = opened(
    Folder(version="v3.0", lengths=(6, 8, 9), episodes=change).write(tmp_path / "before")
  )
  refused(source, 1, "file-000.mp4: the episode begins at 0.600 and ends at 0.500 s")
  check(source[2], 2, range(9))


def test_episodes_that_claim_the_same_pictures(tmp_path):
  change = each(lambda row: {f"videos/{TOP}/from_timestamp": (0.0, 0.3, 1.4)[row["episode_index"]]})
  source = opened(
    Folder(version="v3.0", lengths=(6, 8, 9), episodes=change).write(tmp_path / "set")
  )
  for i in range(2):
    refused(
      source, i, "0.000 to 0.600 of episode 0 overlap 0.300 to 1.400 of episode 1.*from_timestamp"
    )
  check(source[2], 2, range(9))


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


def test_an_instruction_for_each_frame(tmp_path):
  change = rows(lambda e, columns: {"task_index": pa.array([0] * 4 + [1] * 4)}, only=1)
  source = opened(
    Folder(rows=change, episodes=each(lambda row: {"tasks": makers.TASKS})).write(tmp_path / "set")
  )
  assert source[1].task == [makers.TASKS[0]] * 4 + [makers.TASKS[1]] * 4
  assert source[0].task == makers.TASKS[0] and source[1].notes == []
  change = rows(lambda e, columns: {"task_index": pa.array([1] * 5 + [9] * 3)}, only=1)
  raw = opened(
    Folder(rows=change, episodes=each(lambda row: {"tasks": ["wipe"]})).write(tmp_path / "unknown")
  )[1]
  assert raw.task == [makers.TASKS[1]] * 5 + ["wipe"] * 3
  known = (
    "task_index 1 of 5 rows is 'close the drawer' in meta/tasks and used, meta/episodes lists "
    "'wipe'"
  )
  assert raw.notes == [known, "task_index 9 of 3 rows is not in meta/tasks: 'wipe' is used"]
  folder = Folder(rows=without("task_index"), episodes=each(lambda row: {"tasks": ["one", "two"]}))
  raw = opened(folder.write(tmp_path / "none"))[0]
  assert raw.task == "one" and "2 instructions and no column 'task_index'" in raw.notes[0]


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


def test_a_line_that_is_cut(tmp_path):
  path = Folder(lengths=(6, 8, 7)).write(tmp_path / "set")
  lines = pathlib.Path(f"{path}/meta/episodes.jsonl").read_text()
  pathlib.Path(f"{path}/meta/episodes.jsonl").write_text(lines[:-15])
  source = opened(path)
  assert source.names == ("episode_000000", "episode_000001")
  check(source[1], 1, range(8))
  assert source.skipped == [
    {"name": "meta/episodes.jsonl", "reason": "line 3, the last one, is cut and left out"},
    {
      "name": "data/chunk-000/episode_000002.parquet",
      "reason": "no episode of meta/episodes uses it",
    },
    {
      "name": f"videos/chunk-000/{TOP}/episode_000002.mp4",
      "reason": "no episode of meta/episodes uses it",
    },
  ]
  first, second, third = lines.splitlines()
  pathlib.Path(f"{path}/meta/episodes.jsonl").write_text(f"{first}\n\n{second[:-9]}\n{third}\n")
  with pytest.raises(errors.UserError, match="episodes.jsonl: line 3 is not JSON"):
    opened(path)
  pathlib.Path(f"{path}/meta/episodes.jsonl").write_bytes(f"{first}\n[1]\n".encode() + b"{caf\xe9}")
  with pytest.raises(errors.UserError, match="episodes.jsonl: line 2 holds a JSON list"):
    opened(path)
  pathlib.Path(f"{path}/meta/episodes.jsonl").write_text(lines)
  with open(f"{path}/meta/tasks.jsonl", "a") as file:
    file.write('{"task_index": 1, "task": "another"}\n')
  with pytest.raises(
    errors.UserError, match="task_index 1 is listed twice, as 'close the drawer' and as 'another'"
  ):
    opened(path)
  pathlib.Path(f"{path}/meta/tasks.jsonl").write_text('{"task_index": 0}')
  with pytest.raises(
    errors.UserError, match="task_index = 0, task = None, expected a whole number and text"
  ):
    opened(path)
  os.remove(f"{path}/meta/tasks.jsonl")
  makers.write_table(f"{path}/meta/tasks.parquet", pa.table({"task_index": [0, 1]}))
  with pytest.raises(errors.UserError, match="tasks.parquet has no column of instructions"):
    opened(path)
  os.remove(f"{path}/meta/tasks.parquet")
  assert opened(path)[1].task == "close the drawer"  # of the episode's own list
  os.remove(f"{path}/meta/episodes.jsonl")
  with pytest.raises(errors.UserError, match="episodes.jsonl cannot be read"):
    opened(path)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_an_episode_that_is_listed_twice(tmp_path, version):
  folder = Folder(version=version)  # the place of the row itself in the tables is no difference
  folder.episodes = lambda table: [
    *[row | {"meta/episodes/file_index": 0} for row in table],
    table[1],
  ]
  source = opened(folder.write(tmp_path / "same"))
  assert source.names == ("episode_000000", "episode_000001")
  assert [one["reason"] for one in source.skipped] == ["episode 1 is listed twice: used once"]
  check(source[1], 1, range(8))
  folder.episodes = lambda table: [*table, table[1] | {"length": 5}]
  source = opened(folder.write(tmp_path / "other"))
  refused(source, 1, "listed twice in meta/episodes.*, with length = 8 and 5")
  check(source[0], 0, range(6))


def test_a_byte_order_mark_is_no_damage(tmp_path):
  # one line: what is wrong with the last one is taken as a cut
  one = Folder(lengths=(6,), rows=without("task_index"))
  for folder, lengths in ((one, (6,)), (Folder(), (6, 8))):
    path = folder.write(tmp_path / str(len(lengths)))
    for name in ("info.json", "episodes.jsonl", "tasks.jsonl"):
      content = pathlib.Path(f"{path}/meta/{name}").read_bytes()
      pathlib.Path(f"{path}/meta/{name}").write_bytes(b"\xef\xbb\xbf" + content)
    source = opened(path)
    assert source.skipped == []
    for i, length in enumerate(lengths):
      check(source[i], i, range(length))
      assert source[i].task == makers.TASKS[i]


@pytest.mark.parametrize(
  "lines, wanted",
  [
    ([{"task_index": i, "task": [text]} for i, text in enumerate(makers.TASKS)], makers.TASKS[1]),
    ([{"task_index": i, "task": {"en": text}} for i, text in enumerate(makers.TASKS)], None),
    ([{"task_index": 0, "task": "a"}, {"task_index": 1, "task": "caf\ud83d"}], "caf\ufffd"),
  ],
)
def test_instructions_that_are_no_plain_text(tmp_path, lines, wanted):
  path = Folder(episodes=each(lambda row: {"tasks": []})).write(tmp_path / "set")
  makers.write_lines(f"{path}/meta/tasks.jsonl", lines)
  if wanted is None:
    with pytest.raises(
      errors.UserError, match="task_index = 0, task = {'en': 'open the drawer'}, expected a whole"
    ):
      opened(path)
  else:
    assert opened(path)[1].task == wanted


@pytest.mark.parametrize(
  "columns, wanted",
  [
    ({"level_0": [10, 11], "task_index": [0, 1], "instruction": makers.TASKS}, makers.TASKS[1]),
    ({"language": ["en", "en"], "task_index": [0, 1], "task": makers.TASKS}, makers.TASKS[1]),
    (
      {"language": ["en", "en"], "task_index": [0, 1], "instruction": makers.TASKS},
      "several columns of text, none named 'task': language, instruction",
    ),
    ({"level_0": [0, 1], "task_index": [0, 1]}, "no column of instructions"),
    ({"number": [0, 1], "task": makers.TASKS}, "no column 'task_index'"),
  ],
)
def test_the_column_of_instructions(tmp_path, columns, wanted):
  path = Folder(version="v3.0").write(tmp_path / "set")
  makers.write_table(f"{path}/meta/tasks.parquet", pa.table(columns))
  if wanted == makers.TASKS[1]:
    assert opened(path)[1].task == wanted
  else:
    with pytest.raises(errors.UserError, match=f"tasks.parquet has {wanted}"):
      opened(path)


def test_instructions_of_both_versions(tmp_path):
  for version, other in (("v2.1", "tasks.parquet"), ("v3.0", "tasks.jsonl")):
    path = Folder(version=version).write(tmp_path / version)
    if other == "tasks.jsonl":
      makers.write_lines(
        f"{path}/meta/{other}", [{"task_index": i, "task": "old"} for i in range(2)]
      )
    else:
      makers.write_table(
        f"{path}/meta/{other}", pa.table({"task_index": [0, 1], "task": ["old", "old"]})
      )
    source = opened(path)
    assert source[1].task == makers.TASKS[1] and source[1].notes == []
    assert [one["name"] for one in source.skipped] == [f"meta/{other}"]


def test_instructions_of_the_episodes_table(tmp_path):
  def column(change):
    return lambda table: [
      {key: value for key, value in row.items() if key != "tasks"} | change(row) for row in table
    ]

  for name, change, wanted, note in (
    ("text", lambda row: {"task": row["tasks"][0]}, makers.TASKS[1], None),
    ("number", lambda row: {"tasks": [1]}, makers.TASKS[1], None),
    (
      "unknown",
      lambda row: {"tasks": [7]},
      "",
      "column 'tasks' of meta/episodes lists 7, which is neither text nor",
    ),
  ):
    raw = opened(
      Folder(rows=without("task_index"), episodes=column(change)).write(tmp_path / name)
    )[1]
    assert raw.task == wanted, name
    assert [note in one for one in raw.notes] == ([True] if note else []), name


def test_instructions_that_disagree(tmp_path):
  """Merged sets whose rows kept the numbers of another table of tasks."""
  change = rows(lambda e, columns: {"task_index": pa.array([0] * len(columns["index"]))})
  source = opened(Folder(rows=change).write(tmp_path / "set"))
  assert source[0].task == source[1].task == makers.TASKS[0] and source[0].notes == []
  assert source[1].notes == [
    (
      "task_index 0 of 8 rows is 'open the drawer' in meta/tasks and used, meta/episodes lists "
      "'close the drawer'"
    )
  ]


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
  "cells, reason",
  [
    (lambda e, n: [[e]] * n, None),
    (lambda e, n: pa.array([e] * n).dictionary_encode(), None),
    (lambda e, n: [[e, e]] * n, "it has 2 numbers a row, expected 1"),
    (lambda e, n: [str(e)] * n, "it holds string, expected numbers"),
  ],
)
def test_episode_numbers_of_other_types(tmp_path, cells, reason):
  change = rows(lambda e, columns: {"episode_index": pa.array(cells(e, len(columns["index"])))})
  source = opened(Folder(version="v3.0", rows=change).write(tmp_path / "set"))
  if reason:
    refused(source, 1, f"column 'episode_index' of data/chunk-000/file-000.parquet: {reason}")
  else:
    check(source[1], 1, range(8))


def test_two_instructions_a_row(tmp_path):
  change = rows(lambda e, columns: {"task_index": pa.array([[0, 1]] * len(columns["index"]))})
  refused(
    opened(Folder(rows=change).write(tmp_path / "set")),
    1,
    "column 'task_index' of .*it has 2 numbers a row, exp",
  )


def test_what_git_leaves_in_the_place_of_large_files(tmp_path):
  pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
  for name in (
    "data/chunk-000/episode_000001.parquet",
    f"videos/chunk-000/{TOP}/episode_000001.mp4",
  ):
    path = Folder().write(tmp_path / os.path.basename(name))
    pathlib.Path(f"{path}/{name}").write_text(pointer)
    refused(opened(path), 1, f"{os.path.basename(name)}.* is a Git LFS pointer.*git lfs pull")
    check(opened(path)[0], 0, range(6))
  for name in ("info.json", "episodes.jsonl", "tasks.parquet"):
    path = Folder(version="v3.0" if name.endswith("parquet") else "v2.1").write(tmp_path / name)
    pathlib.Path(f"{path}/meta/{name}").write_text(pointer)
    with pytest.raises(errors.UserError, match=f"{name} is a Git LFS pointer"):
      opened(path)


def test_a_last_line_that_is_whole_and_wrong(tmp_path):
  """Only a line that was cut is left out: it does not end as an object does."""
  path = Folder().write(tmp_path / "set")
  good = pathlib.Path(f"{path}/meta/tasks.jsonl").read_bytes()
  for line, reason in (
    (b'{"task_index": 1, "task": "caf\xe9"}', "'utf-8' codec can't decode byte 0xe9"),
    (
      b'{"task_index": 1, "task": "a",}\n',
      "Expecting property name enclosed in double quotes, column 3",
    ),
  ):
    pathlib.Path(f"{path}/meta/tasks.jsonl").write_bytes(good.splitlines(keepends=True)[0] + line)
    with pytest.raises(errors.UserError, match=f"tasks.jsonl: line 2 is not JSON .{reason}"):
      opened(path)


def test_tables_whose_text_is_not_utf8(tmp_path):
  latin = pa.array([b"caf\xe9", b"b"]).view(pa.string())
  path = Folder(version="v3.0").write(tmp_path / "set")
  makers.write_table(f"{path}/meta/tasks.parquet", pa.table({"task_index": [0, 1], "task": latin}))
  with pytest.raises(errors.UserError, match="tasks.parquet holds text that is not UTF-8"):
    opened(path)
  file = f"{path}/meta/episodes/chunk-000/file-000.parquet"
  pq.write_table(pq.read_table(file).append_column("group", latin), file)
  os.remove(f"{path}/meta/tasks.parquet")
  with pytest.raises(errors.UserError, match="file-000.parquet holds text that is not UTF-8"):
    opened(path)
