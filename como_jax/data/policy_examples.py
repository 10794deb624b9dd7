"""One example of a policy: what is read of a segment and its labels, and in which layout.

Legend: T history, C camera slots, H W image, S state, A action, K chunk of actions, M chunk of
latent motions, Z numbers of one latent motion, L language tokens, E their width.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.data import policy_index, value_transforms, video
from como_jax.data.policy_layout import Language, Layout
from como_jax.data.policy_sets import OpenedSet, SplitSet
from como_jax.data.times import FrameTimes


def reduce_actions(
  actions: np.ndarray, starts: np.ndarray, stops: np.ndarray, reduction: str
) -> np.ndarray:
  """Actions of policy steps.

  Args:
    actions: [frames, A].
    starts: first frame of each step, int [n].
    stops: last frame of each step (exclusive, at least one frame later), int [n].
    reduction: "mean", "first" or "last".

  Returns:
    float32 [n, A].
  """
  if reduction == "first" or np.all(stops - starts == 1):
    return actions[starts].astype(np.float32, copy=False)
  if reduction == "last":
    return actions[stops - 1].astype(np.float32, copy=False)
  # reduceat wants every stop inside
  padded = np.concatenate([actions, np.zeros_like(actions[:1])]).astype(np.float64)
  sums = np.add.reduceat(padded, np.stack([starts, stops], 1).ravel(), axis=0)[::2]
  return (sums / (stops - starts)[:, None]).astype(np.float32)


class ExampleLoader:
  """Examples -> rows of a batch; `sample` reads one, `finish` puts its images into their slots."""

  def __init__(self, layout: Layout, sets: Sequence[SplitSet]):
    self.layout, self.sets = layout, list(sets)
    self._rows = layout.row_builder()
    self._texts, self._text_of = _texts(self.sets, layout.language)

  def sample(
    self, dataset: int, example: policy_index.Example, *, size: tuple[int, int]
  ) -> tuple[dict[str, Any], list]:
    """Reads one example.

    Args:
      dataset: index of the data set.
      example: its location.
      size: that images will be resized to, so that they may be decoded smaller.

    Returns:
      ({name: array without the images}, [uint8 [T, h, w, 3] or None for each slot]).

    Raises:
      video.UnreadableError: a picture or the robot's numbers are damaged.
    """
    layout, opened = self.layout, self.sets[dataset]
    reader, segment, t = opened.reader, example.segment, example.t
    slots, moving = opened.cameras(example)
    times = reader.times(segment)
    frames = policy_index.history_frames(times, t, layout.step_seconds, layout.history)
    images = [reader.images(segment, name, frames, to=size) if name else None for name in slots]
    value = None
    if opened.robot and layout.robots[opened.robot][1]:
      value = reader.read_array(segment, "state", t, t + 1)
    state = None if value is None else value[0].astype(np.float32)
    sample = self._without_images(dataset, example, state)
    if opened.robot:
      edges, starts_inside = policy_index.chunk_edges(
        times, t, layout.step_seconds, layout.action_horizon
      )
      stored = reader.read_array(segment, "action", t, int(edges[-1]))
      if stored is not None:
        chunk = reduce_actions(
          stored, edges[:-1][starts_inside] - t, edges[1:][starts_inside] - t, layout.reduce
        )
        transforms = layout.normalization.robots[opened.robot]["action"]
        sample["actions"][starts_inside, : chunk.shape[1]] = value_transforms.apply(
          transforms, chunk
        )
        sample["actions_mask"][starts_inside, : chunk.shape[1]] = True
    if moving:
      z, valid = _latents(opened, example, times, moving, layout.motion_horizon)
      sample["latents"][valid] = value_transforms.apply(layout.normalization.latent or (), z[valid])
      sample["latents_mask"][valid] = True
    return sample, images

  def empty(self, dataset: int, example: policy_index.Example) -> tuple[dict[str, Any], list]:
    """What `sample` gives, with nothing in it: every mask is False."""
    return self._without_images(dataset, example, None), []

  def _without_images(
    self, dataset: int, example: policy_index.Example, state: np.ndarray | None
  ) -> dict[str, Any]:
    """The row of an example, and targets with nothing in them."""
    layout, opened = self.layout, self.sets[dataset]
    language = self._texts[self._text_of[dataset][opened.row(example)]]
    return {
      **self._rows.non_image_inputs(opened.robot, state, language),
      "actions": np.zeros((layout.action_horizon, layout.action_size), np.float32),
      "actions_mask": np.zeros((layout.action_horizon, layout.action_size), bool),
      "latents": np.zeros((layout.motion_horizon, layout.latent_size), np.float32),
      "latents_mask": np.zeros(layout.motion_horizon, bool),
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


def _latents(
  opened: SplitSet,
  example: policy_index.Example,
  times: FrameTimes,
  camera: str,
  motion_horizon: int,
) -> tuple[np.ndarray, np.ndarray]:
  """(z [M, Z], valid [M]) of the latent motions of an example.

  They begin at the example's frame, one offset later, two offsets later, and so on. Labels that
  cannot be read are not valid, with a warning.
  """
  motions, segments = opened.motions, opened.windows.segments
  assert motions is not None  # as the camera is labeled
  offset = float(motions.manifest["offset_seconds"])
  later, near = times.partners(
    np.full(motion_horizon - 1, example.t), offset, steps=np.arange(1, motion_horizon)
  )
  frames, valid = np.concatenate([[example.t], later]), np.concatenate([[True], near])
  z = np.zeros((motion_horizon, motions.size), np.float32)
  locations = [segments.locate(example.segment, int(frame)) for frame in frames]
  for row in dict.fromkeys(row for row, _ in locations):
    steps = [j for j in range(motion_horizon) if locations[j][0] == row]
    try:
      location = segments.clip_location(row)
      if motions.length(*location) != segments.table.length[row]:
        raise errors.UserError(
          f"{opened.label}: the labels of clip {location[1]} of shard {location[0]} are of another "
          "length than the clip"
        )
      z[steps], readable = motions.frames(*location, camera, [locations[j][1] for j in steps])
    except video.UnreadableError as error:
      warnings.warn(
        f"{opened.label}: labels that cannot be read are not used: {error}", stacklevel=2
      )
      valid[steps] = False
      continue
    valid[steps] &= readable
  return z, valid


def _texts(
  sets: Sequence[SplitSet], language: Language
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[np.ndarray]]:
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
  text_ids: dict[str, int] = {}
  texts, columns = [], []
  for opened in sets:
    table = opened.table
    column, rows = np.full(len(table), -1, np.int64), opened.windows.rows()
    tasks, appears, task = np.unique(table.task[rows], return_index=True, return_inverse=True)
    for i in np.argsort(appears):
      text = table.tasks[tasks[i]]
      if text not in text_ids:
        if text and text not in language:
          raise errors.UserError(
            f"{opened.label}: the instruction {text!r} has no embedding: "
            f"{errors.nearest(text, language)}"
          )
        tokens, mask = language.get(
          text, (np.zeros(tokens_shape, np.float32), np.zeros(mask_shape, bool))
        )
        text_ids[text] = len(texts)
        texts.append((np.asarray(tokens, np.float32), np.asarray(mask, bool)))
    if len(rows):
      column[rows] = np.array([text_ids[table.tasks[i]] for i in tasks])[task]
    columns.append(column)
  return texts, columns


def check_layout(opened: OpenedSet, layout: Layout) -> None:
  """Refuses a data set that does not fit the layout.

  Raises:
    errors.UserError: naming what is unknown or of another size.
  """
  entry = opened.entry
  if entry.robot and entry.robot not in layout.robots:
    raise errors.UserError(
      f"{opened.label}: unknown robot {entry.robot!r}: {errors.nearest(entry.robot, layout.robots)}"
    )
  if entry.robot and entry.robot not in layout.normalization.robots:
    raise errors.UserError(
      f"{opened.label}: no statistics of robot {entry.robot!r}: "
      f"{errors.nearest(entry.robot, layout.normalization.robots)}"
    )
  for key, size in zip(("action", "state"), layout.robots.get(entry.robot, ()), strict=False):
    if opened.manifest[key]["size"] != size and (key == "action" or size):
      raise errors.UserError(
        f"{opened.label}: {key} has size {opened.manifest[key]['size']}, robot {entry.robot!r} "
        f"has {size}"
      )
  if opened.motions is None:
    return
  if layout.motion_horizon < 1 or layout.normalization.latent is None:
    reason = (
      "motion_horizon is 0"
      if layout.motion_horizon < 1
      else "no statistics of latent motion are given"
    )
    raise errors.UserError(f"{opened.label}: has labels, but {reason}")
  if opened.motions.size != layout.latent_size:
    raise errors.UserError(
      f"{opened.label}: labels {entry.labels} have {opened.motions.size} numbers a motion, "
      f"the policy {layout.latent_size}"
    )
