"""One example of a policy: what is read of a clip and its labels, and in which layout.

Legend: T history, C camera slots, H W image, S state, A action, K chunk of actions, M chunk of latent motions, Z numbers of
one latent motion, L language tokens, E their width; m frames of a policy step, n of a latent motion.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.data import episode as episodes
from como_jax.data import index, labels, normalisation, policy_index
from como_jax.data.policy_index import PolicySet
from como_jax.data.sources import shards

REDUCTIONS = ("mean", "first", "last")
Language = Mapping[str, tuple[np.ndarray, np.ndarray]]  # instruction -> (tokens [L, E], mask [L])
Robots = Mapping[str, tuple[int, int]]  # name -> (A, S)


@dataclasses.dataclass(frozen=True)
class Layout:
  """Sizes and settings that every example of a run shares; one-to-one the arguments of `build`."""

  normaliser: normalisation.Normaliser
  robots: Robots
  cameras: int
  history: int
  chunk: int
  reduce: str
  latent_chunk: int
  latent_size: int
  image_size: int

  def check(self) -> "Layout":
    """Raises `errors.UserError`."""
    if self.reduce not in REDUCTIONS:
      raise errors.UserError(f"unknown reduction of actions {self.reduce!r}: {errors.nearest(self.reduce, REDUCTIONS)}")
    for name, least in (("cameras", 1), ("history", 1), ("chunk", 1), ("latent_chunk", 0), ("latent_size", 0), ("image_size", 1)):
      if getattr(self, name) < least:
        raise errors.UserError(f"policy batches: {name} is {getattr(self, name)}, expected at least {least}")
    return self

  @property
  def names(self) -> tuple[str, ...]:
    """Robots in the order of their numbers: sorted, as config sections are."""
    return tuple(sorted(self.robots))

  @property
  def action_size(self) -> int:
    return max((sizes[0] for sizes in self.robots.values()), default=0)

  @property
  def state_size(self) -> int:
    return max((sizes[1] for sizes in self.robots.values()), default=0)


@dataclasses.dataclass(frozen=True)
class Opened:
  """A data set ready to be drawn from. It travels to worker processes.

  Attributes:
    windows: its examples.
    table: its records.
    slots: camera of each slot, "" = empty; of all cameras for views "each".
    motions: its labels.
    labelled: cameras that have them.
    known: all cameras; ids are positions in it.
  """

  label: str
  robot: str
  reader: shards.Reader
  motions: labels.Labels | None
  windows: policy_index.Examples
  shard: np.ndarray
  record: np.ndarray
  slots: tuple[str, ...]
  labelled: tuple[str, ...]
  known: tuple[str, ...]

  def load(self, i: int) -> tuple[episodes.Clip, dict[str, tuple[np.ndarray, np.ndarray]], policy_index.Example]:
    """(clip, camera -> (z [frames, Z], valid [frames]), place) of example i."""
    example = self.windows[i]
    place = self.shard[example.row], self.record[example.row]
    clip = self.reader.clip(*place)
    motion = self.motions.clip(*place) if self.motions else {}
    if any(len(z) != len(clip) for z, _ in motion.values()):
      raise errors.UserError(f"{self.label}: the labels of record {place[1]} of shard {place[0]} are of another length than its clip")
    return clip, motion, example

  def cameras(self, example: policy_index.Example) -> tuple[tuple[str, ...], str]:
    """(camera of each slot, camera of the latent motion) of an example; "" = none."""
    slots = self.slots if example.camera < 0 else (self.known[example.camera],)
    return slots, next((name for name in slots if name in self.labelled), "")


def _cameras(one: PolicySet, known: tuple[str, ...], labelled: tuple[str, ...], slots: int | None) -> tuple[str, ...]:
  """Cameras of an entry by name: one for each slot, or for "each" all that are examples."""
  for name in one.cameras:
    if name and name not in known:
      raise errors.UserError(f"{one.label}: camera {name!r} does not exist: {errors.nearest(name, known)}")
  if one.views == "each":
    chosen = tuple(dict.fromkeys(name for name in one.cameras if name)) or known
    useful = chosen if one.robot else tuple(name for name in chosen if name in labelled)
    without = [name for name in one.cameras if name and name not in useful]
    if without:
      raise errors.UserError(f"{one.label}: the labels {one.labels} lack camera {without[0]!r}: {errors.nearest(without[0], labelled)}")
  else:
    useful = tuple(one.cameras) or known[:slots]
    if slots is not None and len(useful) > slots:
      raise errors.UserError(f"{one.label}: {len(useful)} cameras ({', '.join(useful)}) for {slots} camera slots")
  if not any(useful) or (not one.robot and not set(useful) & set(labelled)):
    raise errors.UserError(f"{one.label}: none of the cameras {', '.join(useful or known)} has labels in {one.labels}; "
                           f"it has: {', '.join(labelled)}")
  return useful


def open_sets(
  sets: Sequence[PolicySet],
  *,
  split: str,
  validation_fraction: float,
  step_seconds: float = 0.0,
  cameras: int | None = None,
  chunk: int = 1,
  latent_chunk: int = 1,
) -> tuple[list[Opened], list[shards.Table]]:
  """Opens the data sets and enumerates the examples of one split; a validation split may leave some of them empty.

  Raises:
    errors.UserError: folders, cameras, episodes or labels that do not exist or do not fit together.
  """
  if not sets:
    raise errors.UserError("no data set is given")
  if step_seconds < 0:
    raise errors.UserError(f"step_seconds is {step_seconds}, expected 0 (the data's own rate) or more")
  found, tables = [], []
  for one in sets:
    one.check()
    shards.read_manifest(one.path)
    if one.labels:
      labels.check(one.labels, data_path=one.path)
    table, reader = shards.read_table(one.path), labels.Labels(one.labels) if one.labels else None
    known = index.camera_names(table)
    labelled = tuple(reader.manifest["cameras"]) if reader else ()
    chosen = _cameras(one, known, labelled, cameras)
    keep = policy_index.select(table, split=split, fraction=validation_fraction, episodes=tuple(one.episodes), tasks=tuple(one.tasks),
                               name=one.label)
    windows = policy_index.enumerate_examples(
      table,
      keep=keep,
      cameras=tuple(known.index(name) for name in chosen if name),
      views=one.views,
      actions=bool(one.robot),
      step_seconds=step_seconds,
      offset_seconds=reader.manifest["offset_seconds"] if reader else None,
      chunk=chunk,
      latent_chunk=max(latent_chunk, 1),
    )
    if not len(windows) and split != "validation":
      if not keep.any():
        why = "no episode in this split"
        if one.episodes:
          why = f"no task has episodes {one.episodes[0]} to {one.episodes[1]} (without validation)"
      else:
        why = "no clip has actions" if one.robot else "no episode is longer than the labels' offset"
      raise errors.UserError(f"{one.label} ({split}): no example: {why}")
    found.append(Opened(one.label, one.robot, shards.Reader(one.path), reader, windows, table.shard, table.record, chosen, labelled, known))
    tables.append(table)
  _check_one_model(sets, found)
  return found, tables


def _check_one_model(sets: Sequence[PolicySet], found: Sequence[Opened]) -> None:
  """All latent motions of a run come from one model, at one offset."""
  several = [(one.labels, opened.motions.manifest) for one, opened in zip(sets, found, strict=True) if one.labels]
  for path, manifest in several[1:]:
    first, other = several[0][1], manifest
    if other["model"]["fingerprint"] != first["model"]["fingerprint"]:
      raise errors.UserError(f"labels {path} are of another motion model ({other['model']['path']}) than labels {several[0][0]} "
                             f"({first['model']['path']}); extract them with one model")
    if other["offset_seconds"] != first["offset_seconds"]:
      raise errors.UserError(f"labels {path} are at {other['offset_seconds']} s and labels {several[0][0]} at "
                             f"{first['offset_seconds']} s; extract them at one offset")


def reduced(actions: np.ndarray, starts: np.ndarray, step: int, how: str) -> np.ndarray:
  """Actions of policy steps: float32 [len(starts), A], each of the frames start..start + step - 1 that exist of [frames, A]."""
  if step == 1 or how == "first":
    return actions[starts].astype(np.float32, copy=False)
  stops = np.minimum(starts + step, len(actions))
  if how == "last":
    return actions[stops - 1].astype(np.float32, copy=False)
  padded = np.concatenate([actions, np.zeros_like(actions[:1])]).astype(np.float64)  # reduceat wants every stop inside
  sums = np.add.reduceat(padded, np.stack([starts, stops], 1).ravel(), axis=0)[::2]
  return (sums / (stops - starts)[:, None]).astype(np.float32)


class Loader:
  """Examples -> samples of contract names, images still one array a slot (`finish` makes one array of them)."""

  def __init__(self, layout: Layout, found: Sequence[Opened], tables: Sequence[shards.Table], language: Language):
    self.layout, self.sets = layout, list(found)
    self._number = {name: i for i, name in enumerate(layout.names)}
    self._texts, self._text_of = _texts(found, tables, language)

  def sample(self, which: int, clip: episodes.Clip, motion, example: policy_index.Example, *,
             size: tuple[int, int]) -> tuple[dict[str, Any], list]:
    """({name: array without the images}, [uint8 [T, h, w, 3] or None for each slot]); images will be resized to `size`."""
    to, opened = self.layout, self.sets[which]
    slots, moving = opened.cameras(example)
    numbers = [max(example.t - i * example.step, 0) for i in reversed(range(to.history))]
    images = [clip.frames[name].decode(numbers, to=size) if name in clip.frames else None for name in slots]
    actions = np.zeros((to.chunk, to.action_size), np.float32)
    actions_mask = np.zeros((to.chunk, to.action_size), bool)
    state, state_mask = np.zeros(to.state_size, np.float32), False
    if opened.robot:
      if "action" in clip.arrays:
        stored = clip.arrays["action"][example.t : example.t + to.chunk * example.step]
        chunk = reduced(stored, np.arange(0, len(stored), example.step), example.step, to.reduce)
        actions[: len(chunk), : chunk.shape[1]] = to.normaliser.actions(opened.robot, chunk)
        actions_mask[: len(chunk), : chunk.shape[1]] = True
      if "state" in clip.arrays and to.robots[opened.robot][1]:
        value = to.normaliser.state(opened.robot, clip.arrays["state"][example.t].astype(np.float32))
        state[: len(value)], state_mask = value, True
    latents, latents_mask = np.zeros((to.latent_chunk, to.latent_size), np.float32), np.zeros(to.latent_chunk, bool)
    if moving in motion:
      z, valid = motion[moving]
      at = np.arange(example.t, len(z), example.offset)[: to.latent_chunk]
      here = np.flatnonzero(valid[at])
      latents[here], latents_mask[here] = to.normaliser.latents(z[at[here]]), True
    tokens, mask = self._texts[self._text_of[which][example.row]]
    return {
      "state": state,
      "state_mask": np.bool_(state_mask),
      "robot": np.int32(self._number[opened.robot] if opened.robot else 0),
      "language": tokens,
      "language_mask": mask,
      "actions": actions,
      "actions_mask": actions_mask,
      "latents": latents,
      "latents_mask": latents_mask,
    }, images

  def finish(self, sample: dict[str, Any], images: list, change: Sequence[Callable], rng: np.random.Generator | None) -> dict[str, Any]:
    """Transforms each camera's frames with draws of its own, shared by its whole history, and puts them into their slots."""
    to = self.layout
    placed, mask = np.zeros((to.history, to.cameras, to.image_size, to.image_size, 3), np.uint8), np.zeros(to.cameras, bool)
    for slot, frames in enumerate(images):
      if frames is not None:
        for transform in change:
          frames = transform({"frames": frames}, rng)["frames"]
        placed[:, slot], mask[slot] = frames, True
    return {"images": placed, "images_mask": mask, **sample}


