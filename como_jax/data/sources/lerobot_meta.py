"""Reads the folder meta/ of a LeRobot data set: episodes and instructions."""

import collections
import glob
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from como_jax import errors
from como_jax.data.sources import lerobot_features as layout
from como_jax.data.sources import lerobot_json
from como_jax.data.sources import lerobot_tables as tables


def read_tasks(root: str, v3: bool, skipped: list[dict[str, str]]) -> dict[int, str]:
  """Reads the instructions, task_index -> text; empty when the data set has no table of them.

  Raises `errors.UserError`.
  """
  names = ("tasks.parquet", "tasks.jsonl") if v3 else ("tasks.jsonl", "tasks.parquet")
  names = [name for name in names if os.path.isfile(os.path.join(root, "meta", name))]
  if not names:
    return {}
  skipped += [
    {"name": f"meta/{name}", "reason": f"meta/{names[0]} is read in its place"}
    for name in names[1:]
  ]
  path = os.path.join(root, "meta", names[0])
  if path.endswith(".parquet"):
    table = tables.read_table(path)
    text_column = _text_column(table.schema, path)
    if "task_index" not in table.column_names:
      raise errors.UserError(f"{path} has no column 'task_index'")
    task_indices, texts = (
      tables.to_values(table.column(name), path) for name in ("task_index", text_column)
    )
  else:
    rows = _lines(path, skipped)
    task_indices, texts = [row.get("task_index") for row in rows], [row.get("task") for row in rows]
  tasks: dict[int, str] = {}
  for task_index, value in zip(task_indices, texts, strict=True):
    index, text = to_whole_number(task_index), instruction(value)
    if index is None or text is None:
      raise errors.UserError(
        f"{path}: task_index = {task_index!r}, task = {value!r}, expected a whole number and text"
      )
    if tasks.setdefault(index, text) != text:
      raise errors.UserError(
        f"{path}: task_index {index} is listed twice, as {tasks[index]!r} and as {text!r}"
      )
  return tasks


def _text_column(schema: pa.Schema, path: str) -> str:
  """The column of instructions: one of the usual names, else the only column of text.

  Raises `errors.UserError`.
  """
  kinds = {
    field.name: field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    for field in schema
  }
  texts = [
    name
    for name, kind in kinds.items()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind)
  ]
  usual = [name for name in ("task", "__index_level_0__") if name in texts]
  if not usual and len(texts) != 1:
    problem = (
      f"several columns of text, none named 'task': {', '.join(texts)}"
      if texts
      else "no column of instructions"
    )
    raise errors.UserError(f"{path} has {problem}")
  return (usual or texts)[0]


def instruction(value: Any) -> str | None:
  """The instruction in a value that is text or a list of one text; None for anything else.

  Lone surrogates are replaced: JSON may hold them, but no other file can.
  """
  if isinstance(value, list) and len(value) == 1:
    value = value[0]
  return (
    value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, str)
    else None
  )


def listed_instructions(
  row: Mapping[str, Any], tasks: Mapping[int, str], notes: list[str]
) -> list[str]:
  """The instructions of an episode, from its row of meta/episodes.

  The column 'tasks' or 'task' holds texts or numbers.
  """
  name = "task" if row.get("tasks") is None else "tasks"
  values = row.get(name)
  values = list(values) if isinstance(values, (list, tuple)) else [values]
  texts = []
  for value in values:
    text, task_index = instruction(value), to_whole_number(value)
    if text is None and task_index is not None:
      text = tasks.get(task_index)
    if text is not None:
      texts.append(text)
    elif value is not None and value == value:
      # value == value: not NaN, which merged tables hold where a column was missing.
      notes.append(
        f"column {name!r} of meta/episodes lists {value!r}, which is neither text nor a number of "
        "meta/tasks"
      )
  return texts


def episode_task(
  row: Mapping[str, Any],
  columns: Mapping[str, np.ndarray],
  tasks: Mapping[int, str],
  notes: list[str],
) -> str | list[str]:
  """The instruction of an episode, or a list with one per frame when it changes.

  Args:
    row: of meta/episodes.
    columns: of the data table; "task_index" is used.
    tasks: from `read_tasks`.
    notes: receives remarks.
  """
  listed = listed_instructions(row, tasks, notes)
  fallback = listed[0] if listed else ""
  if "task_index" not in columns:
    if len(listed) > 1:
      notes.append(
        f"{len(listed)} instructions and no column 'task_index' that says where they change: "
        f"{fallback!r} is used"
      )
    return fallback
  task_indices = columns["task_index"]
  for index, count in sorted(collections.Counter(task_indices.tolist()).items()):
    if index not in tasks:
      notes.append(f"task_index {index} of {count} rows is not in meta/tasks: {fallback!r} is used")
    elif listed and tasks[index] not in listed:
      notes.append(
        f"task_index {index} of {count} rows is {tasks[index]!r} in meta/tasks and used, "
        f"meta/episodes lists {fallback!r}"
      )
  texts = [tasks.get(index, fallback) for index in task_indices.tolist()]
  return texts[0] if len(set(texts)) == 1 else texts


