"""Which windows a data set offers, enumerated once from records.parquet; and its split into training and validation
episodes.

A window is K frames of one clip at stride n: frames t, t+n, ..., t+(K-1)n. n comes from an offset in seconds and each
clip's own frame rate. The list is never written out: one row for each (clip, camera) and a running count are enough to
find window i.
"""

import dataclasses
import math
import warnings

import numpy as np

from como_jax import errors
from como_jax.data.sources import shards

SPLITS = ("train", "validation", "all")


@dataclasses.dataclass(frozen=True)
class Window:
  """One sample's place: row of the record table, camera id, first frame within the clip, stride, number of frames in
  the clip."""

  row: int
  camera: int
  t: int
  stride: int
  length: int


@dataclasses.dataclass(frozen=True)
class Windows:
  """All windows of a data set, in order of record, camera, time.

  Attributes (M = groups, one for each clip and camera with at least one window):
    frames: K.
    row, camera, stride, first, length, end: [M]; `first` is the first t, `end` the running count of windows.
    clips_without: clips too short for any window. lost: windows of an episode that would cross a border between its
      clips.
  """

  frames: int
  row: np.ndarray
  camera: np.ndarray
  stride: np.ndarray
  first: np.ndarray
  length: np.ndarray
  end: np.ndarray
  clips_without: int
  lost: int

  def __len__(self) -> int:
    return int(self.end[-1])

  def __getitem__(self, i: int) -> Window:
    if not 0 <= i < len(self):
      raise IndexError(i)
    group = int(np.searchsorted(self.end, i, side="right"))
    before = int(self.end[group - 1]) if group else 0
    return Window(
      int(self.row[group]),
      int(self.camera[group]),
      int(self.first[group]) + int(i) - before,
      int(self.stride[group]),
      int(self.length[group]),
    )


def strides(fps: np.ndarray, offset_seconds: float) -> np.ndarray:
  """n = max(1, round(offset * fps)), int64."""
  return np.maximum(1, np.rint(np.asarray(fps, np.float64) * offset_seconds)).astype(np.int64)


def camera_names(table: shards.Table) -> tuple[str, ...]:
  """All cameras of the records, sorted."""
  return tuple(sorted({name for names in table.cameras for name in names}))


def windows(
  table: shards.Table,
  *,
  frames: int,
  offset_seconds: float,
  keep: np.ndarray | None = None,
  cameras: tuple[str, ...] = (),
  name: str = "data set",
  warn: bool = True,
) -> Windows:
  """Enumerates the windows.

  Args:
    table: the records.
    frames: K; with 1 every frame is a window.
    offset_seconds: seconds between the frames of a window.
    keep: bool [records], None = all.
    cameras: names to use, empty = all. Ids are positions in `camera_names(table)`.
    name: the data set in messages.
    warn: whether to warn about clips without a window and about windows lost between clips.

  Raises:
    errors.UserError: unknown camera, bad offset, or no window fits.
  """
  known = camera_names(table)
  for camera in cameras:
    if camera not in known:
      raise errors.UserError(f"{name}: camera {camera!r} does not exist: {errors.nearest(camera, known)}")
  if frames < 1 or not offset_seconds > 0:
    raise errors.UserError(
      f"{name}: a window needs at least 1 frame and a positive offset (got {frames}, {offset_seconds} s)"
    )
  rows = np.flatnonzero(np.ones(len(table), bool) if keep is None else keep)
  if not len(rows):
    raise errors.UserError(f"{name}: no episode in this split (validation needs at least 2 episodes)")
  stride = strides(table.fps[rows], offset_seconds)
  span = (frames - 1) * stride + 1
  length = table.length[rows].astype(np.int64)
  first, lost = _overlap(table, rows, span)
  count = np.maximum(length - span + 1 - first, 0)
  if not count.any():
    longest = int(length.argmax())
    raise errors.UserError(
      f"{name}: no window fits: {frames} frames {stride[longest]} apart ({offset_seconds} s at "
      f"{table.fps[rows][longest]:g} frames a second) need {span[longest]} frames, the longest clip has "
      f"{length[longest]}. Lower the offset"
    )
  without = int(np.sum(length < span))
  if without and warn:
    warnings.warn(
      f"{name}: {without} of {len(rows)} clips are shorter than the window ({frames} frames, {offset_seconds} s apart) "
      "and are not used",
      stacklevel=2,
    )
  if warn and lost > 0.25 * (count.sum() + lost):
    warnings.warn(
      f"{name}: {lost} of {count.sum() + lost} windows cross a border between clips and are lost: "
      "ingest with a clip_overlap of (K - 1) * offset frames or longer clips",
      stacklevel=2,
    )
  has = {names: np.isin(known, names) & (np.isin(known, cameras) | (not cameras)) for names in set(table.cameras)}
  usable = np.stack([has[table.cameras[row]] for row in rows]) & (count > 0)[:, None]
  position, camera = np.nonzero(usable)
  if not len(position):
    raise errors.UserError(f"{name}: no clip long enough has the cameras {', '.join(cameras)}")
  return Windows(
    frames,
    rows[position],
    camera,
    stride[position],
    first[position],
    length[position],
    np.cumsum(count[position]),
    without,
    lost,
  )


