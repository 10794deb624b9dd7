"""Writes labels as columns of a LeRobot v3.0 data set.

The columns, for each camera, are

  latent_motion.<camera>             float32 [Z]: the motion from this frame to its partner, the
                                     frame nearest to the offset later
  latent_motion.<camera>.valid       bool: whether there is a partner and both frames could be read
  latent_motion.<camera>.difference  float32: the true time between the two in seconds, 0 where not
                                     valid

The file meta/latent_motion.json says which label set they are from. A v3.0 source is copied; its
videos do not change, so they are linked where the file system allows it. Rows that the labeled data
left out are not valid. Other data (videos, v2 data sets, como_jax shards) is written as a new data
set from the shards, at their image size. Each segment becomes one LeRobot episode, because a
LeRobot episode has one rate and no gaps. The segments of one episode get one group, so that they
stay on one side of a split. The statistics of z and of the difference are over valid rows only.

Legend: T frames of a segment, Z numbers of one latent motion.
"""

import fractions
import functools
import json
import os
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.data import (
  labels,
  lerobot_columns,
  lerobot_info,
  lerobot_writer,
  reader,
  shards,
  sources,
  times,
  video,
)

NOTE = "meta/latent_motion.json"  # names the label set; other programs ignore this file
VERSION = 2  # of the columns; version 1 had no column of differences
_SAME_RATE = 1e-6  # seconds; intervals of one rate differ by at most this


def check(output: str, *, source: str, shards_path: str, resume: bool) -> None:
  """Checks early whether `export` is possible.

  Args:
    output: folder to write. It may exist only when resuming.
    source: the data that was labeled.
    shards_path: its shards.
    resume: whether an export may already exist.

  Raises:
    errors.UserError: the folder exists, the source already has such columns, or its segments do not
      fit into one LeRobot data set.
  """
  if os.path.exists(output) and not (resume and os.path.isfile(os.path.join(output, NOTE))):
    raise errors.UserError(
      f"config.lerobot: {output} exists already: choose another path or delete it (nothing is "
      "overwritten)"
    )
  if not is_v3(source):
    one_rate(shards.segments(shards.read_table(shards_path)))
  elif existing := [
    name
    for name in lerobot_columns.read_info(source)["features"]
    if name.startswith(lerobot_columns.PREFIX)
  ]:
    raise errors.UserError(
      f"config.lerobot: {source} has the column {existing[0]!r} already: label the data set that "
      "it was made from"
    )


def is_v3(source: str) -> bool:
  """Whether a data path is a LeRobot v3.x data set."""
  if sources.detect(source) != "lerobot":
    return False
  return bool(
    re.match(r"v?3\.", str(lerobot_columns.read_info(source).get("codebase_version", "")))
  )


def one_rate(segments: shards.Segments) -> fractions.Fraction:
  """The frame rate of all segments, in frames per second.

  Raises:
    errors.UserError: the segments have several rates, or a rate varies.
  """
  table = segments.table
  interval, count = table.interval[segments.first_row], segments.count
  known = segments.uniform & (interval > 0)  # a single frame has no rate
  if not segments.uniform.all():
    row = segments.first_row[np.flatnonzero(~segments.uniform)[0]]
    raise errors.UserError(
      "config.lerobot: the time between the frames of episode "
      f"{table.episodes[table.episode[row]]!r} varies, a LeRobot data set has one rate: leave "
      "config.lerobot empty"
    )
  common = float(interval[known][count[known].argmax()]) if known.any() else 1.0
  whole = round(1 / common)
  candidates = [
    fractions.Fraction(whole),
    fractions.Fraction(whole * 1000, 1001),
    fractions.Fraction(1 / common).limit_denominator(1001),
  ]
  for rate in candidates:
    distance = np.abs(interval[known] - float(1 / rate)) if rate else np.full(1, np.inf)
    # Times that are rounded to milliseconds do not fit exactly.
    if ((distance <= _SAME_RATE) | (distance * count[known] <= times.SLACK)).all():
      return rate
  listed = ", ".join(f"{rate:g}" for rate in np.unique(np.round(1 / interval[known], 3)))
  raise errors.UserError(
    f"config.lerobot: the clips have {listed} frames a second, a LeRobot data set has one rate: "
    "export the folders of each rate by themselves, or leave config.lerobot empty"
  )


