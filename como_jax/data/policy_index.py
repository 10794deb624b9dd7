"""Which examples a data set offers to a policy: every frame of the selected episodes that has something to predict.

Legend: m frames of a policy step, n frames of a latent motion, K chunk of actions, M chunk of latent motions.
"""

import dataclasses
import os

import numpy as np

from como_jax import errors
from como_jax.data import index
from como_jax.data.sources import shards

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
  """One example's place: row of the record table, camera id (-1 = all slots), frame within the clip, m, n."""

  row: int
  camera: int
  t: int
  step: int
  offset: int


@dataclasses.dataclass(frozen=True)
class Examples:
  """All examples of a data set, in order of record, camera, time.

  Attributes (G = groups, one for each clip, or each clip and camera):
    row, camera, step, offset, first, end: [G]; `first` is the first t, `end` the running count of examples.
  """

  row: np.ndarray
  camera: np.ndarray
  step: np.ndarray
  offset: np.ndarray
  first: np.ndarray
  end: np.ndarray

  def __len__(self) -> int:
    return int(self.end[-1]) if len(self.end) else 0

  def __getitem__(self, i: int) -> Example:
    if not 0 <= i < len(self):
      raise IndexError(i)
    group = int(np.searchsorted(self.end, i, side="right"))
    before = int(self.end[group - 1]) if group else 0
    t = int(self.first[group]) + int(i) - before
    return Example(int(self.row[group]), int(self.camera[group]), t, int(self.step[group]), int(self.offset[group]))


def steps(fps: np.ndarray, step_seconds: float) -> np.ndarray:
  """m = max(1, round(fps * step_seconds)); 1 for step_seconds = 0, each data set's own rate."""
  return index.strides(fps, step_seconds)


def select(table: shards.Table, *, split: str, fraction: float, episodes: tuple[int, ...] = (), tasks: tuple[str, ...] = (),
           name: str = "data set") -> np.ndarray:
  """Bool [records]: the records of a split, of some tasks, of a range of episodes within each task.

  The validation episodes are set aside first; the range counts the others of a task in their order of first appearance
  (split "all": all of them). Episodes of one group (the same motion in several scenes) count as one. Entries with
  different ranges of one data set so share their validation episodes, which no range reaches and no range narrows.

  Raises:
    errors.UserError: an instruction that no episode has.
  """
  known = sorted({str(task) for task in table.task})
  for task in tasks:
    if task not in known:
      raise errors.UserError(f"{name}: no episode has the instruction {task!r}: {errors.nearest(task, known)}")
  keep = index.select(table, split, fraction)
  if tasks:
    keep = keep & np.isin(table.task.astype(str), tasks)
  if not episodes or split == "validation":
    return keep
  first, last = episodes
  seen: dict[str, dict[int, int]] = {}
  keep = keep.copy()
  for row in np.flatnonzero(keep):
    numbers = seen.setdefault(table.task[row], {})
    keep[row] = first <= numbers.setdefault(int(table.split_key[row]), len(numbers)) < last
  return keep


def enumerate_examples(
  table: shards.Table,
  *,
  keep: np.ndarray,
  cameras: tuple[int, ...],
  views: str,
  actions: bool,
  step_seconds: float,
  offset_seconds: float | None,
  chunk: int = 1,
  latent_chunk: int = 1,
) -> Examples:
  """Every frame that has an action (of `actions` sets) or a latent motion (of labelled sets).

  Where clips overlap a frame counts once: in the earlier clip as long as its whole chunk fits there, else in the later.

  Args:
    table: the records.
    keep: bool [records].
    cameras: ids in `index.camera_names(table)`; records that have none of them are left out.
    views: see `PolicySet`.
    actions: whether actions are used.
    step_seconds, offset_seconds: time of a policy step, and of a latent motion (None without labels).
    chunk, latent_chunk: K and M.
  """
  known = index.camera_names(table)
  has = {names: np.isin(known, names) for names in set(table.cameras)}
  rows = np.flatnonzero(keep)
  wanted = np.array([has[table.cameras[row]][list(cameras)] for row in rows], bool).reshape(len(rows), len(cameras))
  rows, wanted = rows[wanted.any(1)], wanted[wanted.any(1)]
  fps, start, length = table.fps[rows], table.start[rows].astype(np.int64), table.length[rows].astype(np.int64)
  step = steps(fps, step_seconds)
  offset = np.zeros_like(step) if offset_seconds is None else index.strides(fps, offset_seconds)
  acts = table.has_action[rows] & actions
  ahead = np.maximum(np.where(acts, chunk * step, 1), (latent_chunk - 1) * offset + 1)
  ids = np.unique(table.episode[rows].astype(str), return_inverse=True)[1] if len(rows) else np.zeros(0, np.int64)
  begin, stop = start.copy(), start + length  # in frames of the episode
  order = np.lexsort((start, ids))
  a, b = order[:-1], order[1:]
  a, b = a[ids[a] == ids[b]], b[ids[a] == ids[b]]
  border = np.clip(stop[a] - ahead[a] + 1, np.minimum(start[b], stop[a]), stop[a])
  begin[b] = np.maximum(begin[b], border)
  episode_end = np.zeros(ids.max() + 1 if len(ids) else 0, np.int64)
  np.maximum.at(episode_end, ids, stop)
  stop[a] = border
  moves = np.where(offset > 0, np.minimum(stop, episode_end[ids] - offset), begin)  # end of the frames with a latent motion
  stop = np.where(acts, stop, moves)
  count = np.maximum(stop - begin, 0)
  if views == "together":
    position, camera = np.flatnonzero(count), np.full(int(np.count_nonzero(count)), -1)
  else:
    position, which = np.nonzero(wanted & (count > 0)[:, None])
    camera = np.asarray(cameras, np.int64)[which]
  return Examples(rows[position], camera, step[position], offset[position], (begin - start)[position], np.cumsum(count[position]))
