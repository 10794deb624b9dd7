"""Units of a policy: real actions and states of each robot, and latent motion, to normalized
numbers and back.

One `Normalizer` is made from the training data, stored in the checkpoint, and used again at
serving.

Legend: D size of a vector, n rows.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.data import statistics, value_transforms

KEYS = ("action", "state")


@dataclasses.dataclass(frozen=True)
class Normalizer:
  """Maps arrays [..., D], not padded, in their own floating dtype; `inverse_*` undoes it.

  Attributes:
    mode: "standard" (mean 0, standard deviation 1) or "quantile" (1 % and 99 % quantiles to -1 and
      1).
    robots: name -> {"action": Statistics, "state": Statistics}; "state" is absent where a robot has
      none.
    latent: of the latent motion, None without labels.
  """

  mode: str
  robots: Mapping[str, Mapping[str, statistics.Statistics]]
  latent: statistics.Statistics | None = None

  def __post_init__(self):
    if self.mode not in statistics.MODES:
      raise errors.UserError(
        f"unknown normalization {self.mode!r}: {errors.nearest(self.mode, statistics.MODES)}"
      )

  def transforms(self, robot: str, key: str) -> tuple[value_transforms.ValueTransform, ...]:
    """The transforms of a robot's "action" or "state", in order.

    Raises:
      errors.UserError: unknown robot, or it has no such numbers.
    """
    if robot not in self.robots:
      raise errors.UserError(
        f"normalization knows no robot {robot!r}: {errors.nearest(robot, self.robots)}"
      )
    if key not in self.robots[robot]:
      raise errors.UserError(
        f"normalization knows no {key} of robot {robot!r}: "
        f"{errors.nearest(key, self.robots[robot])}"
      )
    return self._transforms[robot, key]

  @functools.cached_property
  def _transforms(self) -> dict[tuple[str, str], tuple[value_transforms.ValueTransform, ...]]:
    """Made once: every sample of a run asks for them."""
    # A state is only seen, an action is served: it must be one of its two values.
    return {
      (robot, key): numbers.transforms(self.mode, snap=key == "action")
      for robot, statistics_of in self.robots.items()
      for key, numbers in statistics_of.items()
    }

  @functools.cached_property
  def _latent_transforms(self) -> tuple[value_transforms.ValueTransform, ...]:
    return self.latent.transforms(self.mode)

  def actions(self, robot: str, x: np.ndarray) -> np.ndarray:
    """Real units -> normalized; a two-valued dimension is -1 or 1, whichever is nearer.

    Raises:
      errors.UserError: unknown robot, wrong width.
    """
    return self._apply(robot, "action", x, inverse=False)

  def inverse_actions(self, robot: str, x: np.ndarray) -> np.ndarray:
    """Normalized -> real units.

    A two-valued dimension becomes one of its two values, a constant one its constant.
    """
    return self._apply(robot, "action", x, inverse=True)

  def grippers(self, robot: str) -> tuple[int, ...]:
    """The action dimensions of a robot that take two values only."""
    return tuple(int(dim) for dim in np.flatnonzero(self.robots[robot]["action"].two_valued))

  def constants(self, robot: str, key: str) -> dict[int, float]:
    """The dimensions of a robot's "action" or "state" that never move, and where they stay."""
    if key not in self.robots[robot]:
      return {}
    one = self.robots[robot][key]
    return {int(dim): float(one.mean[dim]) for dim in np.flatnonzero(one.constant)}

  def state(self, robot: str, x: np.ndarray) -> np.ndarray:
    """Real units -> normalized."""
    return self._apply(robot, "state", x, inverse=False)

  def inverse_state(self, robot: str, x: np.ndarray) -> np.ndarray:
    """Normalized -> real units."""
    return self._apply(robot, "state", x, inverse=True)

  def latents(self, x: np.ndarray) -> np.ndarray:
    """Z -> normalized."""
    return self._latents(x, inverse=False)

  def inverse_latents(self, x: np.ndarray) -> np.ndarray:
    """Normalized -> z."""
    return self._latents(x, inverse=True)

  def to_json(self) -> dict[str, Any]:
    """Plain JSON values."""
    robots = {
      name: {key: one.to_json() for key, one in of.items()} for name, of in self.robots.items()
    }
    return {"mode": self.mode, "robots": robots, "latent": self.latent and self.latent.to_json()}

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> "Normalizer":
    """The inverse of `to_json`. Raises `errors.UserError` when it is something else."""
    try:
      robots = {
        str(name): {key: statistics.Statistics.from_json(of[key]) for key in KEYS if key in of}
        for name, of in values["robots"].items()
      }
      lacking = [name for name, of in robots.items() if "action" not in of]
      if lacking:
        raise KeyError(f"robots.{lacking[0]}.action")
      latent = values["latent"]
      return cls(
        str(values["mode"]),
        robots,
        latent if latent is None else statistics.Statistics.from_json(latent),
      )
    except errors.UserError:
      raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise errors.UserError(
        f"not the normalization of a policy, expected mode, robots and latent ({error!r})"
      ) from error

  def _apply(self, robot: str, key: str, x: np.ndarray, *, inverse: bool) -> np.ndarray:
    transforms = self.transforms(robot, key)
    size = len(self.robots[robot][key].mean)
    return _change(transforms, x, inverse, size, f"{key} of robot {robot!r}")

  def _latents(self, x: np.ndarray, *, inverse: bool) -> np.ndarray:
    if self.latent is None:
      raise errors.UserError("normalization knows no latent motion: it was computed without labels")
    return _change(self._latent_transforms, x, inverse, len(self.latent.mean), "latent motion")


def _change(
  transforms: Sequence[value_transforms.ValueTransform],
  x: np.ndarray,
  inverse: bool,
  size: int,
  what: str,
) -> np.ndarray:
  x = np.asarray(x)
  if x.ndim < 1 or x.shape[-1] != size:
    raise errors.UserError(f"{what}: got shape {list(x.shape)}, expected [..., {size}]")
  if x.dtype.kind != "f":  # whole numbers would be cut
    x = x.astype(np.float32)
  return (
    value_transforms.invert(transforms, x) if inverse else value_transforms.apply(transforms, x)
  )


def merge(parts: Sequence[statistics.Statistics]) -> statistics.Statistics:
  """Statistics of several arrays together, from their own: exact but for the quantiles, which are
  averaged by rows.
  """
  if len(parts) == 1:
    return parts[0]
  counts = np.array([part.count for part in parts], np.float64)[:, None]
  share = counts / counts.sum()
  mean = (share * [part.mean for part in parts]).sum(0)
  squares = (share * [part.std**2 + (part.mean - mean) ** 2 for part in parts]).sum(0)
  q01, q99 = ((share * [getattr(part, name) for part in parts]).sum(0) for name in ("q01", "q99"))
  low, high = np.min([part.min for part in parts], 0), np.max([part.max for part in parts], 0)
  # Two values stay two where every part has the same ones.
  binary = np.all(
    [part.two_valued & (part.min == low) & (part.max == high) for part in parts], axis=0
  )
  return statistics.Statistics(
    int(counts.sum()), mean, np.sqrt(squares), low, high, q01, q99, binary
  )