def _overlap(table: shards.Table, rows: np.ndarray, span: np.ndarray) -> tuple[np.ndarray, int]:
  """(first t of each clip whose window is not already wholly inside the clip before it, windows lost between clips)."""
  ids = np.unique(table.episode[rows].astype(str), return_inverse=True)[1]
  start, length = table.start[rows].astype(np.int64), table.length[rows].astype(np.int64)
  episode_end = np.zeros(ids.max() + 1, np.int64)
  np.maximum.at(episode_end, ids, start + length)
  order = np.lexsort((start, ids))
  a, b = order[:-1], order[1:]
  a, b = a[ids[a] == ids[b]], b[ids[a] == ids[b]]
  done = start[a] + length[a] - span[a] + 1  # the first window start (in the episode) that no longer fits in clip a
  first = np.zeros(len(rows), np.int64)
  first[b] = np.maximum(0, done - start[b])
  lost = np.minimum(start[b] - 1, episode_end[ids[b]] - span[b]) - np.maximum(done, start[a]) + 1
  return first, int(np.maximum(lost, 0).sum())


def split(table: shards.Table, fraction: float) -> np.ndarray:
  """Bool [records], True = validation. By split key (a hash of the episode, or of the group of episodes that show one
  motion), so cameras, clips and scenes of a motion stay together.

  Within each task the keys are ranked and the first ceil(fraction * n) validate. Tasks of a
  single episode (internet video: every caption differs) are pooled and treated as one task. A lone episode trains.
  """
  if not 0 <= fraction < 1:
    raise errors.UserError(f"validation_fraction is {fraction}, expected at least 0 and less than 1")
  if fraction == 0:
    return np.zeros(len(table), bool)
  tasks: dict[str | None, set[int]] = {}
  for task, key in zip(table.task, table.split_key, strict=True):
    tasks.setdefault(task, set()).add(int(key))
  several = [keys for keys in tasks.values() if len(keys) > 1]
  pool = set().union(*(keys for keys in tasks.values() if len(keys) == 1))
  chosen: set[int] = set()
  for keys in [*several, pool]:
    if len(keys) > 1:
      chosen.update(sorted(keys)[: min(math.ceil(fraction * len(keys)), len(keys) - 1)])
  return np.fromiter((int(key) in chosen for key in table.split_key), bool, len(table))


def select(table: shards.Table, which: str, fraction: float) -> np.ndarray:
  """Bool [records] of a split by name: "train", "validation" or "all"."""
  if which not in SPLITS:
    raise errors.UserError(f"unknown split {which!r}: {errors.nearest(which, SPLITS)}")
  if which == "all":
    return np.ones(len(table), bool)
  validation = split(table, fraction)
  return validation if which == "validation" else ~validation
