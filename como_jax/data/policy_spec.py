"""All that serving a policy needs beside its weights, as one frozen, versioned record.

It is made from the training data and saved as `policy.json` beside the weights. Whatever acts
(rollouts, the server) reads it, and so does a policy that is trained further. Later work adds
transforms to the lists, not fields.

Legend: A action, S state, C camera slots.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from como_jax import errors
from como_jax.data import normalization, policy_row, value_transforms

FILE = "policy.json"
VERSION = 3
# files of version 2 hold for each robot too what nothing reads: the range of its data's actions
_WITH_RANGE, _RANGE = 2, "action_limits"
# files of version 1 stood beside a config that holds the same facts and those it lacks
_LACKING = 1


def instruction_needed(instructions: Mapping[str, Any]) -> bool:
  """Whether the policy has several instructions to tell apart and was never without one."""
  return instructions["count"] >= 2 and not instructions["empty"]


def action_names(names: Sequence[str], count: int) -> tuple[str, ...]:
  """A name for each number of an action, also where the data have none."""
  return tuple(names) or tuple(f"action {dim}" for dim in range(count))


@dataclasses.dataclass(frozen=True)
class RobotSpec:
  """What a robot observes and does.

  Attributes:
    action: A, numbers of an action.
    state: S, numbers of a state; 0 where it has none.
    action_names: one for each number of an action, as in the data.
    cameras: name of the camera in each slot, "" = empty.
    unused_cameras: cameras of its data that fill no slot.
    step_seconds: time between two actions of a chunk, and between two frames of the history.
    reduce: how the recorded actions of a step became one: "mean", "first" or "last".
    instructions: of its data: {"count", "empty" (whether some had none), "examples"}.
    transforms: "action" and "state" -> transforms in order, robot units -> the model's numbers.
  """

  action: int
  state: int
  action_names: tuple[str, ...]
  cameras: tuple[str, ...]
  unused_cameras: tuple[str, ...]
  step_seconds: float
  reduce: str
  instructions: Mapping[str, Any]
  transforms: Mapping[str, tuple[value_transforms.ValueTransform, ...]]

  @property
  def two_valued(self) -> tuple[int, ...]:
    """Numbers of an action that take two values (grippers)."""
    return value_transforms.two_valued(self.transforms["action"])


@dataclasses.dataclass(frozen=True)
class LatentMotionSpec:
  """The latent motion that a policy predicts.

  Attributes:
    latent_model: fingerprint of the motion model that made the labels.
    latent_offset_seconds: between the two frames of a pair.
    transforms: z -> the model's numbers, in order.
  """

  latent_model: str
  latent_offset_seconds: float
  transforms: tuple[value_transforms.ValueTransform, ...]


@dataclasses.dataclass(frozen=True)
class PolicySpec:
  """A policy beside its weights.

  Attributes:
    model: section that `models.build` takes.
    language: section of the instruction encoder.
    robots: by name.
    latent: the latent motion; None where no data had labels.
    resize: how frames become square, see `video.Geometry`.
    guidance_scale: weight of the instruction that the policy was evaluated with; 1 = none.
  """

  model: Mapping[str, Any]
  language: Mapping[str, Any]
  robots: Mapping[str, RobotSpec]
  latent: LatentMotionSpec | None
  resize: str
  guidance_scale: float

  @property
  def normalization(self) -> normalization.Normalization:
    """The transforms of all robots and of the latent motion."""
    robots = {name: robot.transforms for name, robot in self.robots.items()}
    return normalization.Normalization(robots, self.latent and self.latent.transforms)

  def row_builder(self) -> policy_row.RowBuilder:
    """What makes rows of the model's inputs from observations."""
    sizes = self.model["robots"]
    return policy_row.RowBuilder(
      robots=tuple(sizes),
      history=int(self.model["history"]),
      num_cameras=len(next(iter(self.robots.values())).cameras),
      image_size=int(self.model["image_size"]),
      state_size=max(int(size["state"]) for size in sizes.values()),
      state_transforms={
        name: robot.transforms.get("state", ()) for name, robot in self.robots.items()
      },
    )

  def to_json(self) -> dict[str, Any]:
    """Plain JSON values."""
    robots = {}
    for name, robot in self.robots.items():
      transforms = {key: value_transforms.to_json(of) for key, of in robot.transforms.items()}
      robots[name] = _fields(robot) | {"transforms": transforms}
    latent = self.latent and _fields(self.latent) | {
      "transforms": value_transforms.to_json(self.latent.transforms)
    }
    return {"version": VERSION, **_fields(self), "robots": robots, "latent": latent}

  @classmethod
  def from_json(cls, values: Mapping[str, Any], *, where: str = FILE) -> "PolicySpec":
    """The inverse of `to_json`.

    Args:
      values: as stored.
      where: file, for messages.

    Raises:
      errors.UserError: another version, or keys that are missing or unknown.
    """
    try:
      return cls._from_json(dict(values), where)
    except errors.UserError:
      raise
    except (TypeError, ValueError, AttributeError, KeyError) as error:
      raise errors.UserError(f"{where} is not the record of a policy: {error!r}") from error

  @classmethod
  def _from_json(cls, values: dict[str, Any], where: str) -> "PolicySpec":
    version = values.pop("version", None)
    if version not in (_WITH_RANGE, VERSION):
      raise errors.UserError(f"{where} is of version {version!r}, this program reads {VERSION}")
    _check_keys(values, cls, where)
    unread = {_RANGE} if version == _WITH_RANGE else set()
    robots = {
      name: _read_robot(
        {key: value for key, value in entry.items() if key not in unread}, f"{where}: robots.{name}"
      )
      for name, entry in values["robots"].items()
    }
    for name, robot in robots.items():
      sizes = values["model"]["robots"].get(name)
      if sizes != {"action": robot.action, "state": robot.state}:
        raise errors.UserError(
          f"{where}: robots.{name}: action {robot.action}, state {robot.state}, but the model has "
          f"{sizes}"
        )
    latent = values["latent"] and _read_latent(values["latent"], f"{where}: latent")
    return cls(**{**values, "robots": robots, "latent": latent})


