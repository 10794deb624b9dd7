"""Selects cameras, actions, states and instructions among the features of tensorflow-datasets.

A feature inside others is named by its path, as in "observation/image".
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.data.sources.options import SourceOptions

_USUAL = {
  "action": ("action", "actions"),
  "state": (
    "observation/state",
    "observation/proprio",
    "observation/robot_state",
    "observation/agent_pos",
    "state",
  ),
}
_TEXT = ("language_instruction", "natural_language_instruction", "instruction", "task")


@dataclasses.dataclass(frozen=True)
class Feature:
  """A feature that is read.

  Attributes:
    name: short name of a camera, or the path.
    path: keys from the step (in RLDS) or the example to the feature.
  """

  name: str
  path: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
  """The features of a data set that are read.

  Attributes:
    steps: the feature that holds the steps, "" when a step is not an example of its own (not RLDS).
    cameras: features of images.
    vectors: "action" and "state" -> feature, when there is one.
    step_text: instruction of a step, None = there is none.
    example_text: instruction of an example, None = there is none.
    images: all features of images.
    not_read: path -> why it is not read.
  """

  steps: str
  cameras: tuple[Feature, ...]
  vectors: dict[str, Feature]
  step_text: Feature | None
  example_text: Feature | None
  images: tuple[Feature, ...]
  not_read: dict[str, str]

  def decoders(self) -> dict[str, Any]:
    """Decoders of tensorflow-datasets that leave the images of steps encoded.

    It cannot leave the images of a sequence encoded.
    """
    from tensorflow_datasets import decode

    if not self.steps:
      return {}
    nested: dict[str, Any] = {}
    for image in self.images:
      level = nested
      for key in image.path[:-1]:
        level = level.setdefault(key, {})
      level[image.path[-1]] = decode.SkipDecoding()
    return {self.steps: nested}

  def steps_of(self, example: Mapping[str, Any]) -> "Steps":
    """The values of an example."""
    return Steps(self, example, list(example[self.steps]) if self.steps else None)


@dataclasses.dataclass(frozen=True)
class Steps:
  """The values of one episode.

  Attributes:
    layout: of the data set.
    example: the whole example.
    steps: the steps of an RLDS episode, None for other data sets.
  """

  layout: Layout
  example: Mapping[str, Any]
  steps: Sequence[Mapping[str, Any]] | None

  def __len__(self) -> int:
    if self.steps is not None:
      return len(self.steps)
    return len(self.column(self.layout.cameras[0]))

  def column(self, feature: Feature) -> Sequence[Any]:
    """The values of a feature of all steps."""
    if self.steps is not None:
      return [_value(step, feature) for step in self.steps]
    return _value(self.example, feature)

  def texts(self, count: int) -> list[str]:
    """The instruction of each of the first `count` steps, "" when unknown."""
    if self.steps is not None and self.layout.step_text is not None:
      return [_text(_value(step, self.layout.step_text)) for step in self.steps[:count]]
    if self.layout.example_text is not None:
      return [_text(_value(self.example, self.layout.example_text))] * count
    return [""] * count


def _value(values: Mapping[str, Any], feature: Feature) -> Any:
  for key in feature.path:
    values = values[key]
  return values


def _text(value: Any) -> str:
  return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def read(features: Any, options: SourceOptions, where: str) -> Layout:
  """Selects the features to read.

  Args:
    features: `FeaturesDict` of a data set.
    options: `action_key`, `state_key`, `camera_keys` and `depth_range` are used.
    where: path of the data set, for messages.

  Raises:
    errors.UserError: the data set has no camera, or no feature of a requested name.
  """
  from tensorflow_datasets import features as kinds

  steps = next((key for key, value in features.items() if isinstance(value, kinds.Dataset)), "")
  leaves = dict(_leaves(features[steps].feature if steps else features))
  not_read: dict[str, str] = {}
  found = {
    path: image
    for path, value in leaves.items()
    if (image := _image(value, bool(steps))) is not None
  }
  cameras = _cameras(found, options, where, not_read, in_steps=bool(steps))
  vectors = {}
  numeric = {path: Feature(_name(path), path) for path, value in leaves.items() if _numeric(value)}
  for role, requested in (("action", options.action_key), ("state", options.state_key)):
    named = {feature.name: feature for feature in numeric.values()}
    if requested and requested not in named:
      raise errors.UserError(
        f"{where}: source option {role}_key: {requested!r} is no feature of numbers: "
        f"{errors.nearest(requested, named)}"
      )
    key = requested or next((name for name in _USUAL[role] if name in named), None)
    if key is not None:
      vectors[role] = named[key]
  step_text = _instruction(leaves, kinds) if steps else None
  around = dict(_leaves({key: value for key, value in features.items() if key != steps}))
  used = {*found, *(vector.path for vector in vectors.values())}
  used |= {step_text.path} if step_text else set()
  left = [_name(path) for path in leaves if path not in used and path[-1] not in _OWN]
  example_text = _instruction(around, kinds)
  if not steps and example_text is not None and example_text.name in left:
    left.remove(example_text.name)
  if left:
    not_read["features"] = f"not used: {', '.join(left)} (source options action_key and state_key)"
  return Layout(
    steps,
    cameras,
    vectors,
    step_text,
    example_text,
    tuple(Feature(_name(path), path) for path in found),
    not_read,
  )


# What RLDS itself adds to a step.
_OWN = ("is_first", "is_last", "is_terminal", "reward", "discount")


def _leaves(features: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
  """Yields (path, feature) of all features that are not dictionaries of others."""
  from tensorflow_datasets import features as kinds

  # Sorted, because the order of the features is not the same at every reading.
  for key, value in sorted(features.items()):
    if isinstance(value, kinds.FeaturesDict | dict):
      yield from _leaves(value, (*path, key))
    else:
      yield (*path, key), value


def _name(path: Sequence[str]) -> str:
  return "/".join(path)


def _image(feature: Any, in_step: bool) -> Any:
  """The feature `Image` of a camera: itself in a step, else the element of a sequence."""
  from tensorflow_datasets import features as kinds

  inner = feature
  if not in_step:
    inner = feature.feature if isinstance(feature, kinds.Sequence) else None
  return inner if isinstance(inner, kinds.Image) else None


def _numeric(feature: Any) -> bool:
  from tensorflow_datasets import features as kinds

  inner = feature.feature if isinstance(feature, kinds.Sequence) else feature
  return (
    isinstance(inner, kinds.Tensor)
    and not isinstance(inner, kinds.Text)
    and np.issubdtype(_dtype(inner), np.number)
  )


def _dtype(feature: Any) -> np.dtype:
  return np.dtype(feature.np_dtype)


def _instruction(leaves: Mapping[tuple[str, ...], Any], kinds: Any) -> Feature | None:
  texts = [path for path, value in leaves.items() if isinstance(value, kinds.Text)]
  for name in _TEXT:
    for path in texts:
      if path[-1] == name:
        return Feature(_name(path), path)
  return None


def _cameras(
  found: Mapping[tuple[str, ...], Any],
  options: SourceOptions,
  where: str,
  not_read: dict[str, str],
  *,
  in_steps: bool,
) -> tuple[Feature, ...]:
  """The requested cameras in the requested order, or all that can be read.

  Args:
    found: path -> feature `Image`.
    options: `camera_keys` and `depth_range` are used.
    where: path of the data set, for messages.
    not_read: receives the cameras that are left out, with the reasons.
    in_steps: whether the images are in steps (RLDS).

  Raises:
    errors.UserError: there is no camera, or none of a requested name.
  """
  cameras = {}
  for path, image in found.items():
    name = _name(path).removeprefix("observation/")
    kind = _dtype(image)
    if kind != np.uint8 and (kind != np.uint16 or not options.depth_range or not in_steps):
      not_read[f"camera {name}"] = (
        f"left out: its images are {kind.name}; source option depth_range = "
        "(nearest, farthest) scales uint16 in steps"
      )
      continue
    cameras[name] = Feature(name, path)
  if not cameras:
    listed = "; ".join(f"{name}: {reason}" for name, reason in not_read.items())
    raise errors.UserError(
      f"{where}: no camera among the features, expected images in steps (RLDS), or a sequence "
      "of images" + (f" ({listed})" if listed else "")
    )
  for name in options.camera_keys:
    if name not in cameras:
      hint = errors.nearest(name, cameras)
      raise errors.UserError(f"{where}: source option camera_keys: {name!r} is no camera: {hint}")
  if options.camera_keys:
    for name in cameras:
      if name not in options.camera_keys:
        not_read[f"camera {name}"] = "not among the source option camera_keys"
  return tuple(cameras[name] for name in options.camera_keys or cameras)
