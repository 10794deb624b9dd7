"""Statistics of actions, states and latents, and normalization with them.

The statistics are computed in one pass over the rows. A normalization can be inverted.

Legend: D numbers of a row.
"""

import dataclasses

import numpy as np

from como_jax import errors
from como_jax.data import value_transforms

MODES = ("standard", "quantile")
_FIELDS = ("mean", "std", "min", "max", "q01", "q99")
_SMALL = 1e-6  # in the unit of the array; smaller differences count as none
# Relative. Float32 arithmetic changes a constant value by up to this.
_NOISE = 16 * float(np.finfo(np.float32).eps)
# Largest share of rows between the two values of a two-valued dimension. A row that is a mean over
# a switch lies between them.
_MAX_BETWEEN = 0.05


def noise(value: np.ndarray) -> np.ndarray:
  """The largest difference at which two numbers near `value` count as equal."""
  return np.maximum(_SMALL, _NOISE * np.abs(value))


@dataclasses.dataclass(frozen=True)
class Statistics:
  """Statistics of one array over all rows, float64 [D] each.

  Attributes:
    count: number of rows.
    mean: mean.
    std: standard deviation.
    min: minimum.
    max: maximum.
    q01: 1 % quantile.
    q99: 99 % quantile.
    binary: dimensions with only two values, `min` and `max`, up to a few rows between them, bool
      [D]. None when unknown, which is the same as all False.
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
    """Dimensions that are constant up to the noise of float32, bool [D]."""
    return self.max - self.min <= noise(np.maximum(np.abs(self.min), np.abs(self.max)))

  @property
  def two_valued(self) -> np.ndarray:
    """Dimensions that are `binary` and not constant, bool [D]; all False when it is unknown."""
    return np.zeros(len(self.mean), bool) if self.binary is None else self.binary & ~self.constant

  def _affine(self, mode: str) -> tuple[np.ndarray, np.ndarray]:
    middle, half = (self.max + self.min) / 2, (self.max - self.min) / 2
    if mode == "standard":
      shift, scale = self.mean, self.std
    elif mode == "quantile":
      shift, scale = (self.q99 + self.q01) / 2, (self.q99 - self.q01) / 2
      # A dimension that rests for 98 % of the time has equal quantiles. Its other values must not
      # be scaled up, so it is scaled by its range.
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
    result: list[value_transforms.ValueTransform] = [
      value_transforms.Affine(tuple(shift.tolist()), tuple(scale.tolist()))
    ]
    if self.constant.any():
      dims = np.flatnonzero(self.constant)
      result.append(
        value_transforms.Constant(tuple(dims.tolist()), tuple(self.mean[dims].tolist()))
      )
    if snap and self.two_valued.any():
      dims = np.flatnonzero(self.two_valued)
      low, high = self.min[dims], self.max[dims]
      result.append(
        value_transforms.TwoValued(tuple(dims.tolist()), tuple(low.tolist()), tuple(high.tolist()))
      )
    return tuple(result)

  def normalize(self, x: np.ndarray, mode: str = "standard") -> np.ndarray:
    """Normalizes values.

    In both modes, the two values of a two-valued dimension become -1 and 1, and a constant
    dimension becomes 0.

    Args:
      x: [..., D].
      mode: "standard" gives mean 0 and standard deviation 1. "quantile" maps [q01, q99] to [-1, 1].

    Returns:
      [..., D] with the dtype of x.

    Raises:
      errors.UserError: the mode is unknown.
    """
    return value_transforms.apply(self.transforms(mode), x)

  def inverse(self, x: np.ndarray, mode: str = "standard") -> np.ndarray:
    """Inverts `normalize`. A constant dimension becomes its constant, for any x."""
    return value_transforms.invert(self.transforms(mode), x)

  def to_json(self) -> dict:
    """The statistics as JSON values."""
    values = {name: getattr(self, name).tolist() for name in _FIELDS}
    return {"count": self.count, **values, "binary": self.two_valued.tolist()}

  @classmethod
  def from_json(cls, values: dict) -> "Statistics":
    """Makes `Statistics` of the values that `to_json` returned."""
    # Older files do not have "binary".
    binary = np.asarray(values["binary"], bool) if "binary" in values else None
    return cls(
      int(values["count"]),
      **{name: np.asarray(values[name], np.float64) for name in _FIELDS},
      binary=binary,
    )


def moments(rows: np.ndarray) -> np.ndarray:
  """Computes the moments of rows.

  Args:
    rows: [n, D], n at least 1.

  Returns:
    float64 [4, D]: mean, sum of squared deviations from the mean, minimum, maximum. If a value is
    not finite, the mean is not finite.
  """
  rows = np.asarray(rows, np.float64)
  with np.errstate(invalid="ignore"):
    mean = rows.mean(0)
    return np.stack([mean, ((rows - mean) ** 2).sum(0), rows.min(0), rows.max(0)])


class Accumulator:
  """Computes statistics of rows [n, D] that are added in any number of pieces.

  Mean and standard deviation are merged exactly (Chan et al. 1979). The quantiles are exact for up
  to `sample_size` rows. For more rows they come from every k-th row, so that memory is bounded and
  the result is deterministic.
  """

  def __init__(self, sample_size: int = 200_000, *, expected: int = 0):
    """Starts without rows.

    Args:
      sample_size: largest number of rows in the sample for the quantiles.
      expected: number of rows that will be added, if known. The sample then skips rows from the
        start. Its final content is the same.
    """
    self._sample_size, self._step, self._held = sample_size, 1, 0
    self._sample: list[np.ndarray] = []
    while -(-expected // self._step) > sample_size:
      self._step *= 2
    self._count = 0
    self._mean, self._squares = np.zeros(()), np.zeros(())
    self._min, self._max = np.full((), np.inf), np.full((), -np.inf)

  def add(self, rows: np.ndarray) -> None:
    """Adds rows [n, D]. Raises `errors.UserError` when a value is not finite."""
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2:
      raise ValueError(f"expected rows [n, D], got shape {rows.shape}")
    if not len(rows):
      return
    self._add_moments(len(rows), moments(rows), rows[-self._count % self._step :: self._step])

  def add_known(self, count: int, known: np.ndarray) -> bool:
    """Adds rows of which only the `moments` are known.

    Args:
      count: number of rows.
      known: their `moments`.

    Returns:
      False if the sample needs some of the rows; then nothing is added.
    """
    if -self._count % self._step < count:
      return False
    self._add_moments(count, known, None)
    return True

  def _add_moments(
    self, count: int, moments_of_rows: np.ndarray, sample: np.ndarray | None
  ) -> None:
    mean, squares, low, high = moments_of_rows
    if not np.isfinite(mean).all():
      raise errors.UserError("statistics: the array holds values that are not finite")
    if sample is not None:
      self._sample.append(sample)
      self._held += len(sample)
    delta, total = mean - self._mean, self._count + count
    self._squares = self._squares + squares + delta**2 * (self._count * count / total)
    self._mean, self._count = self._mean + delta * (count / total), total
    self._min, self._max = np.minimum(self._min, low), np.maximum(self._max, high)
    while self._held > self._sample_size:
      self._sample = [np.concatenate(self._sample)[::2]]
      self._held, self._step = len(self._sample[0]), self._step * 2

  def finish(self) -> Statistics | None:
    """The statistics of all rows added, None when there are none."""
    if not self._count:
      return None
    sample = np.concatenate(self._sample)
    q01, q99 = np.quantile(sample, [0.01, 0.99], axis=0)
    std = np.sqrt(self._squares / self._count)
    binary = _two_valued(sample, self._min, self._max)
    return Statistics(self._count, self._mean, std, self._min, self._max, q01, q99, binary)


def _two_valued(rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
  """Dimensions with almost all rows at the minimum or the maximum, as for a gripper, bool [D].

  A few rows may lie between the two: an action that is a mean over several frames does, where the
  command changes. There must also be fewer of them than rows at the rarer of the two values. So a
  joint that rests most of the time and then moves is not two-valued.

  Args:
    rows: [n, D].
    low: minimum, [D].
    high: maximum, [D].
  """
  at_low, at_high = (rows - low <= noise(low)).mean(0), (high - rows <= noise(high)).mean(0)
  return two_valued(at_low, at_high, low, high)


def two_valued(
  at_low: np.ndarray, at_high: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
  """Dimensions with two values, see `_two_valued`, by the shares of rows at each of them, [D]."""
  between = 1 - at_low - at_high
  moves = high - low > noise(np.maximum(np.abs(low), np.abs(high)))
  return moves & (between <= _MAX_BETWEEN) & (between <= np.minimum(at_low, at_high) + 1e-9)