def _texts(found: Sequence[Opened], tables: Sequence[shards.Table], language: Language):
  """([(tokens [L, E], mask [L])], for each data set the number of each record's instruction). Only used records count.

  An empty instruction that the table lacks is one without any token. Raises `errors.UserError` for any other.
  """
  shapes = sorted({(np.shape(tokens), np.shape(mask)) for tokens, mask in language.values()})
  if len(shapes) != 1 or len(shapes[0][0]) != 2 or shapes[0][0][:1] != shapes[0][1]:
    raise errors.UserError(f"embeddings of instructions have shapes {shapes}, expected one: tokens [L, E] and mask [L]")
  tokens_shape, mask_shape = shapes[0]
  numbers: dict[str, int] = {}
  texts, columns = [], []
  for opened, table in zip(found, tables, strict=True):
    column = np.full(len(table), -1, np.int64)
    for row in np.unique(opened.windows.row):
      text = str(table.task[row])
      if text not in numbers:
        if text and text not in language:
          raise errors.UserError(f"{opened.label}: the instruction {text!r} has no embedding: {errors.nearest(text, language)}")
        tokens, mask = language.get(text, (np.zeros(tokens_shape, np.float32), np.zeros(mask_shape, bool)))
        numbers[text] = len(texts)
        texts.append((np.asarray(tokens, np.float32), np.asarray(mask, bool)))
      column[row] = numbers[text]
    columns.append(column)
  return texts, columns


