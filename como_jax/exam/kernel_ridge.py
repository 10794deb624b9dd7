"""Kernel ridge regression that chooses its own kernel and ridge, with numpy alone.

Legend: N samples, Z input numbers, R whitened directions, A target dimensions.

Inputs are whitened: any linear map of z to as many or more numbers, if it loses nothing, gives the
same probe. So latents of different widths can be compared. Kernel and ridge are chosen by the error
on an inner held-out quarter of the groups; the last ridge of the grid is infinite, which predicts
the mean of the targets: no probe has to be much worse than knowing nothing. Everything is float64:
numpy's float32 eigendecomposition was not faster. numpy has no triangular solver, so the last fit
solves by LU, at the price of two Cholesky factorizations.
"""

import collections
import dataclasses
from typing import Any

import numpy as np

from como_jax import errors

KERNELS = ("linear", "rbf")
WIDTHS = (
  0.3,
  1.0,
  4.0,
  16.0,
)  # of the RBF kernel exp(-d2 / (width * median d2)), d2 = squared distance of two samples
RIDGES = (
  *np.logspace(-5, 3, 12),
  np.inf,
)  # the diagonal of every kernel is 1 (on average, for the linear one)
SMALLEST = 1e-5  # directions with a singular value below this share of the largest are dropped
_ROUNDING = 1e-12  # of the largest squared distance: samples this near are the same
SELECT = 3000  # samples of the choice, at most: the eigendecomposition grows with the cube
HELD_OUT = 0.25  # of the groups, in the choice
CHUNK = 2048  # rows of a prediction at a time


@dataclasses.dataclass(frozen=True)
class Scaling:
  """Linear map [Z, R] of inputs minus their mean [Z]; the mean squared norm of a scaled sample is
  1.
  """

  mean: np.ndarray
  gain: np.ndarray

  def __call__(self, inputs: np.ndarray) -> np.ndarray:
    centered = inputs - self.mean
    return centered * self.gain if self.gain.ndim == 1 else centered @ self.gain


@dataclasses.dataclass(frozen=True)
class Part:
  """Weights of the target dimensions that share a choice: [R, dims] (linear, width None) or [N,
  dims] (RBF).
  """

  width: float | None
  dims: np.ndarray
  weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class Probe:
  """A fitted regression; `text` says what was chosen, `chosen` holds (kernel width or None, ridge)
  of each target dimension, `inner` the errors of the choice [A] on held-out groups, in units of the
  target's variance.
  """

  scaling: Scaling
  inputs: np.ndarray  # scaled, [N, R]
  unit: float  # median squared distance, or 0
  mean: np.ndarray
  scale: np.ndarray
  parts: tuple[Part, ...]
  chosen: tuple[tuple[float | None, float], ...]
  inner: np.ndarray
  text: str

  def predict(self, new: Any) -> np.ndarray:
    """Targets [M, A] of new inputs [M, Z].

    Raises:
      errors.UserError: another width than the fitted inputs', or values that are not finite.
    """
    new = matrix(new, "new inputs")
    if new.shape[1] != len(self.scaling.mean):
      raise errors.UserError(
        f"new inputs: expected [M, {len(self.scaling.mean)}], found {list(new.shape)}"
      )
    result = np.zeros((len(new), len(self.mean)))
    for begin in range(0, len(new), CHUNK):
      scaled = self.scaling(new[begin : begin + CHUNK])
      distance = None
      for part in self.parts:
        if part.width is None:
          result[begin : begin + CHUNK, part.dims] = scaled @ part.weights
        else:
          distance = squared_distance(scaled, self.inputs) if distance is None else distance
          result[begin : begin + CHUNK, part.dims] = (
            np.exp(distance / (-part.width * self.unit)) @ part.weights
          )
    return result * self.scale + self.mean


