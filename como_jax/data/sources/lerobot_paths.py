"""Paths of the files of a LeRobot data set, and the parts of shared video files."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from como_jax import errors
from como_jax.data import video
from como_jax.data.sources import lerobot_features as layout
from como_jax.data.sources import lerobot_meta as meta


def check_root(root: str) -> None:
  """Raises `errors.UserError` when parquet files cannot be opened because of the folder's path."""
  try:
    os.path.abspath(root).encode()
  except UnicodeEncodeError as error:
    raise errors.UserError(
      f"{video.printable(root)}: the path of the LeRobot data set is not UTF-8, by which its "
      "tables are opened: rename the folder"
    ) from error


# The part of a video file of one episode: its start and end in seconds (None = not known), and the
# row of meta/episodes.
_Part = tuple[float, float | None, Mapping[str, Any]]


class Paths:
  """Paths of the files of the episodes, from the templates of meta/info.json."""

  def __init__(self, root: str, info: Mapping[str, Any]):
    self._root, self._v3, self._chunk = root, info["major"] == 3, info["chunks_size"]
    self._data, self._video, self._fps = info["data_path"], info.get("video_path"), info["fps"]

  def data(self, row: Mapping[str, Any]) -> str:
    """Path of the parquet file of an episode. Raises `video.UnreadableError`."""
    return os.path.join(self._root, self._relative(self._data, row, "data"))

  def video(self, row: Mapping[str, Any], key: str) -> str:
    """Path of the video file of a camera. Raises `video.UnreadableError`."""
    if not self._video:
      raise video.UnreadableError(f"{layout.INFO} has no video_path for the camera {key!r}")
    return os.path.join(self._root, self._relative(self._video, row, f"videos/{key}", key))

  def _relative(self, template: str, row: Mapping[str, Any], prefix: str, key: str = "") -> str:
    episode_index = row["episode_index"]
    values = {
      "episode_index": episode_index,
      "episode_chunk": episode_index // self._chunk,
      "video_key": key,
    }
    for name in ("chunk_index", "file_index"):
      if f"{{{name}" in template:
        values[name] = meta.to_whole_number(row.get(f"{prefix}/{name}"))
        if values[name] is None:
          raise video.UnreadableError(
            f"column '{prefix}/{name}' of meta/episodes is {row.get(f'{prefix}/{name}')!r}, "
            "expected a whole number"
          )
    try:
      path = template.format(**values)
    except (KeyError, IndexError, ValueError) as error:
      raise video.UnreadableError(
        f"the path template {template!r} cannot be filled ({error})"
      ) from error
    if os.path.isabs(path) or ".." in path.split("/"):
      raise video.UnreadableError(f"the path {path!r} leads out of the data set")
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
        if meta.to_seconds(value) is None:
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
        except video.UnreadableError:  # reported when the episode is read
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

    They are (start, end, followed, file_rows, file_end, file_before) of `lerobot_clock.Stretch`.
    Episodes that use the same part of a file are added to `damaged`.
    """
    parts_of_episodes: dict[
      tuple[str, int], tuple[float, float | None, bool, int, float, int | None]
    ] = {}
    for (key, path), parts in self._files_of_parts(rows, keys, damaged).items():
      parts.sort(key=lambda part: (part[0], part[2]["episode_index"]))
      ends = [
        start + (row["length"] or 1) / self._fps if end is None else end
        for start, end, row in parts
      ]
      lengths = [row["length"] or 0 for *_, row in parts]
      count = sum(lengths) if all(lengths) else 0
      spans = [
        round((end - start) * self._fps) for end, (start, *_) in zip(ends, parts, strict=True)
      ]
      agree = count > 0 and spans == lengths
      self._check_parts(key, path, parts, ends, damaged)
      for i, (start, end, row) in enumerate(parts):
        following = parts[i + 1][0] if i + 1 < len(parts) else None
        stop = end if end is not None and (following is None or end < following) else following
        before = sum(lengths[:i]) if agree else None
        parts_of_episodes[key, row["episode_index"]] = (
          start,
          stop,
          following is not None,
          count,
          max(ends),
          before,
        )
    return parts_of_episodes

  def _files_of_parts(
    self, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], damaged: Mapping[int, str]
  ) -> dict[tuple[str, str], list[_Part]]:
    """The parts of each shared video file, by (camera, path); damaged episodes are left out."""
    files: dict[tuple[str, str], list[_Part]] = {}
    for row in rows if self._v3 else ():
      for key in keys:
        try:
          path = self._relative(self._video or "", row, f"videos/{key}", key)
        except video.UnreadableError:  # reported when the episode is read
          continue
        if row["episode_index"] not in damaged:
          start = meta.to_seconds(row.get(f"videos/{key}/from_timestamp"))
          end = meta.to_seconds(row.get(f"videos/{key}/to_timestamp"))
          if start is not None:  # otherwise the episode is damaged, see `check`
            files.setdefault((key, path), []).append((start, end, row))
    return files

  def _check_parts(
    self,
    key: str,
    path: str,
    parts: Sequence[_Part],
    ends: Sequence[float],
    damaged: dict[int, str],
  ) -> None:
    """Adds the episodes to `damaged` whose parts of a file overlap or have no length.

    Args:
      key: feature of the camera.
      path: of the file, for messages.
      parts: of the file, in order of their begins.
      ends: end of each part in seconds.
      damaged: episode_index -> the reason.
    """
    columns = f"columns 'videos/{key}/from_timestamp' and 'to_timestamp' of meta/episodes"
    reach = 0  # index of the earlier part with the latest end
    for i, (start, _, row) in enumerate(parts):
      if i and start < ends[reach] - 0.5 / self._fps:
        earlier = parts[reach][2]["episode_index"]
        text = (
          f"{path}: seconds {parts[reach][0]:.3f} to {ends[reach]:.3f} of episode {earlier} "
          f"overlap {start:.3f} to {ends[i]:.3f} of episode {row['episode_index']} ({columns})"
        )
        damaged.setdefault(earlier, text)
        damaged.setdefault(row["episode_index"], text)
      if ends[i] <= start:
        text = f"{path}: the episode begins at {start:.3f} and ends at {ends[i]:.3f} s ({columns})"
        damaged.setdefault(row["episode_index"], text)
      reach = i if ends[i] >= ends[reach] else reach

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
        except video.UnreadableError:
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
