"""Episodes and instructions of LeRobot folders."""

import numpy as np
import pyarrow as pa
import pytest

from como_jax import errors
from como_jax.data.sources import lerobot_meta
from tests.data import lerobot_makers as makers
from tests.data.lerobot_makers import Folder, check, each, opened, refused, rows, without


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


@pytest.mark.parametrize(
  "value, number",
  [
    (3, 3),
    (3.0, 3),
    (0, 0),
    (-2, -2),
    (3.5, None),
    (True, None),
    ("3", None),
    (None, None),
    (float("nan"), None),
    (float("inf"), None),
  ],
)
def test_whole_numbers(value, number):
  assert lerobot_meta.to_whole_number(value) == number and type(
    lerobot_meta.to_whole_number(value)
  ) is type(number)


@pytest.mark.parametrize(
  "value, seconds",
  [
    (0, 0.0),
    (0.25, 0.25),
    (3, 3.0),
    (-0.1, None),
    (float("nan"), None),
    (float("inf"), None),
    ("1", None),
  ],
)
def test_seconds(value, seconds):
  assert lerobot_meta.to_seconds(value) == seconds and type(lerobot_meta.to_seconds(value)) is type(
    seconds
  )


def test_groups_of_rows():
  assert [
    lerobot_meta.group(row, "open")
    for row in (
      {},
      {"group": ""},
      {"motion": 3},
      {"motion": 0},
      {"group": "a", "motion": 3},
      {"group": None, "motion": None},
      {"group": float("nan"), "motion": 2},
    )
  ] == ["", "", "open/3", "open/0", "a", "", "open/2"]


def task_of(listed, columns, *, tasks=None):
  tasks, notes = tasks or {0: "open", 1: "close"}, []
  return lerobot_meta.episode_task({"tasks": listed}, columns, tasks, notes), notes


@pytest.mark.parametrize(
  "listed, numbers, task, notes",
  [
    (["a"], None, "a", []),
    ("a", None, "a", []),
    (1, None, "close", []),
    (
      [1, 0],
      None,
      "close",
      ["2 instructions and no column 'task_index' that says where they change: 'close' is used"],
    ),
    (
      [1, 7],
      None,
      "close",
      ["column 'tasks' of meta/episodes lists 7, which is neither text nor a number of meta/tasks"],
    ),
    (None, None, "", []),
    ((), None, "", []),
    (["open"], [0, 0], "open", []),
    (["open", "close"], [0, 1], ["open", "close"], []),
    (
      ["a"],
      [0, 0],
      "open",
      ["task_index 0 of 2 rows is 'open' in meta/tasks and used, meta/episodes lists 'a'"],
    ),
    (
      ["a"],
      [5, 5, 3],
      "a",
      [
        "task_index 3 of 1 rows is not in meta/tasks: 'a' is used",
        "task_index 5 of 2 rows is not in meta/tasks: 'a' is used",
      ],
    ),
  ],
)
def test_instructions(listed, numbers, task, notes):
  assert task_of(listed, {} if numbers is None else {"task_index": np.array(numbers)}) == (
    task,
    notes,
  )
