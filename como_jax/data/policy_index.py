"""Which examples a data set offers to a policy: every frame of the selected episodes that has something to predict.

Legend: m frames of a policy step, n frames of a latent motion, K chunk of actions, M chunk of latent motions.
"""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np

from como_jax import errors
from como_jax.data import index, shards
from como_jax.data.times import FrameTimes

VIEWS = ("together", "each")


@dataclasses.dataclass(frozen=True)
class PolicySet:
  """One entry of a policy's mixture.

  Attributes:
    path: folder of como_jax shards.
    weight: share of the mixture, relative to the other entries.
    robot: whose actions and states these are; "" = video, they are not used.
    labels: folder of labels (`data.labels`) made from these shards, "" = no latent motion.
    cameras: names that fill the camera slots in order, "" leaves a slot empty; () = the first ones of the data set.
    views: "together" (one example a frame, a camera in each slot; the latent motion is that of the first slot that is
      labelled) or "each" (every camera is an example of its own, in slot 0).
    episodes: (first, last), last excluded: a range of the episodes of each task, see `select`; () = all.
    tasks: instructions of the episodes to use; () = all.
    name: for messages, the folder's name by default.
  """

  path: str
  weight: float = 1.0
  robot: str = ""
  labels: str = ""
  cameras: tuple[str, ...] = ()
  views: str = "together"
  episodes: tuple[int, ...] = ()
  tasks: tuple[str, ...] = ()
  name: str = ""

  @property
  def label(self) -> str:
    return self.name or os.path.basename(os.path.normpath(self.path))

  def check(self) -> "PolicySet":
    """Raises `errors.UserError` for a value out of range, or when nothing could be learnt from the entry."""
    if not self.weight > 0:
      raise errors.UserError(f"data set {self.label}: weight is {self.weight}, expected more than 0")
    if self.views not in VIEWS:
      raise errors.UserError(f"data set {self.label}: unknown views {self.views!r}: {errors.nearest(self.views, VIEWS)}")
    if not self.robot and not self.labels:
      raise errors.UserError(f"data set {self.label}: neither a robot nor labels are given, so there is nothing to learn from it")
    if self.episodes:
      whole = len(self.episodes) == 2 and all(isinstance(i, (int, np.integer)) for i in self.episodes)
      if not whole or not 0 <= self.episodes[0] < self.episodes[1]:
        raise errors.UserError(f"data set {self.label}: episodes are {tuple(self.episodes)}, expected (first, last) with 0 <= first < last")
    return self


@dataclasses.dataclass(frozen=True)
class Example:
  """One example's place: segment, camera id (-1 = all slots), frame within the segment."""

  segment: int
  camera: int
  t: int


@dataclasses.dataclass(frozen=True)
class Examples:
  """All examples of a data set, in order of segment, camera, time.

  Attributes (G = groups, one for each run of first frames of a segment and camera):
    segments: of the data set.
    segment, camera, first, end: [G]; `first` is the first t, `end` the running count of examples.
  """

  segments: shards.Segments
  segment: np.ndarray
  camera: np.ndarray
  first: np.ndarray
  end: np.ndarray

  def __len__(self) -> int:
    return int(self.end[-1]) if len(self.end) else 0

  def __getitem__(self, i: int) -> Example:
    if not 0 <= i < len(self):
      raise IndexError(i)
    group = int(np.searchsorted(self.end, i, side="right"))
    before = int(self.end[group - 1]) if group else 0
    return Example(int(self.segment[group]), int(self.camera[group]), int(self.first[group]) + int(i) - before)

  def runs(self) -> Iterator[tuple[int, int, int]]:
    """(segment, first, last (excluded)) of the frames that are examples, each once whatever its cameras."""
    count = np.diff(self.end, prepend=0)
    for segment, first, last in sorted({(int(s), int(t), int(t + n)) for s, t, n in zip(self.segment, self.first, count, strict=True)}):
      yield segment, first, last

  def rows(self) -> np.ndarray:
    """Rows of the table that hold an example, sorted."""
    found: set[int] = set()
    for segment, first, last in self.runs():
      found.update(range(self.segments.locate(segment, first)[0], self.segments.locate(segment, last - 1)[0] + 1))
    return np.array(sorted(found), np.int64)