def _read_robot(entry: Mapping[str, Any], where: str) -> RobotSpec:
  _check_keys(entry, RobotSpec, where)
  transforms = {
    key: value_transforms.from_json(values, where=f"{where}.transforms.{key}")
    for key, values in entry["transforms"].items()
  }
  for key in normalization.KEYS[: 2 if entry["state"] else 1]:
    if key not in transforms:
      raise errors.UserError(f"{where}: there are no transforms of {key}")
  return RobotSpec(
    **{
      **entry,
      **{key: tuple(entry[key]) for key in ("action_names", "cameras", "unused_cameras")},
      "transforms": transforms,
    }
  )


def _read_latent(entry: Mapping[str, Any], where: str) -> LatentMotionSpec:
  _check_keys(entry, LatentMotionSpec, where)
  transforms = value_transforms.from_json(entry["transforms"], where=f"{where}.transforms")
  return LatentMotionSpec(**{**entry, "transforms": transforms})


def text(spec: PolicySpec) -> str:
  """Content of `policy.json`."""
  return json.dumps(spec.to_json(), indent=1, allow_nan=False) + "\n"


def read(
  folder: str | os.PathLike, *, upgrade: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
) -> PolicySpec | None:
  """The record of a weights folder or run; None where an older version left none of today's.

  Args:
    folder: holds policy.json.
    upgrade: gives stored sections today's keys.

  Raises:
    errors.UserError: it cannot be read.
  """
  path = pathlib.Path(folder) / FILE
  if not path.exists():
    return None
  try:
    values = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise errors.UserError(f"{path} cannot be read: {error}") from error
  if not isinstance(values, dict):
    raise errors.UserError(f"{path} holds no JSON object")
  if values.get("version") == _LACKING:
    return None
  return PolicySpec.from_json(upgrade(values), where=str(path))


def _fields(record: Any) -> dict[str, Any]:
  return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _check_keys(values: Mapping[str, Any], cls: type, where: str) -> None:
  names: Sequence[str] = [field.name for field in dataclasses.fields(cls)]
  for key in values:
    if key not in names:
      raise errors.UserError(f"{where}: unknown key {key!r}: {errors.nearest(key, names)}")
  for key in names:
    if key not in values:
      raise errors.UserError(f"{where}: key {key!r} is missing")
