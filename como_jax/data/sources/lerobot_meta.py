"""Tables of a LeRobot data set's folder meta/ (episodes, instructions), and the files that the
episodes lie in.
"""

import glob
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from como_jax import errors
from como_jax.data import video
from como_jax.data.sources import lerobot_features as layout
from como_jax.data.sources import lerobot_tables as tables


def read_tasks(root: str, v3: bool, skipped: list[dict[str, str]]) -> dict[int, str]:
  """task_index -> instruction; empty where the data set has no table of them.

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
    chosen = _text_column(table.schema, path)
    if "task_index" not in table.column_names:
      raise errors.UserError(f"{path} has no column 'task_index'")
    numbers, texts = (tables.to_values(table.column(name), path) for name in ("task_index", chosen))
  else:
    rows = _lines(path, skipped)
    numbers, texts = [row.get("task_index") for row in rows], [row.get("task") for row in rows]
  tasks: dict[int, str] = {}
  for number, value in zip(numbers, texts, strict=True):
    index, text = whole(number), instruction(value)
    if index is None or text is None:
      raise errors.UserError(
        f"{path}: task_index = {number!r}, task = {value!r}, expected a whole number and text"
      )
    if tasks.setdefault(index, text) != text:
      raise errors.UserError(
        f"{path}: task_index {index} is listed twice, as {tasks[index]!r} and as {text!r}"
      )
  return tasks


def _text_column(schema: pa.Schema, path: str) -> str:
  """The column of instructions: of the usual names, else the only one of text.

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
    what = (
      f"several columns of text, none named 'task': {', '.join(texts)}"
      if texts
      else "no column of instructions"
    )
    raise errors.UserError(f"{path} has {what}")
  return (usual or texts)[0]


