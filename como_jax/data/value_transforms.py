"""Named, invertible transforms of actions and states: robot units to the model's numbers and back.

Each acts on dimensions of its own, so that their order does not matter for the numbers; applied in
order, inverted in reverse order. They hold plain numbers and go to and from JSON, which is all that
serving needs to know of the statistics.

Legend: D size of a vector, d number of dimensions that a transform acts on.
"""

import abc
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from como_jax import errors


@dataclasses.dataclass(frozen=True)
class ValueTransform(abc.ABC):
  """One invertible change of arrays [..., D]; its fields are plain numbers.

  Attributes:
    name: in files.
  """

  name: ClassVar[str]

  @abc.abstractmethod
  def apply(self, x: np.ndarray) -> np.ndarray:
    """Robot units -> the model's numbers, float64."""

  @abc.abstractmethod
  def invert(self, x: np.ndarray) -> np.ndarray:
    """The model's numbers -> robot units, float64."""


@dataclasses.dataclass(frozen=True)
class Affine(ValueTransform):
  """(x - shift) / scale, with shift [D] and scale [D]; 0 and 1 leave a dimension alone."""

  name: ClassVar[str] = "affine"
  shift: tuple[float, ...]
  scale: tuple[float, ...]

  def apply(self, x: np.ndarray) -> np.ndarray:
    """Robot units -> the model's numbers."""
    shift, scale = self._arrays
    return (x - shift) / scale

  def invert(self, x: np.ndarray) -> np.ndarray:
    """The model's numbers -> robot units."""
    shift, scale = self._arrays
    return x * scale + shift

  @functools.cached_property
  def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(self.shift), np.asarray(self.scale)


@dataclasses.dataclass(frozen=True)
class Constant(ValueTransform):
  """Dimensions that never move: the model sees 0, the robot gets the constant."""

  name: ClassVar[str] = "constant"
  dims: tuple[int, ...]
  values: tuple[float, ...]

  def apply(self, x: np.ndarray) -> np.ndarray:
    """Robot units -> 0."""
    return _set(x, self.dims, 0.0)

  def invert(self, x: np.ndarray) -> np.ndarray:
    """Anything -> the constants."""
    return _set(x, self.dims, self.values)


@dataclasses.dataclass(frozen=True)
class TwoValued(ValueTransform):
  """Dimensions that take two values (grippers): the model sees -1 or 1, the robot gets a value."""

  name: ClassVar[str] = "two_valued"
  dims: tuple[int, ...]
  low: tuple[float, ...]
  high: tuple[float, ...]

  def apply(self, x: np.ndarray) -> np.ndarray:
    """Robot units -> -1 or 1, whichever value is nearer; in the middle -1."""
    middle = (np.asarray(self.high) + np.asarray(self.low)) / 2
    return _set(x, self.dims, np.where(x[..., list(self.dims)] > middle, 1.0, -1.0))

  def invert(self, x: np.ndarray) -> np.ndarray:
    """Positive -> the high value, else the low one."""
    return _set(x, self.dims, np.where(x[..., list(self.dims)] > 0, self.high, self.low))


TRANSFORMS = {cls.name: cls for cls in (Affine, Constant, TwoValued)}


def apply(transforms: Sequence[ValueTransform], x: np.ndarray) -> np.ndarray:
  """[..., D] in robot units -> the model's numbers, in x's dtype."""
  y = np.asarray(x, np.float64)
  for transform in transforms:
    y = transform.apply(y)
  return y.astype(np.asarray(x).dtype)


def invert(transforms: Sequence[ValueTransform], x: np.ndarray) -> np.ndarray:
  """[..., D] of the model's numbers -> robot units, in x's dtype."""
  y = np.asarray(x, np.float64)
  for transform in reversed(transforms):
    y = transform.invert(y)
  return y.astype(np.asarray(x).dtype)


def two_valued(transforms: Sequence[ValueTransform]) -> tuple[int, ...]:
  """The dimensions that take two values (grippers), sorted."""
  return tuple(
    sorted(
      dim for transform in transforms if isinstance(transform, TwoValued) for dim in transform.dims
    )
  )


def constants(transforms: Sequence[ValueTransform]) -> dict[int, float]:
  """The dimensions that never move, and their values."""
  return {
    dim: value
    for transform in transforms
    if isinstance(transform, Constant)
    for dim, value in zip(transform.dims, transform.values, strict=True)
  }


def to_json(transforms: Sequence[ValueTransform]) -> list[dict[str, Any]]:
  """Plain JSON values, in order."""
  return [{"name": one.name, **dataclasses.asdict(one)} for one in transforms]


def from_json(values: Sequence[Mapping[str, Any]], *, where: str) -> tuple[ValueTransform, ...]:
  """The inverse of `to_json`.

  Args:
    values: as stored.
    where: file and key, for messages.

  Raises:
    errors.UserError: an unknown transform, or fields that are missing or unknown.
  """
  transforms = []
  for position, entry in enumerate(values):
    settings = dict(entry)
    name = settings.pop("name", None)
    if name not in TRANSFORMS:
      raise errors.UserError(
        f"{where}[{position}]: unknown transform {name!r}: {errors.nearest(str(name), TRANSFORMS)}"
      )
    fields = {field.name for field in dataclasses.fields(TRANSFORMS[name])}
    if set(settings) != fields:
      raise errors.UserError(
        f"{where}[{position}]: transform {name!r} has {', '.join(sorted(settings)) or 'nothing'}, "
        f"expected {', '.join(sorted(fields))}"
      )
    transforms.append(TRANSFORMS[name](**{key: tuple(settings[key]) for key in settings}))
  return tuple(transforms)


def _set(x: np.ndarray, dims: Sequence[int], values: Any) -> np.ndarray:
  """A copy of x with other values in some dimensions."""
  y = x.copy()
  y[..., list(dims)] = values
  return y
