"""One example of a policy: what is read of a segment and its labels, and in which layout.

Legend: T history, C camera slots, H W image, S state, A action, K chunk of actions, M chunk of
latent motions, Z numbers of one latent motion, L language tokens, E their width.
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.data import index, labels, policy_index, shards, video
from como_jax.data import reader as segment_reader
from como_jax.data.batching import Split
from como_jax.data.policy_index import PolicySet
from como_jax.data.policy_layout import Language, Layout
from como_jax.data.times import FrameTimes


@dataclasses.dataclass(frozen=True)
class Opened:
  """A data set ready to be drawn from. It travels to worker processes.

  Attributes:
    reader: of its segments.
    motions: its labels.
    windows: its examples.
    slots: camera of each slot, "" = empty; of all cameras for views "each".
    labeled: cameras that have them.
    known: all cameras; ids are places in it.
  """

  label: str
  robot: str
  reader: segment_reader.SegmentReader
  motions: labels.Labels | None
  windows: policy_index.Examples
  slots: tuple[str, ...]
  labeled: tuple[str, ...]
  known: tuple[str, ...]

  def load(self, i: int) -> policy_index.Example:
    """The place of example i."""
    return self.windows[i]

  def cameras(self, example: policy_index.Example) -> tuple[tuple[str, ...], str]:
    """(camera of each slot, camera of the latent motion) of an example; "" = none."""
    slots = self.slots if example.camera < 0 else (self.known[example.camera],)
    return slots, next((name for name in slots if name in self.labeled), "")

  def row(self, example: policy_index.Example) -> int:
    """The example's clip in the table."""
    return self.windows.segments.locate(example.segment, example.t)[0]

  def latents(
    self, example: policy_index.Example, times: FrameTimes, camera: str, chunk: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """(z [M, Z], valid [M]) of the latent motions that begin at the example's frame, one offset
    later, two offsets later, ...

    Labels that cannot be read are not valid, with a warning.
    """
    offset = float(self.motions.manifest["offset_seconds"])
    later, near = times.partners(np.full(chunk - 1, example.t), offset, steps=np.arange(1, chunk))
    frames, valid = np.concatenate([[example.t], later]), np.concatenate([[True], near])
    z, segments = np.zeros((chunk, self.motions.size), np.float32), self.windows.segments
    places = [segments.locate(example.segment, int(frame)) for frame in frames]
    for row in dict.fromkeys(row for row, _ in places):
      here = [j for j in range(chunk) if places[j][0] == row]
      try:
        values, good, _ = self.motions.clip(*segments.place(row), (camera,))[camera]
      except video.Unreadable as error:
        warnings.warn(
          f"{self.label}: labels that cannot be read are not used: {error}", stacklevel=2
        )
        valid[here] = False
        continue
      if len(values) != segments.table.length[row]:
        raise errors.UserError(
          f"{self.label}: the labels of clip {segments.place(row)[1]} of shard "
          f"{segments.place(row)[0]} are of another length than the clip"
        )
      z[here] = values[[places[j][1] for j in here]]
      valid[here] &= good[[places[j][1] for j in here]]
    return z, valid


def _cameras(
  one: PolicySet, known: tuple[str, ...], labeled: tuple[str, ...], slots: int | None
) -> tuple[str, ...]:
  """Cameras of an entry by name: one for each slot, or for "each" all that are examples."""
  for name in one.cameras:
    if name and name not in known:
      raise errors.UserError(
        f"{one.label}: camera {name!r} does not exist: {errors.nearest(name, known)}"
      )
  if one.views == "each":
    chosen = tuple(dict.fromkeys(name for name in one.cameras if name)) or known
    useful = chosen if one.robot else tuple(name for name in chosen if name in labeled)
    without = [name for name in one.cameras if name and name not in useful]
    if without:
      raise errors.UserError(
        f"{one.label}: the labels {one.labels} lack camera {without[0]!r}: "
        f"{errors.nearest(without[0], labeled)}"
      )
  else:
    useful = tuple(one.cameras) or known[:slots]
    if slots is not None and len(useful) > slots:
      raise errors.UserError(
        f"{one.label}: {len(useful)} cameras ({', '.join(useful)}) for {slots} camera slots"
      )
  if not any(useful) or (not one.robot and not set(useful) & set(labeled)):
    raise errors.UserError(
      f"{one.label}: none of the cameras {', '.join(useful or known)} has labels in {one.labels}; "
      f"it has: {', '.join(labeled)}"
    )
  return useful


def open_sets(
  sets: Sequence[PolicySet],
  *,
  split: str,
  validation_fraction: float,
  step_seconds: float = 0.0,
  cameras: int | None = None,
) -> tuple[list[Opened], list[shards.Table]]:
  """Opens the data sets and enumerates the examples of one split; a validation split may leave some
  of them empty.

  Raises:
    errors.UserError: folders, cameras, episodes or labels that do not exist or do not fit together.
  """
  if not sets:
    raise errors.UserError("no data set is given")
  if step_seconds < 0:
    raise errors.UserError(
      f"step_seconds is {step_seconds}, expected 0 (the data's own rate) or more"
    )
  found, tables = [], []
  for one in sets:
    one.check()
    shards.read_manifest(one.path)
    if one.labels:
      labels.check(one.labels, data_path=one.path)
    table, motions = shards.read_table(one.path), labels.Labels(one.labels) if one.labels else None
    known = table.cameras
    labeled = tuple(motions.manifest["cameras"]) if motions else ()
    chosen = _cameras(one, known, labeled, cameras)
    split_keep = index.select(table, split, validation_fraction)
    keep = policy_index.select(
      table,
      split_keep,
      split=split,
      episodes=tuple(one.episodes),
      tasks=tuple(one.tasks),
      name=one.label,
    )
    windows = policy_index.enumerate_examples(
      table,
      split_keep=split_keep,
      keep=keep,
      cameras=tuple(known.index(name) for name in chosen if name),
      views=one.views,
      actions=bool(one.robot),
      offset_seconds=float(motions.manifest["offset_seconds"]) if motions else None,
    )
    if not len(windows) and split != "validation":
      if not keep.any():
        why = "no episode in this split"
        if one.episodes:
          why = f"no task has episodes {one.episodes[0]} to {one.episodes[1]} (without validation)"
      else:
        why = "no clip has actions" if one.robot else "no episode is longer than the labels' offset"
      raise errors.UserError(f"{one.label} ({split}): no example: {why}")
    reader = segment_reader.SegmentReader(one.path, windows.segments)
    found.append(Opened(one.label, one.robot, reader, motions, windows, chosen, labeled, known))
    tables.append(table)
  _check_one_model(sets, found)
  return found, tables


def _check_one_model(sets: Sequence[PolicySet], found: Sequence[Opened]) -> None:
  """All latent motions of a run come from one model, at one offset."""
  several = [
    (one.labels, opened.motions.manifest)
    for one, opened in zip(sets, found, strict=True)
    if one.labels
  ]
  for path, manifest in several[1:]:
    first, other = several[0][1], manifest
    if other["model"]["fingerprint"] != first["model"]["fingerprint"]:
      raise errors.UserError(
        f"labels {path} are of another motion model ({other['model']['path']}) than labels "
        f"{several[0][0]} ({first['model']['path']}); extract them with one model"
      )
    if other["offset_seconds"] != first["offset_seconds"]:
      raise errors.UserError(
        f"labels {path} are at {other['offset_seconds']} s and labels {several[0][0]} at "
        f"{first['offset_seconds']} s: a policy has one latent motion; label all data sets with "
        "the same --config.offset_seconds of configs/extract.py"
      )


def reduced(actions: np.ndarray, starts: np.ndarray, stops: np.ndarray, how: str) -> np.ndarray:
  """Actions of policy steps: float32 [n, A], each of the frames starts[i] to stops[i] (exclusive,
  at least one) of [frames, A].
  """
  if how == "first" or np.all(stops - starts == 1):
    return actions[starts].astype(np.float32, copy=False)
  if how == "last":
    return actions[stops - 1].astype(np.float32, copy=False)
  # reduceat wants every stop inside
  padded = np.concatenate([actions, np.zeros_like(actions[:1])]).astype(np.float64)
  sums = np.add.reduceat(padded, np.stack([starts, stops], 1).ravel(), axis=0)[::2]
  return (sums / (stops - starts)[:, None]).astype(np.float32)


class Loader:
  """Examples -> rows of a batch; `sample` reads one, `finish` puts its images into their slots."""

  def __init__(self, layout: Layout, found: Sequence[Opened], tables: Sequence[shards.Table]):
    self.layout, self.sets = layout, list(found)
    self._rows = layout.rows()
    self._texts, self._text_of = _texts(found, tables, layout.language)

  def sample(
    self, which: int, example: policy_index.Example, *, size: tuple[int, int]
  ) -> tuple[dict[str, Any], list]:
    """({name: array without the images}, [uint8 [T, h, w, 3] or None for each slot]); images will
    be resized to `size`.

    Raises:
      video.Unreadable: a picture or the robot's numbers are damaged.
    """
    to, opened = self.layout, self.sets[which]
    reader, segment, t = opened.reader, example.segment, example.t
    slots, moving = opened.cameras(example)
    times = reader.times(segment)
    numbers = policy_index.history_frames(times, t, to.step_seconds, to.history)
    images = [reader.images(segment, name, numbers, to=size) if name else None for name in slots]
    value = None
    if opened.robot and to.robots[opened.robot][1]:
      value = reader.numbers(segment, "state", t, t + 1)
    state = None if value is None else value[0].astype(np.float32)
    sample = self._without_images(which, example, state)
    if opened.robot:
      edges, begins = policy_index.chunk_edges(times, t, to.step_seconds, to.chunk)
      stored = reader.numbers(segment, "action", t, int(edges[-1]))
      if stored is not None:
        chunk = reduced(stored, edges[:-1][begins] - t, edges[1:][begins] - t, to.reduce)
        sample["actions"][begins, : chunk.shape[1]] = to.normalizer.actions(opened.robot, chunk)
        sample["actions_mask"][begins, : chunk.shape[1]] = True
    if moving:
      z, valid = opened.latents(example, times, moving, to.latent_chunk)
      sample["latents"][valid], sample["latents_mask"][valid] = (
        to.normalizer.latents(z[valid]),
        True,
      )
    return sample, images

  def empty(self, which: int, example: policy_index.Example) -> tuple[dict[str, Any], list]:
    """What `sample` gives, with nothing in it: every mask is False."""
    return self._without_images(which, example, None), []

  def _without_images(
    self, which: int, example: policy_index.Example, state: np.ndarray | None
  ) -> dict[str, Any]:
    """The row of an example, and targets with nothing in them."""
    to, opened = self.layout, self.sets[which]
    language = self._texts[self._text_of[which][opened.row(example)]]
    return {
      **self._rows.numbers(opened.robot, state, language),
      "actions": np.zeros((to.chunk, to.action_size), np.float32),
      "actions_mask": np.zeros((to.chunk, to.action_size), bool),
      "latents": np.zeros((to.latent_chunk, to.latent_size), np.float32),
      "latents_mask": np.zeros(to.latent_chunk, bool),
    }

  def finish(
    self,
    sample: dict[str, Any],
    images: list,
    change: Sequence[Callable],
    rng: np.random.Generator | None,
  ) -> dict[str, Any]:
    """The sample with its images.

    Each camera's frames are transformed with draws of their own, shared by the whole history.
    """
    slots = list(images)
    for slot, frames in enumerate(slots):
      for transform in change if frames is not None else ():
        slots[slot] = transform({"frames": slots[slot]}, rng)["frames"]
    return {**self._rows.images(slots), **sample}


def _texts(found: Sequence[Opened], tables: Sequence[shards.Table], language: Language):
  """([(tokens [L, E], mask [L])], for each data set the number of each record's instruction).

  Only used records count.

  An empty instruction that the table lacks is one without any token. Raises `errors.UserError` for
  any other.
  """
  shapes = sorted({(np.shape(tokens), np.shape(mask)) for tokens, mask in language.values()})
  if len(shapes) != 1 or len(shapes[0][0]) != 2 or shapes[0][0][:1] != shapes[0][1]:
    raise errors.UserError(
      f"embeddings of instructions have shapes {shapes}, expected one: tokens [L, E] and mask [L]"
    )
  tokens_shape, mask_shape = shapes[0]
  numbers: dict[str, int] = {}
  texts, columns = [], []
  for opened, table in zip(found, tables, strict=True):
    column, rows = np.full(len(table), -1, np.int64), opened.windows.rows()
    tasks, appears, task = np.unique(table.task[rows], return_index=True, return_inverse=True)
    for i in np.argsort(appears):
      text = table.tasks[tasks[i]]
      if text not in numbers:
        if text and text not in language:
          raise errors.UserError(
            f"{opened.label}: the instruction {text!r} has no embedding: "
            f"{errors.nearest(text, language)}"
          )
        tokens, mask = language.get(
          text, (np.zeros(tokens_shape, np.float32), np.zeros(mask_shape, bool))
        )
        numbers[text] = len(texts)
        texts.append((np.asarray(tokens, np.float32), np.asarray(mask, bool)))
    if len(rows):
      column[rows] = np.array([numbers[table.tasks[i]] for i in tasks])[task]
    columns.append(column)
  return texts, columns


def prepare(
  sets: Sequence[PolicySet], layout: Layout, split: Split
) -> tuple[Loader, list[shards.Table]]:
  """Opens the data sets and checks that they fit the layout. Raises `errors.UserError`."""
  layout.check()
  for one in sets:
    if one.robot and one.robot not in layout.robots:
      raise errors.UserError(
        f"{one.label}: unknown robot {one.robot!r}: {errors.nearest(one.robot, layout.robots)}"
      )
    if one.robot and one.robot not in layout.normalizer.robots:
      raise errors.UserError(
        f"{one.label}: no statistics of robot {one.robot!r}: "
        f"{errors.nearest(one.robot, layout.normalizer.robots)}"
      )
    if one.labels and (layout.latent_chunk < 1 or layout.normalizer.latent is None):
      why = (
        "latent_chunk is 0"
        if layout.latent_chunk < 1
        else "no statistics of latent motion are given"
      )
      raise errors.UserError(f"{one.label}: has labels, but {why}")
  found, tables = open_sets(
    sets,
    split=split.name,
    validation_fraction=split.validation_fraction,
    step_seconds=layout.step_seconds,
    cameras=layout.cameras,
  )
  for one, opened in zip(sets, found, strict=True):
    manifest = shards.read_manifest(one.path)
    for key, size in zip(("action", "state"), layout.robots.get(one.robot, ()), strict=False):
      if manifest[key]["size"] != size and (key == "action" or size):
        raise errors.UserError(
          f"{one.label}: {key} has size {manifest[key]['size']}, robot {one.robot!r} has {size}"
        )
    if opened.motions and opened.motions.size != layout.latent_size:
      raise errors.UserError(
        f"{one.label}: labels {one.labels} have {opened.motions.size} numbers a motion, "
        f"the policy {layout.latent_size}"
      )
  return Loader(layout, found, tables), tables
