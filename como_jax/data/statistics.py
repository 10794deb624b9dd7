"""Normalization of actions, states and latents: compute in one pass, apply, invert."""

import dataclasses

import numpy as np

from como_jax import errors
from como_jax.data import value_transforms

MODES = ("standard", "quantile")
_FIELDS = ("mean", "std", "min", "max", "q01", "q99")
_SMALL = 1e-6  # in the array's own unit: what moves less does not move
# of a number's size: float32 arithmetic on a value that never changes
_NOISE = 16 * float(np.finfo(np.float32).eps)
_MOST_BETWEEN = 0.05  # rows between the two values of a two-valued dimension: means over a switch


def noise(value: np.ndarray) -> np.ndarray:
  """How far numbers around `value` may lie apart and still be the same number."""
  return np.maximum(_SMALL, _NOISE * np.abs(value))


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Of one array over all rows, each [D] float64; `count` rows. q01 and q99 are the 1 % and 99 %
  quantiles.

  Attributes:
    binary: bool [D], which dimensions take two values only, `min` and `max`; None (all False) where
      nobody looked.
  """

  count: int
  mean: np.ndarray
  std: np.ndarray
  min: np.ndarray
  max: np.ndarray
  q01: np.ndarray
  q99: np.ndarray
  binary: np.ndarray | None = None

  @property
  def constant(self) -> np.ndarray:
    """Bool [D]: dimensions that never move, but for the noise of float32."""
    return self.max - self.min <= noise(np.maximum(np.abs(self.min), np.abs(self.max)))

  @property
  def two_valued(self) -> np.ndarray:
    """Bool [D]: `binary`, where it is known."""
    return np.zeros(len(self.mean), bool) if self.binary is None else self.binary & ~self.constant

  def _affine(self, mode: str) -> tuple[np.ndarray, np.ndarray]:
    middle, half = (self.max + self.min) / 2, (self.max - self.min) / 2
    if mode == "standard":
      shift, scale = self.mean, self.std
    elif mode == "quantile":
      shift, scale = (self.q99 + self.q01) / 2, (self.q99 - self.q01) / 2
      # Quantiles of what rests for 98 % of the time lie together; what it does in the rest must not
      # be blown up.
      still = 2 * scale <= noise(shift)
      shift, scale = np.where(still, middle, shift), np.where(still, half, scale)
    else:
      raise errors.UserError(f"unknown normalization {mode!r}: {errors.nearest(mode, MODES)}")
    shift, scale = np.where(self.two_valued, middle, shift), np.where(self.two_valued, half, scale)
    return np.where(self.constant, self.mean, shift), np.where(
      self.constant | (scale == 0), 1.0, scale
    )

  def transforms(
    self, mode: str = "standard", *, snap: bool = False
  ) -> tuple[value_transforms.ValueTransform, ...]:
    """The transforms from these numbers to normalized ones.

    Args:
      mode: "standard" (mean 0, standard deviation 1) or "quantile" (1 % and 99 % quantiles to -1
        and 1).
      snap: two-valued dimensions become exactly -1 or 1, and exactly one of their two values back.

    Raises:
      errors.UserError: an unknown mode.
    """
    shift, scale = self._affine(mode)
    alone = self.constant | self.two_valued if snap else self.constant
    shift, scale = np.where(alone, 0.0, shift), np.where(alone, 1.0, scale)
    found = [value_transforms.Affine(tuple(shift.tolist()), tuple(scale.tolist()))]
    if self.constant.any():
      dims = np.flatnonzero(self.constant)
      found.append(value_transforms.Constant(tuple(dims.tolist()), tuple(self.mean[dims].tolist())))
    if snap and self.two_valued.any():
      dims = np.flatnonzero(self.two_valued)
      low, high = self.min[dims], self.max[dims]
      found.append(
        value_transforms.TwoValued(tuple(dims.tolist()), tuple(low.tolist()), tuple(high.tolist()))
      )
    return tuple(found)

  def normalize(self, x: np.ndarray, mode: str = "standard") -> np.ndarray:
    """[..., D] to normalized numbers in x's dtype, see `transforms`.

    In both modes the two values of a two-valued dimension become -1 and 1, and a constant one
    becomes 0.
    """
    return value_transforms.apply(self.transforms(mode), x)

  def inverse(self, x: np.ndarray, mode: str = "standard") -> np.ndarray:
    """Undoes `normalize`; a constant dimension becomes its constant, whatever x says."""
    return value_transforms.invert(self.transforms(mode), x)

  def to_json(self) -> dict:
    numbers = {name: getattr(self, name).tolist() for name in _FIELDS}
    return {"count": self.count, **numbers, "binary": self.two_valued.tolist()}

  @classmethod
  def from_json(cls, values: dict) -> "Statistics":
    # older ones have none
    binary = np.asarray(values["binary"], bool) if "binary" in values else None
    return cls(
      int(values["count"]),
      **{name: np.asarray(values[name], np.float64) for name in _FIELDS},
      binary=binary,
    )


def moments(rows: np.ndarray) -> np.ndarray:
  """float64 [4, D] of at least one row [n, D]: mean, sum of squared deviations from it, minimum,
  maximum. What is not finite shows in the mean.
  """
  rows = np.asarray(rows, np.float64)
  with np.errstate(invalid="ignore"):
    mean = rows.mean(0)
    return np.stack([mean, ((rows - mean) ** 2).sum(0), rows.min(0), rows.max(0)])


class Accumulator:
  """Collects rows [n, D] in any number of pieces.

  Mean and deviation are merged exactly (Chan et al. 1979); the quantiles are exact up to `keep`
  rows and then come from an evenly thinned sample, so that memory stays bounded and the result is
  deterministic.
  """

  def __init__(self, keep: int = 200_000, *, expected: int = 0):
    """Args:
    keep: rows of the sample.
    expected: rows that will come, as far as is known: the sample is thin from the start and the
    same in the end.
    """
    self._keep, self._step, self._sample, self._held = keep, 1, [], 0
    while -(-expected // self._step) > keep:
      self._step *= 2
    self._count, self._mean, self._squares, self._min, self._max = 0, 0.0, 0.0, np.inf, -np.inf

  def add(self, rows: np.ndarray) -> None:
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2:
      raise ValueError(f"expected rows [n, D], got shape {rows.shape}")
    if not len(rows):
      return
    found = moments(rows)
    self._add_moments(len(rows), found, rows[-self._count % self._step :: self._step])

  def add_known(self, count: int, known: np.ndarray) -> bool:
    """As `add` of `count` rows of which only the `moments` are known; False, and nothing is added,
    where the sample needs some of them.
    """
    if -self._count % self._step < count:
      return False
    self._add_moments(count, known, None)
    return True

  def _add_moments(self, count: int, found: np.ndarray, sample: np.ndarray | None) -> None:
    mean, squares, low, high = found
    if not np.isfinite(mean).all():
      raise errors.UserError("statistics: the array holds values that are not finite")
    if sample is not None:
      self._sample.append(sample)
      self._held += len(sample)
    delta, total = mean - self._mean, self._count + count
    self._squares = self._squares + squares + delta**2 * (self._count * count / total)
    self._mean, self._count = self._mean + delta * (count / total), total
    self._min, self._max = np.minimum(self._min, low), np.maximum(self._max, high)
    while self._held > self._keep:
      self._sample = [np.concatenate(self._sample)[::2]]
      self._held, self._step = len(self._sample[0]), self._step * 2

  def finish(self) -> Statistics | None:
    """None when nothing was added."""
    if not self._count:
      return None
    sample = np.concatenate(self._sample)
    q01, q99 = np.quantile(sample, [0.01, 0.99], axis=0)
    std = np.sqrt(self._squares / self._count)
    binary = _two_valued(sample, self._min, self._max)
    return Statistics(self._count, self._mean, std, self._min, self._max, q01, q99, binary)


def _two_valued(rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
  """Bool [D]: whether almost all rows [n, D] are at one of the two ends, as the commands of a
  gripper are.

  Few may lie between: an action that is a mean over several frames does where the command changes.
  Fewer, too, than rows at the rarer end: a joint that rests most of the time and then moves has
  more values than two.
  """
  at_low, at_high = (rows - low <= noise(low)).mean(0), (high - rows <= noise(high)).mean(0)
  between = 1 - at_low - at_high
  moves = high - low > noise(np.maximum(np.abs(low), np.abs(high)))
  return moves & (between <= _MOST_BETWEEN) & (between <= np.minimum(at_low, at_high) + 1e-9)
