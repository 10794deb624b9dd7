"""The data sets of a policy's mixture: opened once, then the examples of each split of them."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from como_jax import errors
from como_jax.data import index, labels, policy_index, reader, shards
from como_jax.data.batching import Split
from como_jax.data.policy_index import PolicySet


@dataclasses.dataclass(frozen=True)
class OpenedSet:
  """A data set of a mixture with its tables in memory.

  Attributes:
    entry: what the mixture says of it.
    manifest: of the shards.
    table: of its clips.
    motions: its labels, None without any.
  """

  entry: PolicySet
  manifest: dict[str, Any]
  table: shards.Table
  motions: labels.Labels | None = None

  @property
  def label(self) -> str:
    """Name of the data set, for messages."""
    return self.entry.label

  @property
  def labeled(self) -> tuple[str, ...]:
    """Cameras that have labels."""
    return tuple(self.motions.manifest["cameras"]) if self.motions else ()


def open_set(entry: PolicySet) -> OpenedSet:
  """Reads the tables of a data set and of its labels.

  Raises:
    errors.UserError: a value out of range, or a folder that is missing or does not fit.
  """
  entry.check()
  manifest = shards.read_manifest(entry.path)
  if entry.labels:
    labels.check(entry.labels, data_path=entry.path)
  motions = labels.Labels(entry.labels) if entry.labels else None
  return OpenedSet(entry, manifest, shards.read_table(entry.path), motions)


def check_one_model(sets: Sequence[OpenedSet]) -> None:
  """Refuses labels of several motion models or offsets.

  Raises:
    errors.UserError: the labels differ.
  """
  manifests = [(opened.entry.labels, opened.motions.manifest) for opened in sets if opened.motions]
  for path, manifest in manifests[1:]:
    first_path, first = manifests[0]
    if manifest["model"]["fingerprint"] != first["model"]["fingerprint"]:
      raise errors.UserError(
        f"labels {path} are of another motion model ({manifest['model']['path']}) than labels "
        f"{first_path} ({first['model']['path']}); extract them with one model"
      )
    if manifest["offset_seconds"] != first["offset_seconds"]:
      raise errors.UserError(
        f"labels {path} are at {manifest['offset_seconds']} s and labels {first_path} at "
        f"{first['offset_seconds']} s: a policy has one latent motion; label all data sets with "
        "the same --config.offset_seconds of configs/extract.py"
      )


@dataclasses.dataclass(frozen=True)
class SplitSet:
  """The examples of one split of a data set. It is pickled to worker processes.

  Attributes:
    entry: what the mixture says of the data set.
    reader: of its segments.
    motions: its labels.
    windows: its examples.
    slots: camera of each slot, "" = empty; of all cameras for views "each".
    labeled: cameras that have labels.
    all_cameras: of the data set; camera ids are indices into it.
  """

  entry: PolicySet
  reader: reader.SegmentReader
  motions: labels.Labels | None
  windows: policy_index.Examples
  slots: tuple[str, ...]
  labeled: tuple[str, ...]
  all_cameras: tuple[str, ...]

  @functools.cached_property
  def label(self) -> str:
    """Name of the data set, for messages."""
    return self.entry.label

  @property
  def robot(self) -> str:
    """Whose actions are used; "" = none."""
    return self.entry.robot

  @property
  def table(self) -> shards.Table:
    """Clips of the data set."""
    return self.windows.segments.table

  def locate(self, i: int) -> policy_index.Example:
    """The location of example i."""
    return self.windows[i]

  def cameras(self, example: policy_index.Example) -> tuple[tuple[str, ...], str]:
    """(camera of each slot, camera of the latent motion) of an example; "" = none."""
    slots = self.slots if example.camera < 0 else (self.all_cameras[example.camera],)
    return slots, next((name for name in slots if name in self.labeled), "")

  def row(self, example: policy_index.Example) -> int:
    """The example's clip in the table."""
    return self.windows.segments.locate(example.segment, example.t)[0]


def open_split(opened: OpenedSet, split: Split, *, num_cameras: int) -> SplitSet:
  """Enumerates the examples of a split; of a validation split there may be none.

  Args:
    opened: the data set.
    split: which episodes.
    num_cameras: camera slots of the policy.

  Raises:
    errors.UserError: cameras or episodes that do not exist, or no example in the split.
  """
  entry, table = opened.entry, opened.table
  camera_names = _cameras(entry, table.cameras, opened.labeled, num_cameras)
  split_mask = index.select(table, split.name, split.validation_fraction)
  example_mask = policy_index.select(
    table,
    split_mask,
    split=split.name,
    episodes=tuple(entry.episodes),
    tasks=tuple(entry.tasks),
    name=opened.label,
  )
  windows = policy_index.enumerate_examples(
    table,
    split_mask=split_mask,
    example_mask=example_mask,
    cameras=tuple(table.cameras.index(name) for name in camera_names if name),
    views=entry.views,
    actions=bool(entry.robot),
    offset_seconds=float(opened.motions.manifest["offset_seconds"]) if opened.motions else None,
  )
  if not len(windows) and split.name != "validation":
    reason = _reason_without_examples(entry, bool(example_mask.any()))
    raise errors.UserError(f"{opened.label} ({split.name}): no example: {reason}")
  segments = reader.SegmentReader(entry.path, windows.segments)
  return SplitSet(
    entry, segments, opened.motions, windows, camera_names, opened.labeled, table.cameras
  )


def _reason_without_examples(entry: PolicySet, has_episodes: bool) -> str:
  if has_episodes:
    return "no clip has actions" if entry.robot else "no episode is longer than the labels' offset"
  if entry.episodes:
    first, last = entry.episodes
    return f"no task has episodes {first} to {last} (without validation)"
  return "no episode in this split"


def _cameras(
  entry: PolicySet, all_cameras: tuple[str, ...], labeled: tuple[str, ...], num_cameras: int
) -> tuple[str, ...]:
  """Cameras of an entry by name: one for each slot, or for "each" all that are examples."""
  for name in entry.cameras:
    if name and name not in all_cameras:
      raise errors.UserError(
        f"{entry.label}: camera {name!r} does not exist: {errors.nearest(name, all_cameras)}"
      )
  if entry.views == "each":
    camera_names = tuple(dict.fromkeys(name for name in entry.cameras if name)) or all_cameras
    useful = (
      camera_names if entry.robot else tuple(name for name in camera_names if name in labeled)
    )
    without = [name for name in entry.cameras if name and name not in useful]
    if without:
      raise errors.UserError(
        f"{entry.label}: the labels {entry.labels} lack camera {without[0]!r}: "
        f"{errors.nearest(without[0], labeled)}"
      )
  else:
    useful = tuple(entry.cameras) or all_cameras[:num_cameras]
    if len(useful) > num_cameras:
      raise errors.UserError(
        f"{entry.label}: {len(useful)} cameras ({', '.join(useful)}) for {num_cameras} camera slots"
      )
  if not any(useful) or (not entry.robot and not set(useful) & set(labeled)):
    raise errors.UserError(
      f"{entry.label}: none of the cameras {', '.join(useful or all_cameras)} has labels in "
      f"{entry.labels}; it has: {', '.join(labeled)}"
    )
  return useful