def fit(
  inputs: Any,
  targets: Any,
  *,
  groups: Any,
  seed: int = 0,
  whiten: bool = True,
  kernels: tuple[str, ...] = KERNELS,
  blocks: Any = None,
) -> Probe:
  """Fits the best of linear and RBF kernel ridge regression.

  Args:
    inputs: [N, Z], finite.
    targets: [N, A], finite; each dimension is standardized.
    groups: of the samples [N] (moves, chains, trajectories), numbers or text; never on both sides
      of the inner split.
    seed: of the inner split.
    whiten: False standardizes each input by itself instead: for tokens of a picture, whose many
      faint directions hold noise.
    kernels: names, of `KERNELS`.
    blocks: number of a block for each target dimension [A]: those of a block (one-hot classes of a
      label) share kernel and ridge. None: each has its own.

  Raises:
    errors.UserError: unequal lengths, values that are not finite, fewer than two groups, an unknown
      kernel.
  """
  inputs, targets, groups = (
    matrix(inputs, "inputs"),
    matrix(targets, "targets"),
    np.asarray(groups).reshape(-1),
  )
  if not len(inputs) == len(targets) == len(groups):
    raise errors.UserError(
      f"inputs, targets and groups hold {len(inputs)}, {len(targets)} and {len(groups)} samples, "
      "expected equally many"
    )
  for name in kernels:
    if name not in KERNELS:
      raise errors.UserError(f"kernel {name!r} is not known: {errors.nearest(name, KERNELS)}")
  _, index = np.unique(groups, return_inverse=True)
  train, held = inner_split(index, seed)
  mean, scale = standard(targets)
  standardized = (targets - mean) / scale
  grid = _inner_errors(inputs, standardized, train, held, whiten=whiten, kernels=kernels)
  blocks = np.arange(targets.shape[1]) if blocks is None else np.asarray(blocks)
  best = np.array(
    [grid[:, :, blocks == blocks[a]].mean(axis=2).argmin() for a in range(targets.shape[1])],
    dtype=int,
  )
  widths = _widths(kernels)
  chosen = tuple((widths[b // len(RIDGES)], float(RIDGES[b % len(RIDGES)])) for b in best)
  scaling = scale_inputs(inputs, whiten)
  scaled = scaling(inputs)
  unit, parts = _weights(scaled, standardized, chosen)
  inner = grid.reshape(-1, targets.shape[1])[best, np.arange(targets.shape[1])]
  return Probe(
    scaling=scaling,
    inputs=scaled,
    unit=unit,
    mean=mean,
    scale=scale,
    parts=parts,
    chosen=chosen,
    inner=inner,
    text=_text(scaled, inputs, chosen, whiten=whiten, sizes=(len(train), len(held))),
  )


def matrix(values: Any, name: str) -> np.ndarray:
  """[N, K] in float64. Raises errors.UserError: another rank, or values that are not finite."""
  values = np.asarray(values, dtype=np.float64)
  if values.ndim != 2:
    raise errors.UserError(
      f"{name}: expected two axes [samples, numbers], found {list(values.shape)}"
    )
  wrong = int((~np.isfinite(values)).any(axis=1).sum())
  if wrong:
    raise errors.UserError(f"{name}: {wrong} of {len(values)} rows hold values that are not finite")
  return values


def standard(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation [K] of values [N, K]; 1 where the values are constant."""
  mean, deviation = values.mean(axis=0), values.std(axis=0)
  return mean, np.where(deviation > 1e-12 * (np.abs(mean) + 1e-300), deviation, 1.0)


def scale_inputs(inputs: np.ndarray, whiten: bool = True) -> Scaling:
  """Whitening by principal components [Z, R], or standardization of each number by itself [Z]; see
  `fit`.

  Only directions above `SMALLEST` are kept: rounding of float32 latents lies below it. Latents
  rounded to 16 bits have directions of rounding noise above it; save latents in float32.
  """
  mean = inputs.mean(axis=0)
  if not whiten:
    _, deviation = standard(inputs)
    constant = np.ptp(inputs, axis=0) == 0
    return Scaling(
      mean, np.where(constant, 0.0, 1 / deviation) / np.sqrt(max((~constant).sum(), 1))
    )
  centered = inputs - mean
  directions, singular = principal(centered)
  kept = singular > SMALLEST * max(singular.max(initial=0.0), 1e-300)
  unit = np.sqrt(len(inputs) / max(kept.sum(), 1))
  return Scaling(mean, directions[:, kept] * (unit / singular[kept]))


def principal(centered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Principal directions [Z, min(N, Z)] and singular values of centered inputs [N, Z], the largest
  first.
  """
  if centered.shape[0] >= centered.shape[1]:
    values, vectors = np.linalg.eigh(centered.T @ centered)
    return vectors[:, ::-1], np.sqrt(np.maximum(values[::-1], 0))
  values, vectors = np.linalg.eigh(centered @ centered.T)
  singular = np.sqrt(np.maximum(values[::-1], 0))
  return centered.T @ vectors[:, ::-1] / np.maximum(
    singular, 1e-12 * max(singular.max(initial=0.0), 1e-300)
  ), singular


def squared_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """[M, R] and [N, R] -> [M, N]."""
  result = one @ other.T
  result *= -2
  result += (one**2).sum(axis=1)[:, None]
  result += (other**2).sum(axis=1)
  return np.maximum(result, 0, out=result)


def inner_split(index: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Positions (training, held-out) of samples whose groups are numbered 0 to G - 1; of a drawn
  subset of the groups where there are more than `SELECT` samples.

  Raises:
    errors.UserError: fewer than two groups.
  """
  sizes = np.bincount(index)
  if len(sizes) < 2:
    raise errors.UserError(
      f"kernel ridge needs at least 2 groups to choose by held-out groups, found {len(sizes)}"
    )
  order = np.random.default_rng(seed).permutation(len(sizes))
  inside = np.cumsum(sizes[order]) <= max(SELECT, sizes[order[:2]].sum())
  order = order[inside]
  count = min(max(round(HELD_OUT * len(order)), 1), len(order) - 1)
  return np.flatnonzero(np.isin(index, order[count:])), np.flatnonzero(
    np.isin(index, order[:count])
  )


def _widths(kernels: tuple[str, ...]) -> list[float | None]:
  return [width for name in kernels for width in ((None,) if name == "linear" else WIDTHS)]


def _inner_errors(
  inputs: np.ndarray,
  targets: np.ndarray,
  train: np.ndarray,
  held: np.ndarray,
  *,
  whiten: bool,
  kernels: tuple[str, ...],
) -> np.ndarray:
  """Mean squared error [kernels, ridges, A] on held-out samples; scaling and means are those of the
  training samples.
  """
  scaling = scale_inputs(inputs[train], whiten)
  fitted, new = scaling(inputs[train]), scaling(inputs[held])
  mean = targets[train].mean(axis=0)
  wanted, truth = targets[train] - mean, targets[held] - mean
  result = np.full((len(_widths(kernels)), len(RIDGES), targets.shape[1]), np.inf)
  distance = cross = None
  for k, width in enumerate(_widths(kernels)):
    if width is None:
      directions, singular = principal(fitted)
      values, basis, projected = singular**2, new @ directions, directions.T @ (fitted.T @ wanted)
    else:
      distance = squared_distance(fitted, fitted) if distance is None else distance
      cross = squared_distance(new, fitted) if cross is None else cross
      unit = width * _median(distance)
      if not unit:
        continue
      values, vectors = np.linalg.eigh(np.exp(distance / -unit))
      basis, projected = np.exp(cross / -unit) @ vectors, vectors.T @ wanted
    for r, ridge in enumerate(RIDGES):
      predicted = basis @ (projected / (np.maximum(values, 0) + ridge)[:, None])
      result[k, r] = ((predicted - truth) ** 2).mean(axis=0)
  # inputs that are all the same have no distance: any kernel is the mean
  if not np.isfinite(result).any():
    result[:, -1] = (truth**2).mean(axis=0)
  return result


def _median(distance: np.ndarray) -> float:
  """Median squared distance of different samples, of at most a thousand; of those that are apart,
  where more than half are not (codes, classes).
  """
  step = max(len(distance) // 1000, 1)
  few = distance[::step, ::step]
  few = few[~np.eye(len(few), dtype=bool)]
  apart = few > _ROUNDING * few.max(initial=0.0)
  if apart.sum() * 2 < len(few):
    few = few[apart]
  return float(np.median(few)) if len(few) else 0.0


def _weights(
  scaled: np.ndarray, targets: np.ndarray, chosen: tuple
) -> tuple[float, tuple[Part, ...]]:
  """(median squared distance, weights) of the last fit on every sample; targets are
  standardized.
  """
  same = collections.defaultdict(list)
  for a, choice in enumerate(chosen):
    same[choice].append(a)
  distance, unit, parts = None, 0.0, []
  for (width, ridge), dims in same.items():
    dims = np.array(dims)
    if np.isinf(ridge):
      continue  # the mean
    if width is None:
      directions, singular = principal(scaled)
      weights = directions @ (
        (directions.T @ (scaled.T @ targets[:, dims])) / (singular**2 + ridge)[:, None]
      )
    else:
      if distance is None:
        distance = squared_distance(scaled, scaled)
        unit = _median(distance) or 1.0
      gram = np.exp(distance / (-width * unit))
      gram.flat[:: len(gram) + 1] += ridge
      weights = np.linalg.solve(gram, targets[:, dims])
    parts.append(Part(width, dims, weights))
  return unit, tuple(parts)


def _text(
  scaled: np.ndarray, inputs: np.ndarray, chosen: tuple, *, whiten: bool, sizes: tuple[int, int]
) -> str:
  counts = collections.Counter(chosen)
  names = [
    (
      "the mean"
      if np.isinf(ridge)
      else f"{'linear' if width is None else f'RBF of width {width:g}'}, ridge {ridge:.2g}"
    )
    + (f" ({count} of {len(chosen)} targets)" if len(counts) > 1 else "")
    for (width, ridge), count in counts.most_common()
  ]
  kind = (
    f"{scaled.shape[1]} whitened directions of {inputs.shape[1]} numbers"
    if whiten
    else f"{inputs.shape[1]} standardized numbers"
  )
  samples = f"chosen on {sizes[1]:,} held-out of {sum(sizes):,} samples, fitted on {len(inputs):,}"
  return f"kernel ridge on {kind}: {'; '.join(names)}; {samples}"