def export(labels_path: str, output: str, *, source: str, shards_path: str) -> str:
  """Writes the data set atomically. An existing data set with these labels is kept.

  Args:
    labels_path: a finished label set.
    output: as for `check`.
    source: as for `check`.
    shards_path: as for `check`.

  Returns:
    A line for the user that describes the data set.

  Raises:
    errors.UserError: the folder holds other labels, or the labels are not of this data.
  """
  motions = labels.Labels(labels_path)
  labels.check(labels_path, data_path=source)
  note = {
    "version": VERSION,
    "labels": os.path.abspath(labels_path),
    "fingerprint": labels.fingerprint(labels_path),
    **{key: motions.manifest[key] for key in ("size", "offset_seconds", "cameras", "model")},
  }
  target = pathlib.Path(output)
  if target.exists():
    before = json.loads((target / NOTE).read_text()) if (target / NOTE).is_file() else {}
    if before.get("fingerprint") != note["fingerprint"] or before.get("version") != VERSION:
      raise errors.UserError(
        f"config.lerobot: {output} holds other labels ({before.get('labels')}): choose another "
        "path or delete it"
      )
    return f"LeRobot data set with these labels: {output} is there already"
  part, fresh = (target.with_name(f".{target.name}.{kind}") for kind in ("part", "fresh"))
  segments, skipped = shards.segments(shards.read_table(shards_path)), []
  try:
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(fresh, ignore_errors=True)
    if is_v3(source):
      base, find, groups = pathlib.Path(source), _by_index(motions), _groups(segments.table)
    else:
      written, skipped = _write_anew(
        fresh, shards_path, segments, robot_type=_robot_type(source, shards_path)
      )
      base, find, groups = fresh, _by_segment(motions, segments, written), {}
    counts = lerobot_columns.copy(
      base, part, find, cameras=note["cameras"], size=motions.size, groups=groups
    )
    (part / NOTE).write_text(json.dumps(note, indent=2) + "\n")
    os.replace(part, target)
  finally:
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(fresh, ignore_errors=True)
  return _summary(target, source, counts, skipped)


def _summary(
  target: pathlib.Path, source: str, counts: Mapping[str, int], skipped: Sequence[str]
) -> str:
  """The line for the user about a data set that was written.

  Args:
    target: the data set.
    source: whose videos and images it shares.
    counts: of episodes, rows and valid motions.
    skipped: why segments were left out.
  """
  left_out_text = f", {len(skipped)} left out ({'; '.join(skipped[:3])})" if skipped else ""
  linked = sum(
    file.stat().st_nlink > 1
    for name in ("videos", "images")
    for file in (target / name).rglob("*")
    if file.is_file()
  )
  linked_text = (
    (
      f"; {linked} files of videos and images are those of {source} (hard links): what edits one "
      "in place edits both"
    )
    if linked
    else ""
  )
  return (
    f"LeRobot data set with labels: {counts['episodes']} episodes, {counts['rows']} rows, "
    f"{counts['valid']} motions{left_out_text} -> {target}{linked_text}"
  )


def _by_index(motions: labels.Labels) -> lerobot_columns.Find:
  """Returns a function of the episode index -> labels, for a LeRobot source.

  Row t of an episode is its frame t.
  """
  known = set(motions.episodes)

  @functools.lru_cache(maxsize=4)  # the rows of a file are sorted by episode
  def find(episode: int) -> labels.Motions:
    name = f"episode_{episode:06d}"
    if name not in known:
      return {}
    frames, result = motions.frame_numbers(name), {}
    for camera, motion in motions.episode(name).items():
      arrays = [motion.z, motion.valid, motion.difference]
      whole = [np.zeros((int(frames[-1]) + 1, *array.shape[1:]), array.dtype) for array in arrays]
      for target, array in zip(whole, arrays, strict=True):
        target[frames] = array
      result[camera] = labels.Motion(*whole)
    return result

  return find