def _lines(path: str, skipped: list[dict[str, str]]) -> list[dict]:
  rows, remark = lerobot_json.read_json_lines(path)
  if remark:
    skipped.append({"name": f"meta/{os.path.basename(path)}", "reason": remark})
  return rows


def to_whole_number(value: Any) -> int | None:
  """The value as int if it is a whole number, possibly stored as floating point; else None."""
  if (
    isinstance(value, bool)
    or not isinstance(value, (int, float))
    or not math.isfinite(value)
    or value != int(value)
  ):
    return None
  return int(value)


def to_seconds(value: Any) -> float | None:
  """The value as a time in a file; None for anything else, like NaN of a missing column."""
  return (
    float(value)
    if isinstance(value, (int, float)) and math.isfinite(value) and value >= 0
    else None
  )


def read_episodes(root: str, v3: bool, skipped: list[dict[str, str]]) -> list[dict]:
  """Reads one row per episode, sorted by episode_index; "length" is a whole number or None.

  Two rows of one episode that disagree become one row; its "twice" says how they differ.

  Raises:
    errors.UserError: there is no episode, or the tables are damaged.
  """
  if v3:
    name, rows = "meta/episodes", _episode_rows(os.path.join(root, "meta"))
  else:
    name = "meta/episodes.jsonl"
    rows = _lines(os.path.join(root, "meta", "episodes.jsonl"), skipped)
  episodes: dict[int, dict] = {}
  for i, row in enumerate(rows):
    row = _checked_row(row, i, os.path.join(root, name))
    episode_index = row["episode_index"]
    if episode_index not in episodes:
      episodes[episode_index] = row
      continue
    before = episodes[episode_index]
    differing = [key for key in {**before, **row} if repr(before.get(key)) != repr(row.get(key))]
    differing = [key for key in differing if key != "twice" and not key.startswith("meta/")]
    if differing:
      key = differing[0]
      before["twice"] = (
        f"listed twice in {name}, with {key} = {before.get(key)!r} and {row.get(key)!r}"
      )
    else:
      skipped.append(
        {"name": name, "reason": f"episode {episode_index} is listed twice: used once"}
      )
  if not episodes:
    raise errors.UserError(f"{root}: the LeRobot data set lists no episode in {name}")
  return [episodes[episode_index] for episode_index in sorted(episodes)]


def _episode_rows(folder: str) -> list[dict]:
  """The rows of all parquet files of meta/episodes. Raises `errors.UserError`.

  Args:
    folder: meta/ of the data set.
  """
  files = sorted(
    glob.glob(os.path.join(glob.escape(folder), "episodes", "**", "*.parquet"), recursive=True)
  )
  files = [file for file in files if not os.path.basename(file).startswith(".")]
  if not files:
    raise errors.UserError(
      f"{folder}/episodes holds no parquet file: the LeRobot data set is incomplete"
    )
  parts = [tables.to_values(tables.read_table(file, leave_out="stats/"), file) for file in files]
  return [row for part in parts for row in part]


def _checked_row(row: Mapping[str, Any], i: int, where: str) -> dict[str, Any]:
  """A row of the episodes with whole numbers as "episode_index" and "length" (or None).

  Args:
    row: as it was read.
    i: its number.
    where: path of the table, for messages.

  Raises:
    errors.UserError: one of them is not a whole number.
  """
  episode_index, length = to_whole_number(row.get("episode_index")), row.get("length")
  if episode_index is None or episode_index < 0:
    value = row.get("episode_index")
    raise errors.UserError(
      f"{where}: episode_index = {value!r} in row {i}, expected a whole number"
    )
  first, last = (to_whole_number(row.get(f"dataset_{name}_index")) for name in ("from", "to"))
  row = {**row, "episode_index": episode_index, "length": to_whole_number(length)}
  if (
    length is not None
    and row["length"] is None
    and not (isinstance(length, float) and math.isnan(length))
  ):
    raise errors.UserError(
      f"{where}: length = {length!r} of episode {episode_index}, expected a whole number"
    )
  if row["length"] is None and first is not None and last is not None:
    row["length"] = last - first
  return row


def wrong_totals(
  info: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
  """Entries for `skipped` when info.json and meta/episodes count episodes or frames differently."""
  counts = {"total_episodes": len(rows)}
  if all(row["length"] is not None for row in rows):
    counts["total_frames"] = sum(row["length"] for row in rows)
  wrong = [
    f"{key} = {info[key]!r}, meta/episodes lists {count}"
    for key, count in counts.items()
    if info.get(key) is not None and to_whole_number(info[key]) != count
  ]
  return [{"name": layout.INFO, "reason": text} for text in wrong]


def group(row: Mapping[str, Any], task: str) -> str:
  """The group of an episode: episodes of one group show the same motion; "" = no group.

  The column "group" names it. The column "motion" of como_jax's own collector counts the motions of
  each task, which are filmed in several scenes.
  """
  for name, prefix in (("group", ""), ("motion", f"{task}/")):
    value = row.get(name)
    # value == value: not NaN, which merged tables hold where a column was missing.
    if value not in (None, "") and value == value:
      return f"{prefix}{value}"
  return ""