def chunk_edges(times: FrameTimes, t: int, step_seconds: float, chunk: int) -> tuple[np.ndarray, np.ndarray]:
  """Where the elements of a chunk of actions begin and end.

  Args:
    times: of the segment.
    t: its first frame.
    step_seconds: of an element; 0 = one frame.
    chunk: K.

  Returns:
    (edges int64 [K+1]: element k covers the frames edges[k] to edges[k + 1] (exclusive); valid bool [K]: it begins in the segment).
  """
  if step_seconds == 0:
    edges = t + np.arange(chunk + 1)
    return np.minimum(edges, times.count), edges[:-1] < times.count
  later, near = times.partners(np.full(chunk, t), step_seconds, steps=np.arange(1, chunk + 1))
  beyond = times.at(t) + np.arange(1, chunk + 1) * step_seconds > times.at(times.count - 1) + times.interval / 2
  edges = np.concatenate([[t], np.where(beyond, times.count, later)])
  return edges, np.concatenate([[True], (near & ~beyond)[:-1]]) & (np.diff(edges) > 0)


def history_frames(times: FrameTimes, t: int, step_seconds: float, history: int) -> np.ndarray:
  """Frames [history] that end with t, `step_seconds` apart (0 = one frame); before the segment's first frame that one is repeated."""
  back = np.arange(history)[::-1]
  if step_seconds == 0:
    return np.maximum(t - back, 0)
  return np.minimum(times.nearest(times.at(t) - back * step_seconds)[0], t)


def select(table: shards.Table, *, split: str, fraction: float, episodes: tuple[int, ...] = (), tasks: tuple[str, ...] = (),
           name: str = "data set") -> np.ndarray:
  """Bool [records]: the records of a split, of some tasks, of a range of episodes within each task.

  The validation episodes are set aside first; the range counts the others of a task in their order of first appearance
  (split "all": all of them). Episodes of one group (the same motion in several scenes) count as one. Entries with
  different ranges of one data set so share their validation episodes, which no range reaches and no range narrows.

  Raises:
    errors.UserError: an instruction that no episode has.
  """
  for task in tasks:
    if task not in table.tasks:
      raise errors.UserError(f"{name}: no episode has the instruction {task!r}: {errors.nearest(task, table.tasks)}")
  keep = index.select(table, split, fraction)
  if tasks:
    keep = keep & np.isin(np.array(table.tasks, object), tasks)[table.task]
  if not episodes or split == "validation":
    return keep
  first, last = episodes
  seen: dict[int, dict[int, int]] = {}
  keep = keep.copy()
  for row in np.flatnonzero(keep):
    numbers = seen.setdefault(int(table.task[row]), {})
    keep[row] = first <= numbers.setdefault(int(table.split_key[row]), len(numbers)) < last
  return keep


def enumerate_examples(
  table: shards.Table,
  *,
  split_keep: np.ndarray,
  keep: np.ndarray,
  cameras: tuple[int, ...],
  views: str,
  actions: bool,
  offset_seconds: float | None,
) -> Examples:
  """Every frame that has an action (of `actions` sets) or a latent motion (of labelled sets).

  Args:
    table: the clips.
    split_keep: bool [R], the clips of the split: what an example may look at.
    keep: bool [R], those of them whose frames are examples.
    cameras: ids in `table.cameras`.
    views: see `PolicySet`.
    actions: whether actions are used.
    offset_seconds: of a latent motion (None without labels).
  """
  segments = shards.segments(table, split_keep)
  parts: list[tuple[int, int, int]] = []  # segment, first, last
  moving: dict[int, list[tuple[int, int]]] = {}
  acts = table.has_action & actions
  if offset_seconds is not None and (~acts & keep).any():
    for s, first, count in zip(*index.runs(segments, frames=2, offset=offset_seconds)[:3], strict=True):
      moving.setdefault(int(s), []).append((int(first), int(first + count)))
  for s in range(len(segments)):
    for row in segments.rows(s):
      if not keep[row]:
        continue
      begin = segments.begin(s, row)
      end = begin + int(table.length[row])
      ranges = [(begin, end)] if acts[row] else [(max(begin, a), min(end, b)) for a, b in moving.get(s, ())]
      for first, last in ranges:
        if last <= first:
          continue
        if parts and parts[-1][0] == s and parts[-1][2] == first:
          parts[-1] = (s, parts[-1][1], last)
        else:
          parts.append((s, first, last))
  segment, first, last = (np.array([part[i] for part in parts], np.int64) for i in range(3))
  ids = np.array([-1]) if views == "together" else np.asarray(cameras, np.int64)
  order = np.lexsort((np.tile(first, len(ids)), np.repeat(ids, len(first)), np.tile(segment, len(ids))))
  return Examples(segments, np.tile(segment, len(ids))[order], np.repeat(ids, len(first))[order], np.tile(first, len(ids))[order],
                  np.cumsum(np.tile(last - first, len(ids))[order]))