def _by_segment(
  motions: labels.Labels, segments: shards.Segments, written: list[int]
) -> lerobot_columns.Find:
  """Returns a function of the episode index -> labels, for a data set written from segments.

  Args:
    motions: the label set.
    segments: of the shards.
    written: segment of each episode of the data set.
  """

  @functools.lru_cache(maxsize=4)
  def find(episode: int) -> labels.Motions:
    clips = [motions.clip(*segments.clip_location(row)) for row in segments.rows(written[episode])]
    return {
      camera: labels.Motion(
        *(np.concatenate(parts) for parts in zip(*(clip[camera] for clip in clips), strict=True))
      )
      for camera in clips[0]
    }

  return find


def _groups(table: shards.Table) -> dict[int, str]:
  """Episode index of a LeRobot source -> its group, "" = no group."""
  _, rows = np.unique(table.episode, return_index=True)
  names = {row: table.episodes[table.episode[row]] for row in rows}
  return {
    int(name.removeprefix("episode_")): table.groups[table.group[row]]
    for row, name in names.items()
    if re.fullmatch(r"episode_\d+", name)
  }


def _robot_type(source: str, shards_path: str) -> str:
  """The robot type of a LeRobot source, or of the source of the shards; "unknown" without one."""
  facts = (
    lerobot_columns.read_info(source)
    if sources.detect(source) == "lerobot"
    else shards.read_manifest(shards_path)["source"]
  )
  return str(facts.get("robot_type") or "unknown")


def _dimension_names(facts: Mapping[str, Any], key: str) -> list[str]:
  """Names of the dimensions of an array of the shards; [] without one of a single size.

  Args:
    facts: of the array, from the manifest.
    key: "state" or "action".
  """
  size = facts["size"]
  if not isinstance(size, int):
    return []
  return facts["names"] or [f"{key}_{i}" for i in range(size)]


def _write_anew(
  path: pathlib.Path, shards_path: str, segments: shards.Segments, *, robot_type: str
) -> tuple[list[int], list[str]]:
  """Writes a new data set with one episode per segment.

  Returns:
    (segment of each episode, reasons why other segments were left out).
  """
  manifest, table, source = (
    shards.read_manifest(shards_path),
    segments.table,
    reader.SegmentReader(shards_path, segments),
  )
  names = {key: _dimension_names(manifest[key], key) for key in ("state", "action")}
  order = np.lexsort((table.clip[segments.first_row], table.shard[segments.first_row]))
  segment_counts = np.bincount(table.episode[segments.first_row])
  sizes = {
    camera: source.frame_size(int(order[0]), camera, [0], to=(0, 0))[0] for camera in table.cameras
  }
  written, skipped = [], []
  with lerobot_writer.Writer(
    path,
    one_rate(segments),
    lerobot_info.Features(sizes, names["state"], names["action"]),
    robot_type=robot_type,
  ) as writer:
    for segment in order:
      rows, length = segments.rows(segment), segments.length(segment)
      episode = table.episodes[table.episode[rows[0]]]
      group = table.groups[table.group[rows[0]]] or (
        episode if segment_counts[table.episode[rows[0]]] > 1 else ""
      )
      try:
        frames = {camera: source.images(segment, camera, range(length)) for camera in table.cameras}
        vectors = {
          key: source.read_array(segment, key, 0, length) if names[key] else None for key in names
        }
      except video.UnreadableError as error:
        skipped.append(f"{episode}: {error}")
        continue
      if missing := [key for key in names if names[key] and vectors[key] is None]:
        skipped.append(f"{episode}: it has no {missing[0]}, other episodes have")
        continue
      writer.add_episode(
        [table.tasks[table.task[row]] for row in rows for _ in range(int(table.length[row]))],
        frames,
        metadata={"episode": episode, "first_frame": int(segments.start[segment]), "group": group},
        **vectors,
      )
      written.append(int(segment))
    writer.finalize()
  return written, skipped
