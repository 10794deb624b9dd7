"""What the data of a mixture say of a policy: robots, camera slots, latent motion, resizing."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.data.normalization import KEYS
from como_jax.data.policy_sets import OpenedSet

MAX_EXAMPLES = 8  # instructions that a checkpoint names


@dataclasses.dataclass(frozen=True)
class RobotFacts:
  """What is known of a robot.

  Attributes:
    action: A, numbers of an action.
    state: S, numbers of a state; 0 without one.
    action_names: as in the data; () where they are not names.
    state_names: as action_names.
    step_seconds: time between two actions of a chunk.
    cameras: name of the camera in each slot, "" where none of its data fill it.
    unused_cameras: cameras of its data that fill no slot.
    instructions: {"count", "empty" (whether some data have none), "examples"}.
  """

  action: int
  state: int
  action_names: tuple[str, ...]
  state_names: tuple[str, ...]
  step_seconds: float
  cameras: tuple[str, ...] = ()
  unused_cameras: tuple[str, ...] = ()
  instructions: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class LatentMotion:
  """The latent motion of a label set.

  Attributes:
    latent_model: fingerprint of the motion model.
    latent_offset_seconds: between the two frames of a pair.
    num_queries: number of vectors.
    latent_dim: numbers of a vector.
  """

  latent_model: str
  latent_offset_seconds: float
  num_queries: int
  latent_dim: int


def robots(
  sets: Sequence[OpenedSet], slots: Sequence[str], *, step_seconds: float
) -> dict[str, RobotFacts]:
  """What is known of each robot, in order of first appearance.

  Args:
    sets: the mixture.
    slots: names of the camera slots; a name stands for whichever camera fills the slot.
    step_seconds: of an element of a chunk; 0 = the data's own rate.

  Raises:
    errors.UserError: no robot at all, a data set without actions, or one robot with two sizes or
      rates.
  """
  facts: dict[str, RobotFacts] = {}
  for opened in sets:
    if not opened.entry.robot:
      continue
    new = _sizes(opened, step_seconds)
    old = facts.setdefault(opened.entry.robot, new)
    for key in ("action", "state", "step_seconds"):
      if getattr(old, key) != getattr(new, key):
        raise errors.UserError(
          f"{opened.label}: robot {opened.entry.robot!r} has {key} {getattr(new, key)} here and "
          f"{getattr(old, key)} in another data set: give it another robot name"
          + (", or set config.policy.step_seconds" if key == "step_seconds" else "")
        )
  if not facts:
    raise errors.UserError(
      "config.data.mixture: no entry names a robot, so there is no action to learn"
    )
  for robot, values in facts.items():
    own = [opened for opened in sets if opened.entry.robot == robot]
    fills = [slot_cameras(opened, len(slots)) for opened in own]
    cameras = [next((names[i] for names in fills if names[i]), "") for i in range(len(slots))]
    facts[robot] = dataclasses.replace(
      values,
      cameras=tuple(
        camera and (slot or camera) for slot, camera in zip(slots, cameras, strict=True)
      ),
      unused_cameras=tuple(
        sorted(set.intersection(*(set(unused_cameras(opened, len(slots))) for opened in own)))
      ),
      instructions=_instructions(own),
    )
  return facts


def _sizes(opened: OpenedSet, step_seconds: float) -> RobotFacts:
  """Sizes, names and rate of the actions and states of one data set."""
  action, state = (opened.manifest[key] or {} for key in KEYS)
  size = action.get("size")
  if not isinstance(size, int) or size < 1:
    raise errors.UserError(
      f"{opened.label}: robot {opened.entry.robot!r} needs actions of one size, the data set has "
      f"{size or 'none'}"
    )
  return RobotFacts(
    action=size,
    state=int(state.get("size") or 0),
    action_names=tuple(action.get("names") or ()),
    state_names=tuple(state.get("names") or ()),
    step_seconds=round(step_seconds or _own_step(opened), 6),
  )


def _own_step(opened: OpenedSet) -> float:
  """Seconds between two frames of a data set, which must be the same everywhere."""
  table = opened.table
  interval = table.interval[table.length > 1]
  if not len(interval) or np.ptp(interval) > 1e-4 or not table.uniform.all():
    rates = sorted({round(float(rate), 2) for rate in table.rates if rate})
    raise errors.UserError(
      f"{opened.label}: clips of {', '.join(f'{rate:g}' for rate in rates)} frames a "
      f"second{'' if table.uniform.all() else ', some at varying rates'}: set "
      "config.policy.step_seconds"
    )
  return float(np.median(interval))


def _instructions(sets: Sequence[OpenedSet]) -> dict[str, Any]:
  """{"count", "empty", "examples"} of the instructions of one robot's data sets."""
  texts = sorted(
    {
      text
      for opened in sets
      for text in opened.table.tasks
      if not opened.entry.tasks or text in opened.entry.tasks
    }
  )
  spoken = [text for text in texts if text]
  return {
    "count": len(spoken),
    "empty": len(spoken) < len(texts),
    "examples": spoken[:MAX_EXAMPLES],
  }


def latent_motion(sets: Sequence[OpenedSet]) -> LatentMotion | None:
  """What the labels of a mixture are; None without any."""
  manifest = next((opened.motions.manifest for opened in sets if opened.motions), None)
  if manifest is None:
    return None
  return LatentMotion(
    latent_model=manifest["model"]["fingerprint"],
    latent_offset_seconds=float(manifest["offset_seconds"]),
    num_queries=manifest["queries"],
    latent_dim=manifest["dims"],
  )


def resize(sets: Sequence[OpenedSet]) -> str:
  """How all frames were made square (`video.Geometry`), so that acting does the same.

  Raises:
    errors.UserError: data sets made in different ways.
  """
  modes: dict[str, str] = {}
  for opened in sets:
    # frames of the source's own size are squashed when they are loaded
    stored = opened.manifest.get("image_size")
    modes.setdefault(opened.manifest.get("resize", "squash") if stored else "squash", opened.label)
  if len(modes) > 1:
    listed = ", ".join(f"{label} with {mode!r}" for mode, label in modes.items())
    raise errors.UserError(
      f"config.data.mixture: frames were made square in different ways ({listed}): ingest all "
      "with one resize"
    )
  return next(iter(modes))


def slot_names(
  sets: Sequence[OpenedSet], *, names: Sequence[str], num_cameras: int
) -> tuple[str, ...]:
  """Names of the camera slots.

  Args:
    sets: the mixture.
    names: the user's names; () = those of the first robot's entry, else its data set's first ones.
    num_cameras: how many of the data set's.
  """
  if names:
    return tuple(names)
  first = next((opened for opened in sets if opened.entry.robot), sets[0])
  cameras = slot_cameras(first, len(first.entry.cameras) or max(1, num_cameras))
  return cameras[:1] if first.entry.views == "each" else cameras


def slot_cameras(opened: OpenedSet, count: int) -> tuple[str, ...]:
  """The camera of each of so many slots in an entry's examples.

  "" = empty. The examples of views "each" fill the first slot.
  """
  names = tuple(opened.entry.cameras) or opened.table.cameras[:count]
  if opened.entry.views == "each":
    names = tuple(name for name in names if name)[:1]
  return (*names, *[""] * count)[:count]


def unused_cameras(opened: OpenedSet, count: int) -> tuple[str, ...]:
  """The cameras of an entry's data that fill none of so many slots and are no examples."""
  entry, cameras = opened.entry, opened.table.cameras
  used = (tuple(entry.cameras) or cameras) if entry.views == "each" else slot_cameras(opened, count)
  return tuple(name for name in cameras if name not in used)
