"""Which examples a data set offers to a policy.

These are all frames of the selected episodes that have something to predict.

Legend: m frames of a policy step, n frames of a latent motion, K chunk of actions, M chunk of
latent motions.
"""

import dataclasses
import os

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
    cameras: names that fill the camera slots in order, "" leaves a slot empty; () = the first ones
      of the data set.
    views: "together" (one example a frame, a camera in each slot; the latent motion is that of the
      first slot that is labeled) or "each" (every camera is an example of its own, in slot 0).
    episodes: (first, last), last excluded: a range of the episodes of each task, see `select`; () =
      all.
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
    """The name in messages."""
    return self.name or os.path.basename(os.path.normpath(self.path))

  def check(self) -> "PolicySet":
    """Checks the values.

    Raises:
      errors.UserError: a value is out of range, or nothing could be learned from the entry.
    """
    if not self.weight > 0:
      raise errors.UserError(
        f"data set {self.label}: weight is {self.weight}, expected more than 0"
      )
    if self.views not in VIEWS:
      raise errors.UserError(
        f"data set {self.label}: unknown views {self.views!r}: {errors.nearest(self.views, VIEWS)}"
      )
    if not self.robot and not self.labels:
      raise errors.UserError(
        f"data set {self.label}: neither a robot nor labels are given, so there is nothing to "
        "learn from it"
      )
    if self.episodes:
      whole = len(self.episodes) == 2 and all(
        isinstance(i, (int, np.integer)) for i in self.episodes
      )
      if not whole or not 0 <= self.episodes[0] < self.episodes[1]:
        raise errors.UserError(
          f"data set {self.label}: episodes are {tuple(self.episodes)}, expected (first, last) "
          "with 0 <= first < last"
        )
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
    return Example(
      int(self.segment[group]), int(self.camera[group]), int(self.first[group]) + int(i) - before
    )

  def frame_ranges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of frames that are examples, in order; each frame once whatever its cameras.

    Returns:
      (segment, first frame, last frame (excluded)), int64 [n] each.
    """
    last = self.first + np.diff(self.end, prepend=0)
    order = np.lexsort((last, self.first, self.segment))
    columns = np.stack([self.segment, self.first, last])[:, order].astype(np.int64)
    once = np.concatenate([[True], (np.diff(columns) != 0).any(0)])[: len(order)]
    segments, first, last = columns[:, once]
    return segments, first, last

  def rows(self) -> np.ndarray:
    """Rows of the table that hold an example, sorted."""
    rows, segment_of_row, first_frame = self.segments.all_rows()
    before = np.cumsum(self.segments.count) - self.segments.count
    segment, first, last = self.frame_ranges()
    # of each row, among the frames of all segments one after the other
    starts = before[segment_of_row] + first_frame
    low, high = (
      np.searchsorted(starts, before[segment] + frame, side="right") for frame in (first, last - 1)
    )
    return np.unique(rows[shards.concatenate_ranges(low - 1, high)])


def chunk_edges(
  times: FrameTimes, t: int, step_seconds: float, action_horizon: int
) -> tuple[np.ndarray, np.ndarray]:
  """Where the elements of a chunk of actions begin and end.

  Args:
    times: of the segment.
    t: its first frame.
    step_seconds: of an element; 0 = one frame.
    action_horizon: K.

  Returns:
    (edges int64 [K+1]: element k covers the frames edges[k] to edges[k + 1] (exclusive); valid bool
    [K]: it begins in the segment).
  """
  if step_seconds == 0:
    edges = t + np.arange(action_horizon + 1)
    return np.minimum(edges, times.count), edges[:-1] < times.count
  later, near = times.partners(
    np.full(action_horizon, t), step_seconds, steps=np.arange(1, action_horizon + 1)
  )
  beyond = (
    times.seconds_at(t) + np.arange(1, action_horizon + 1) * step_seconds
    > times.seconds_at(times.count - 1) + times.interval / 2
  )
  edges = np.concatenate([[t], np.where(beyond, times.count, later)])
  return edges, np.concatenate([[True], (near & ~beyond)[:-1]]) & (np.diff(edges) > 0)


def history_frames(times: FrameTimes, t: int, step_seconds: float, history: int) -> np.ndarray:
  """The frames of a history, int [history], the last one t.

  Args:
    times: of the segment.
    t: the newest frame.
    step_seconds: between two of them; 0 = one frame.
    history: how many; before the segment's first frame that one is repeated.
  """
  back = np.arange(history)[::-1]
  if step_seconds == 0:
    return np.maximum(t - back, 0)
  return np.minimum(times.nearest(times.seconds_at(t) - back * step_seconds)[0], t)


def select(
  table: shards.Table,
  split_mask: np.ndarray,
  *,
  split: str,
  episodes: tuple[int, ...] = (),
  tasks: tuple[str, ...] = (),
  name: str = "data set",
) -> np.ndarray:
  """Bool [records]: the records of a split, of some tasks, of a range of episodes within each task.

  The validation episodes are set aside first; the range counts the others of a task in their order
  of first appearance (split "all": all of them). Episodes of one group (the same motion in several
  scenes) count as one. Entries with different ranges of one data set so share their validation
  episodes, which no range reaches and no range narrows.

  Args:
    table: of the clips.
    split_mask: bool [records], those of the split, see `index.select`.
    split: its name.
    episodes: (first, last), last excluded; () = all.
    tasks: instructions; () = all.
    name: of the data set, for messages.

  Raises:
    errors.UserError: an instruction that no episode has.
  """
  for task in tasks:
    if task not in table.tasks:
      raise errors.UserError(
        f"{name}: no episode has the instruction {task!r}: {errors.nearest(task, table.tasks)}"
      )
  mask = split_mask
  if tasks:
    mask = mask & np.isin(np.array(table.tasks, object), tasks)[table.task]
  if not episodes or split == "validation":
    return mask
  rows = np.flatnonzero(mask)
  _, key = np.unique(table.split_key[rows], return_inverse=True)
  # sorted by task
  pairs, appears, pair = np.unique(
    table.task[rows] * np.int64(len(rows)) + key, return_index=True, return_inverse=True
  )
  task = pairs // max(1, len(rows))
  number = np.zeros(len(pairs), np.int64)
  number[np.lexsort((appears, task))] = np.arange(len(pairs)) - np.searchsorted(task, task)
  first, last = episodes
  mask = mask.copy()
  mask[rows] = ((first <= number) & (number < last))[pair]
  return mask


def enumerate_examples(
  table: shards.Table,
  *,
  split_mask: np.ndarray,
  example_mask: np.ndarray,
  cameras: tuple[int, ...],
  views: str,
  actions: bool,
  offset_seconds: float | None,
) -> Examples:
  """Every frame that has an action (of `actions` sets) or a latent motion (of labeled sets).

  Args:
    table: the clips.
    split_mask: bool [R], the clips of the split: what an example may look at.
    example_mask: bool [R], those of them whose frames are examples.
    cameras: ids in `table.cameras`.
    views: see `PolicySet`.
    actions: whether actions are used.
    offset_seconds: of a latent motion (None without labels).
  """
  segments = shards.segments(table, split_mask)
  rows, segment, first_frame = segments.all_rows()
  used = example_mask[rows]
  rows, segment, first = rows[used], segment[used], first_frame[used]
  last = first + table.length[rows]
  acts = table.has_action[rows] & actions
  if acts.all():
    pass
  elif offset_seconds is None:
    segment, first, last = segment[acts], first[acts], last[acts]
  else:
    segment, first, last = _moving(segments, segment, first, last, acts, offset_seconds)
  joins = (segment[1:] == segment[:-1]) & (first[1:] == last[:-1])
  starts = np.flatnonzero(np.concatenate([[True], ~joins])[: len(segment)])
  ends = np.concatenate([starts[1:], [len(segment)]])[: len(starts)] - 1
  segment, first, last = segment[starts], first[starts], last[ends]
  ids = np.array([-1]) if views == "together" else np.asarray(cameras, np.int64)
  order = np.lexsort(
    (np.tile(first, len(ids)), np.repeat(ids, len(first)), np.tile(segment, len(ids)))
  )
  return Examples(
    segments,
    np.tile(segment, len(ids))[order],
    np.repeat(ids, len(first))[order],
    np.tile(first, len(ids))[order],
    np.cumsum(np.tile(last - first, len(ids))[order]),
  )


def _moving(
  segments: shards.Segments,
  segment: np.ndarray,
  first: np.ndarray,
  last: np.ndarray,
  whole: np.ndarray,
  offset_seconds: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Ranges of frames of segments, cut to frames with a partner `offset_seconds` later.

  The `whole` ones are not cut. All columns are [n], in order.
  """
  before = np.cumsum(segments.count) - segments.count
  range_segment, start, count, _ = index.start_ranges(segments, frames=2, offset=offset_seconds)
  # among the frames of all segments one after the other, which no range crosses
  start = before[range_segment] + start
  low = np.where(whole, 0, np.searchsorted(start + count, before[segment] + first, side="right"))
  high = np.where(whole, 1, np.searchsorted(start, before[segment] + last, side="left"))
  times, run = np.maximum(high - low, 0), shards.concatenate_ranges(low, high)
  segment, first, last, whole = (
    np.repeat(column, times) for column in (segment, first, last, whole)
  )
  if not len(start):
    return segment, first, last
  start, stop = start[run] - before[segment], (start + count)[run] - before[segment]
  return (
    segment,
    np.where(whole, first, np.maximum(first, start)),
    np.where(whole, last, np.minimum(last, stop)),
  )
