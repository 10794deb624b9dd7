"""All that serving a policy needs beside its weights, as one frozen, versioned record.

It is made from the training data, saved as `policy.json` beside the weights, and read by whatever
acts: rollouts and the server. (A policy that is trained further still reads the config.) Later work
adds transforms to the lists, not fields.

Legend: A action, S state, C camera slots.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from como_jax import errors
from como_jax.data import normalization, value_transforms
from como_jax.observations import IMAGE, STATE, TASK

FILE = "policy.json"
VERSION = 1


def instruction_needed(instructions: Mapping[str, Any]) -> bool:
  """Whether the policy has several instructions to tell apart and was never without one."""
  return instructions["count"] >= 2 and not instructions["empty"]


@dataclasses.dataclass(frozen=True)
class RobotSpec:
  """What a robot observes and does.

  Attributes:
    action, state: A and S; S = 0 where it has no state.
    action_names: one for each number of an action, as in the data.
    cameras: name of the camera in each slot, "" = empty.
    unused_cameras: cameras of its data that fill no slot.
    step_seconds: time between two actions of a chunk, and between two frames of the history.
    instructions: of its data: {"count", "empty" (whether some had none), "examples"}.
    transforms: "action" and "state" -> transforms in order, robot units -> the model's numbers.
    action_limits: least and greatest value of each number of an action in the training data.
  """

  action: int
  state: int
  action_names: tuple[str, ...]
  cameras: tuple[str, ...]
  unused_cameras: tuple[str, ...]
  step_seconds: float
  instructions: Mapping[str, Any]
  transforms: Mapping[str, tuple[value_transforms.ValueTransform, ...]]
  action_limits: tuple[tuple[float, ...], tuple[float, ...]]

  @property
  def two_valued(self) -> tuple[int, ...]:
    """Numbers of an action that take two values (grippers)."""
    found = [
      one.dims for one in self.transforms["action"] if isinstance(one, value_transforms.TwoValued)
    ]
    return tuple(sorted(dim for dims in found for dim in dims))

  @property
  def required_keys(self) -> tuple[str, ...]:
    """Keys that every observation must have, see `como_jax.observations`."""
    state = (STATE,) if self.state else ()
    text = (TASK,) if instruction_needed(self.instructions) else ()
    return (*state, *(IMAGE + camera for camera in self.cameras if camera), *text)


@dataclasses.dataclass(frozen=True)
class PolicySpec:
  """A policy beside its weights.

  Attributes:
    model: section that `models.build` takes.
    language: section of the instruction encoder.
    robots: by name.
    resize: how frames become square, see `video.Geometry`.
    guidance_scale: weight of the instruction that the policy was evaluated with; 1 = none.
  """

  model: Mapping[str, Any]
  language: Mapping[str, Any]
  robots: Mapping[str, RobotSpec]
  resize: str
  guidance_scale: float

  def to_json(self) -> dict[str, Any]:
    """Plain JSON values."""
    robots = {}
    for name, robot in self.robots.items():
      transforms = {key: value_transforms.to_json(of) for key, of in robot.transforms.items()}
      robots[name] = _fields(robot) | {"transforms": transforms}
    return {"version": VERSION, **_fields(self), "robots": robots}

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
    if version != VERSION:
      raise errors.UserError(f"{where} is of version {version!r}, this program reads {VERSION}")
    _check_keys(values, cls, where)
    robots = {}
    for name, entry in values["robots"].items():
      place = f"{where}: robots.{name}"
      _check_keys(entry, RobotSpec, place)
      transforms = {
        key: value_transforms.from_json(of, where=f"{place}.transforms.{key}")
        for key, of in entry["transforms"].items()
      }
      for key in normalization.KEYS[: 2 if entry["state"] else 1]:
        if key not in transforms:
          raise errors.UserError(f"{place}: there are no transforms of {key}")
      low, high = entry["action_limits"]
      robots[name] = RobotSpec(
        **{
          **entry,
          **{key: tuple(entry[key]) for key in ("action_names", "cameras", "unused_cameras")},
          "transforms": transforms,
          "action_limits": (tuple(low), tuple(high)),
        }
      )
      sizes = values["model"]["robots"].get(name)
      if sizes != {"action": entry["action"], "state": entry["state"]}:
        raise errors.UserError(
          f"{place}: action {entry['action']}, state {entry['state']}, but the model has {sizes}"
        )
    return cls(**{**values, "robots": robots})

  @classmethod
  def from_config(cls, config: Mapping[str, Any]) -> "PolicySpec":
    """From the resolved config of a policy run, which is all that older versions left behind."""
    settings, units = config["policy"], normalization.Normalizer.from_json(config["normalization"])
    robots = {}
    for name, facts in config["robots"].items():
      sizes, numbers = config["model"]["robots"][name], units.robots[name]
      action = numbers["action"]
      robots[name] = RobotSpec(
        action=int(sizes["action"]),
        state=int(sizes["state"]),
        action_names=tuple(facts["action_names"])
        or tuple(f"action {dim}" for dim in range(int(sizes["action"]))),
        cameras=tuple(facts.get("cameras", settings["cameras"])),
        unused_cameras=tuple(facts.get("unused_cameras", ())),
        step_seconds=float(facts["step_seconds"]),
        instructions=dict(facts.get("instructions", {"count": 0, "empty": True, "examples": []})),
        transforms={
          key: units.transforms(name, key) for key in normalization.KEYS if key in numbers
        },
        action_limits=(tuple(action.min.tolist()), tuple(action.max.tolist())),
      )
    return cls(
      model=dict(config["model"]),
      language=dict(config["language"]),
      robots=robots,
      resize=settings.get("resize", "squash"),
      guidance_scale=float(settings.get("guidance_scale", 1.0)),
    )


def text(spec: PolicySpec) -> str:
  """Content of `policy.json`."""
  return json.dumps(spec.to_json(), indent=1, allow_nan=False) + "\n"


def read(
  folder: str | os.PathLike, *, upgrade: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
) -> PolicySpec | None:
  """The record of a weights folder or run; None where an older version left none.

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
