"""Reads the folder meta/ of a LeRobot data set: episodes, instructions, and paths of the files."""

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
    index, text = whole(task_index), instruction(value)
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
    text = tasks.get(whole(value)) if instruction(value) is None else instruction(value)
    if text is not None:
      texts.append(text)
    elif value is not None and value == value:
      # value == value: not NaN, which merged tables hold where a column was missing.
      notes.append(
        f"column {name!r} of meta/episodes lists {value!r}, which is neither text nor a number of "
        "meta/tasks"
      )
  return texts


def _lines(path: str, skipped: list[dict[str, str]]) -> list[dict]:
  rows, remark = tables.read_json_lines(path)
  if remark:
    skipped.append({"name": f"meta/{os.path.basename(path)}", "reason": remark})
  return rows


def whole(value: Any) -> int | None:
  """The value as int if it is a whole number, possibly stored as floating point; else None."""
  if (
    isinstance(value, bool)
    or not isinstance(value, (int, float))
    or not math.isfinite(value)
    or value != int(value)
  ):
    return None
  return int(value)


def seconds(value: Any) -> float | None:
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
  episodes: dict[int, dict] = {}
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
    if number not in episodes:
      episodes[number] = row
      continue
    before = episodes[number]
    differing = [key for key in {**before, **row} if repr(before.get(key)) != repr(row.get(key))]
    differing = [key for key in differing if key != "twice" and not key.startswith("meta/")]
    if differing:
      key = differing[0]
      before["twice"] = (
        f"listed twice in {name}, with {key} = {before.get(key)!r} and {row.get(key)!r}"
      )
    else:
      skipped.append({"name": name, "reason": f"episode {number} is listed twice: used once"})
  if not episodes:
    raise errors.UserError(f"{root}: the LeRobot data set lists no episode in {name}")
  return [episodes[number] for number in sorted(episodes)]


def check_root(root: str) -> None:
  """Raises `errors.UserError` when parquet files cannot be opened because of the folder's path."""
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
  """Entries for `skipped` when info.json and meta/episodes count episodes or frames differently."""
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