def instruction(value: Any) -> str | None:
  """An instruction as it may be written: text, or a list of one; None for anything else.

  Halves of characters, as JSON
  may hold them, are replaced: no other file can.
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
  """The instructions of an episode by its row of meta/episodes: column 'tasks' or 'task' holds
  texts or numbers.
  """
  name = "task" if row.get("tasks") is None else "tasks"
  values = row.get(name)
  values = list(values) if isinstance(values, (list, tuple)) else [values]
  found = []
  for value in values:
    text = tasks.get(whole(value)) if instruction(value) is None else instruction(value)
    if text is not None:
      found.append(text)
    elif value is not None and value == value:
      # not NaN, which merged tables hold where a column was missing
      notes.append(
        f"column {name!r} of meta/episodes lists {value!r}, which is neither text nor a number of "
        "meta/tasks"
      )
  return found


def _lines(path: str, skipped: list[dict[str, str]]) -> list[dict]:
  rows, remark = tables.read_json_lines(path)
  if remark:
    skipped.append({"name": f"meta/{os.path.basename(path)}", "reason": remark})
  return rows


def whole(value: Any) -> int | None:
  """A whole number that may be stored as floating point; None for anything else."""
  if (
    isinstance(value, bool)
    or not isinstance(value, (int, float))
    or not math.isfinite(value)
    or value != int(value)
  ):
    return None
  return int(value)


def seconds(value: Any) -> float | None:
  """A time in a file; None for anything else, as merged tables hold where a column was missing."""
  return (
    float(value)
    if isinstance(value, (int, float)) and math.isfinite(value) and value >= 0
    else None
  )


def read_episodes(root: str, v3: bool, skipped: list[dict[str, str]]) -> list[dict]:
  """A row an episode, by episode_index, each once; "length" is a whole number or None.

  Two rows of one episode that disagree are one row whose "twice" says about what.

  Raises:
    errors.UserError: there is none, or the tables are damaged.
  """
  folder = os.path.join(root, "meta")
  if v3:
    files = sorted(
      glob.glob(os.path.join(glob.escape(folder), "episodes", "**", "*.parquet"), recursive=True)
    )
    files = [file for file in files if not os.path.basename(file).startswith(".")]
    if not files:
      raise errors.UserError(
        f"{folder}/episodes holds no parquet file: the LeRobot data set is incomplete"
      )
    parts = [tables.to_values(tables.read_table(file, leave_out="stats/"), file) for file in files]
    name, rows = "meta/episodes", [row for part in parts for row in part]
  else:
    name, rows = "meta/episodes.jsonl", _lines(os.path.join(folder, "episodes.jsonl"), skipped)
  found: dict[int, dict] = {}
  where = os.path.join(root, name)
  for i, row in enumerate(rows):
    number, length = whole(row.get("episode_index")), row.get("length")
    if number is None or number < 0:
      value = row.get("episode_index")
      raise errors.UserError(
        f"{where}: episode_index = {value!r} in row {i}, expected a whole number"
      )
    first, last = (whole(row.get(f"dataset_{name}_index")) for name in ("from", "to"))
    row = {**row, "episode_index": number, "length": whole(length)}
    if (
      length is not None
      and row["length"] is None
      and not (isinstance(length, float) and math.isnan(length))
    ):
      raise errors.UserError(
        f"{where}: length = {length!r} of episode {number}, expected a whole number"
      )
    if row["length"] is None and first is not None and last is not None:
      row["length"] = last - first
    if number not in found:
      found[number] = row
      continue
    before = found[number]
    differing = [key for key in {**before, **row} if repr(before.get(key)) != repr(row.get(key))]
    differing = [key for key in differing if key != "twice" and not key.startswith("meta/")]
    if differing:
      key = differing[0]
      before["twice"] = (
        f"listed twice in {name}, with {key} = {before.get(key)!r} and {row.get(key)!r}"
      )
    else:
      skipped.append({"name": name, "reason": f"episode {number} is listed twice: used once"})
  if not found:
    raise errors.UserError(f"{root}: the LeRobot data set lists no episode in {name}")
  return [found[number] for number in sorted(found)]


def check_root(root: str) -> None:
  """Raises `errors.UserError` where parquet files cannot be opened by the path of the data set."""
  try:
    os.path.abspath(root).encode()
  except UnicodeEncodeError as error:
    raise errors.UserError(
      f"{video.printable(root)}: the path of the LeRobot data set is not UTF-8, by which its "
      "tables are opened: rename the folder"
    ) from error


def wrong_totals(
  info: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
  """Where info.json counts other numbers of episodes and frames than the episodes' table: parts may
  be lost.
  """
  counts = {"total_episodes": len(rows)}
  if all(row["length"] is not None for row in rows):
    counts["total_frames"] = sum(row["length"] for row in rows)
  wrong = [
    f"{key} = {info[key]!r}, meta/episodes lists {count}"
    for key, count in counts.items()
    if info.get(key) is not None and whole(info[key]) != count
  ]
  return [{"name": layout.INFO, "reason": text} for text in wrong]


def group(row: Mapping[str, Any], task: str) -> str:
  """Episodes of one group show the same motion; "" = alone.

  The column "group" names it. Our collector's column "motion" counts the motions of each task,
  filmed in several scenes.
  """
  for name, prefix in (("group", ""), ("motion", f"{task}/")):
    value = row.get(name)
    # not NaN, which merged tables hold where a column was missing
    if value not in (None, "") and value == value:
      return f"{prefix}{value}"
  return ""


class Paths:
  """Where the episodes lie, by the templates of meta/info.json."""

  def __init__(self, root: str, info: Mapping[str, Any]):
    self._root, self._v3, self._chunk = root, info["major"] == 3, info["chunks_size"]
    self._data, self._video, self._fps = info["data_path"], info.get("video_path"), info["fps"]

  def data(self, row: Mapping[str, Any]) -> str:
    """Path of the parquet file. Raises `video.Unreadable`, as `video` does."""
    return os.path.join(self._root, self._relative(self._data, row, "data"))

  def video(self, row: Mapping[str, Any], key: str) -> str:
    if not self._video:
      raise video.Unreadable(f"{layout.INFO} has no video_path for the camera {key!r}")
    return os.path.join(self._root, self._relative(self._video, row, f"videos/{key}", key))

  def _relative(self, template: str, row: Mapping[str, Any], prefix: str, key: str = "") -> str:
    number = row["episode_index"]
    values = {"episode_index": number, "episode_chunk": number // self._chunk, "video_key": key}
    for name in ("chunk_index", "file_index"):
      if f"{{{name}" in template:
        values[name] = whole(row.get(f"{prefix}/{name}"))
        if values[name] is None:
          raise video.Unreadable(
            f"column '{prefix}/{name}' of meta/episodes is {row.get(f'{prefix}/{name}')!r}, "
            "expected a whole number"
          )
    try:
      path = template.format(**values)
    except (KeyError, IndexError, ValueError) as error:
      raise video.Unreadable(
        f"the path template {template!r} cannot be filled ({error})"
      ) from error
    if os.path.isabs(path) or ".." in path.split("/"):
      raise video.Unreadable(f"the path {path!r} leads out of the data set")
    return path

  def check(self, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[int, str]:
    """episode_index -> why an episode cannot be placed, of those that cannot.

    Raises:
      errors.UserError: a column that all episodes need is missing.
    """
    if self._v3:
      have = sorted({name for row in rows for name in row})
      needed = [
        f"data/{name}" for name in ("chunk_index", "file_index") if f"{{{name}" in self._data
      ]
      needed += [
        f"videos/{key}/{name}"
        for key in keys
        for name in ("chunk_index", "file_index", "from_timestamp")
        if name == "from_timestamp" or f"{{{name}" in (self._video or "")
      ]
      for name in needed:
        if name not in have:
          alike = [other for other in have if other.rsplit("/", 1)[-1] == name.rsplit("/", 1)[-1]]
          raise errors.UserError(
            f"{os.path.join(self._root, 'meta', 'episodes')} has no column '{name}', "
            f"only {', '.join(alike) or 'none like it'}; source option camera_keys leaves a "
            "camera out"
          )
    self._check_distinct(rows, keys)
    damaged = {row["episode_index"]: row["twice"] for row in rows if row.get("twice")}
    for row in rows if self._v3 else ():
      for key in keys:
        value = row.get(f"videos/{key}/from_timestamp")
        if seconds(value) is None:
          text = (
            f"column 'videos/{key}/from_timestamp' of meta/episodes is {value!r}, expected seconds"
          )
          damaged.setdefault(row["episode_index"], text)
    return damaged

  def _check_distinct(self, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """Raises `errors.UserError` where a template gives a file to two cameras, or, other than in v3,
    to two episodes.
    """
    users: dict[str, tuple[Any, str]] = {}
    for row in rows:
      for name, template, prefix, key in (
        ("data_path", self._data, "data", ""),
        *(("video_path", self._video or "", f"videos/{key}", key) for key in keys),
      ):
        try:
          path = self._relative(template, row, prefix, key)
        except video.Unreadable:  # it says so when it is read
          continue
        user = (None if self._v3 else row["episode_index"], key)
        before = users.setdefault(path, user) if template else user
        if before != user:
          what = (
            "the cameras {0[1]!r} and {1[1]!r}"
            if before[1] != key
            else "the episodes {0[0]} and {1[0]}"
          )
          part = "video_key" if before[1] != key else "episode_index"
          raise errors.UserError(
            f"{os.path.join(self._root, layout.INFO)}: {name} = {template!r} gives {path} to "
            f"{what.format(before, user)}: the part {{{part}}} is missing"
          )

  def stretches(
    self, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], damaged: dict[int, str]
  ) -> dict[tuple[str, int], tuple[float, float | None, bool, int, float, int | None]]:
    """(camera, episode_index) -> (begin, end, followed, file_rows, file_end, file_before) of v3, as
    in `lerobot_clock.Stretch`.

    Episodes that claim the same part of a file are added to `damaged`.
    """
    files: dict[tuple[str, str], list] = {}
    for row in rows if self._v3 else ():
      for key in keys:
        try:
          path = self._relative(self._video or "", row, f"videos/{key}", key)
        except video.Unreadable:  # it says so when it is read
          continue
        if row["episode_index"] not in damaged:
          begin, end = (
            seconds(row.get(f"videos/{key}/{name}")) for name in ("from_timestamp", "to_timestamp")
          )
          files.setdefault((key, path), []).append((begin, end, row))
    found: dict[tuple[str, int], tuple[float, float | None, bool, int, float, int | None]] = {}
    for (key, path), parts in files.items():
      parts.sort(key=lambda part: (part[0], part[2]["episode_index"]))
      ends = [
        begin + (row["length"] or 1) / self._fps if end is None else end
        for begin, end, row in parts
      ]
      latest = int(np.argmax(ends))
      lengths = [row["length"] or 0 for *_, row in parts]
      count = sum(lengths) if all(lengths) else 0
      spans = [
        round((end - begin) * self._fps) for end, (begin, *_) in zip(ends, parts, strict=True)
      ]
      agree = count > 0 and spans == lengths
      columns = f"columns 'videos/{key}/from_timestamp' and 'to_timestamp' of meta/episodes"
      reach = 0  # the part before that ends last
      for i, (begin, end, row) in enumerate(parts):
        if i and begin < ends[reach] - 0.5 / self._fps:
          other = parts[reach][2]["episode_index"]
          text = (
            f"{path}: seconds {parts[reach][0]:.3f} to {ends[reach]:.3f} of episode {other} "
            f"overlap {begin:.3f} to {ends[i]:.3f} of episode {row['episode_index']} ({columns})"
          )
          damaged.setdefault(other, text)
          damaged.setdefault(row["episode_index"], text)
        if ends[i] <= begin:
          text = (
            f"{path}: the episode begins at {begin:.3f} and ends at {ends[i]:.3f} s ({columns})"
          )
          damaged.setdefault(row["episode_index"], text)
        following = parts[i + 1][0] if i + 1 < len(parts) else None
        stop = end if end is not None and (following is None or end < following) else following
        before = sum(lengths[:i]) if agree else None
        found[key, row["episode_index"]] = (
          begin,
          stop,
          following is not None,
          count,
          ends[latest],
          before,
        )
        reach = i if ends[i] >= ends[reach] else reach
    return found

  def unused(
    self, files: Iterable[str], rows: Sequence[Mapping[str, Any]], features: Mapping[str, dict]
  ) -> list[dict[str, str]]:
    """An entry for each file below data/ and videos/ that no episode uses; many of a folder in one
    entry.
    """
    used, places = set(), [(self._data, "data", "")]
    if self._video:
      filmed = [key for key, feature in features.items() if feature.get("dtype") == "video"]
      places += [(self._video, f"videos/{key}", key) for key in filmed]
    for row in rows:
      for template, prefix, key in places:
        try:
          used.add(self._relative(template, row, prefix, key))
        except video.Unreadable:
          continue
    folders: dict[str, list[str]] = {}
    for name in files:
      if name not in used and name.split("/")[0] in ("data", "videos"):
        folders.setdefault(os.path.dirname(name), []).append(name)
    entries = []
    for folder, names in folders.items():
      name, reason = names[0], "no episode of meta/episodes uses it"
      if len(names) > 1:
        some = ", ".join(os.path.basename(name) for name in names[:3]) + (
          ", ..." if len(names) > 3 else ""
        )
        name, reason = folder, f"{len(names)} files that no episode of meta/episodes uses: {some}"
      entries.append({"name": video.printable(name), "reason": video.printable(reason)})
    return entries


def list_files(root: str, info: Mapping[str, Any]) -> list[str]:
  """Files of the data set, relative, "/"-separated and sorted, without hidden ones; each real
  folder is walked once.

  Pictures in images/ belong to it only where a camera is read from images: recorders leave them
  behind after encoding the videos.
  """
  parts = {"meta", "data", "videos"}
  parts |= {info[key].split("/")[0] for key in ("data_path", "video_path") if info.get(key)}
  if any(feature.get("dtype") == "image" for feature in info["features"].values()):
    parts.add("images")
  found, seen = [], {os.path.realpath(root)}
  for part in sorted(parts):
    for folder, children, names in os.walk(os.path.join(root, part), followlinks=True):
      real = os.path.realpath(folder)
      children[:] = (
        [] if real in seen else sorted(child for child in children if not child.startswith("."))
      )
      if real not in seen:
        relative = os.path.relpath(folder, root).replace(os.sep, "/")
        names = [
          name
          for name in names
          if not name.startswith(".") and os.path.isfile(os.path.join(folder, name))
        ]
        found += [f"{relative}/{name}" for name in names]
      seen.add(real)
  return sorted(found)