def prepare(sets: Sequence[PolicySet], layout: Layout, *, language: Language, split: str, validation_fraction: float,
            step_seconds: float) -> tuple[Loader, list[shards.Table]]:
  """Opens the data sets and checks that they fit the layout. Raises `errors.UserError`."""
  layout.check()
  for one in sets:
    if one.robot and one.robot not in layout.robots:
      raise errors.UserError(f"{one.label}: unknown robot {one.robot!r}: {errors.nearest(one.robot, layout.robots)}")
    if one.robot and one.robot not in layout.normaliser.robots:
      raise errors.UserError(f"{one.label}: no statistics of robot {one.robot!r}: {errors.nearest(one.robot, layout.normaliser.robots)}")
    if one.labels and (layout.latent_chunk < 1 or layout.normaliser.latent is None):
      why = "latent_chunk is 0" if layout.latent_chunk < 1 else "no statistics of latent motion are given"
      raise errors.UserError(f"{one.label}: has labels, but {why}")
  found, tables = open_sets(
    sets, split=split, validation_fraction=validation_fraction, step_seconds=step_seconds, cameras=layout.cameras, chunk=layout.chunk,
    latent_chunk=layout.latent_chunk)
  for one, opened in zip(sets, found, strict=True):
    manifest = shards.read_manifest(one.path)
    for key, size in zip(("action", "state"), layout.robots.get(one.robot, ()), strict=False):
      if manifest[key]["size"] != size and (key == "action" or size):
        raise errors.UserError(f"{one.label}: {key} has size {manifest[key]['size']}, robot {one.robot!r} has {size}")
    if opened.motions and opened.motions.size != layout.latent_size:
      raise errors.UserError(f"{one.label}: labels {one.labels} have {opened.motions.size} numbers a motion, "
                             f"the policy {layout.latent_size}")
  return Loader(layout, found, tables, language), tables