class Paths:
  """Paths of the files of the episodes, from the templates of meta/info.json."""

  def __init__(self, root: str, info: Mapping[str, Any]):
    self._root, self._v3, self._chunk = root, info["major"] == 3, info["chunks_size"]
    self._data, self._video, self._fps = info["data_path"], info.get("video_path"), info["fps"]

  def data(self, row: Mapping[str, Any]) -> str:
    """Path of the parquet file of an episode. Raises `video.Unreadable`."""
    return os.path.join(self._root, self._relative(self._data, row, "data"))

  def video(self, row: Mapping[str, Any], key: str) -> str:
    """Path of the video file of a camera. Raises `video.Unreadable`."""
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
    """The episodes without valid paths: episode_index -> the reason.

    Raises:
      errors.UserError: a column that all episodes need is missing.
    """
    if self._v3:
      known = sorted({name for row in rows for name in row})
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
        if name not in known:
          near = [field for field in known if field.rsplit("/", 1)[-1] == name.rsplit("/", 1)[-1]]
          raise errors.UserError(
            f"{os.path.join(self._root, 'meta', 'episodes')} has no column '{name}', "
            f"only {', '.join(near) or 'none like it'}; source option camera_keys leaves a "
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
    """Raises `errors.UserError` when a template gives two cameras, or two v2 episodes, one file."""
    users: dict[str, tuple[Any, str]] = {}
    for row in rows:
      for name, template, prefix, key in (
        ("data_path", self._data, "data", ""),
        *(("video_path", self._video or "", f"videos/{key}", key) for key in keys),
      ):
        try:
          path = self._relative(template, row, prefix, key)
        except video.Unreadable:  # reported when the episode is read
          continue
        user = (None if self._v3 else row["episode_index"], key)
        before = users.setdefault(path, user) if template else user
        if before != user:
          users_text = (
            "the cameras {0[1]!r} and {1[1]!r}"
            if before[1] != key
            else "the episodes {0[0]} and {1[0]}"
          )
          part = "video_key" if before[1] != key else "episode_index"
          raise errors.UserError(
            f"{os.path.join(self._root, layout.INFO)}: {name} = {template!r} gives {path} to "
            f"{users_text.format(before, user)}: the part {{{part}}} is missing"
          )

  def stretches(
    self, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], damaged: dict[int, str]
  ) -> dict[tuple[str, int], tuple[float, float | None, bool, int, float, int | None]]:
    """The parts of shared video files (v3), by (camera, episode_index).

    They are (begin, end, followed, file_rows, file_end, file_before) of `lerobot_clock.Stretch`.
    Episodes that use the same part of a file are added to `damaged`.
    """
    files: dict[tuple[str, str], list] = {}
    for row in rows if self._v3 else ():
      for key in keys:
        try:
          path = self._relative(self._video or "", row, f"videos/{key}", key)
        except video.Unreadable:  # reported when the episode is read
          continue
        if row["episode_index"] not in damaged:
          begin, end = (
            seconds(row.get(f"videos/{key}/{name}")) for name in ("from_timestamp", "to_timestamp")
          )
          files.setdefault((key, path), []).append((begin, end, row))
    parts_of_episodes: dict[
      tuple[str, int], tuple[float, float | None, bool, int, float, int | None]
    ] = {}
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
      reach = 0  # index of the earlier part with the latest end
      for i, (begin, end, row) in enumerate(parts):
        if i and begin < ends[reach] - 0.5 / self._fps:
          earlier = parts[reach][2]["episode_index"]
          text = (
            f"{path}: seconds {parts[reach][0]:.3f} to {ends[reach]:.3f} of episode {earlier} "
            f"overlap {begin:.3f} to {ends[i]:.3f} of episode {row['episode_index']} ({columns})"
          )
          damaged.setdefault(earlier, text)
          damaged.setdefault(row["episode_index"], text)
        if ends[i] <= begin:
          text = (
            f"{path}: the episode begins at {begin:.3f} and ends at {ends[i]:.3f} s ({columns})"
          )
          damaged.setdefault(row["episode_index"], text)
        following = parts[i + 1][0] if i + 1 < len(parts) else None
        stop = end if end is not None and (following is None or end < following) else following
        before = sum(lengths[:i]) if agree else None
        parts_of_episodes[key, row["episode_index"]] = (
          begin,
          stop,
          following is not None,
          count,
          ends[latest],
          before,
        )
        reach = i if ends[i] >= ends[reach] else reach
    return parts_of_episodes

  def unused(
    self, files: Iterable[str], rows: Sequence[Mapping[str, Any]], features: Mapping[str, dict]
  ) -> list[dict[str, str]]:
    """Entries for `skipped`: files below data/ and videos/ that no episode uses, by folder."""
    used, templates = set(), [(self._data, "data", "")]
    if self._video:
      video_keys = [key for key, feature in features.items() if feature.get("dtype") == "video"]
      templates += [(self._video, f"videos/{key}", key) for key in video_keys]
    for row in rows:
      for template, prefix, key in templates:
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
        examples = ", ".join(os.path.basename(name) for name in names[:3]) + (
          ", ..." if len(names) > 3 else ""
        )
        name, reason = (
          folder,
          f"{len(names)} files that no episode of meta/episodes uses: {examples}",
        )
      entries.append({"name": video.printable(name), "reason": video.printable(reason)})
    return entries


def list_files(root: str, info: Mapping[str, Any]) -> list[str]:
  """Lists the files of the data set: relative paths, "/"-separated, sorted, no hidden files.

  Each real folder is visited once. Pictures in images/ are listed only when a camera is read from
  images, because recorders keep them after they have encoded the videos.
  """
  parts = {"meta", "data", "videos"}
  parts |= {info[key].split("/")[0] for key in ("data_path", "video_path") if info.get(key)}
  if any(feature.get("dtype") == "image" for feature in info["features"].values()):
    parts.add("images")
  paths, seen = [], {os.path.realpath(root)}
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
        paths += [f"{relative}/{name}" for name in names]
      seen.add(real)
  return sorted(paths)
