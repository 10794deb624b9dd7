"""Kernel ridge regression that chooses its own kernel and ridge, with numpy alone.

Legend: N samples, Z input dimensions, R whitened directions, A target dimensions.

Inputs are whitened: a linear map of z that loses no information gives the same probe. So latents of
different widths can be compared. Kernel and ridge are chosen by the error on an inner held-out
quarter of the groups. The last ridge of the grid is infinite and predicts the mean of the targets,
so that no probe has to be much worse than a prediction of the mean.

All computations are in float64: numpy's float32 eigendecomposition was not faster. numpy has no
triangular solver, so the final fit solves by LU, at the cost of two Cholesky factorizations.
"""

import collections
import dataclasses
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.exam import whitening

KERNELS = ("linear", "rbf")
# Widths of the RBF kernel exp(-d2 / (width * median d2)), d2 = squared distance of two samples.
WIDTHS = (0.3, 1.0, 4.0, 16.0)
# The diagonal of every kernel is 1 (for the linear kernel: on average).
RIDGES = (*np.logspace(-5, 3, 12), np.inf)
_ROUNDING = 1e-12  # share of the largest squared distance: samples closer than this are equal
SELECT = 3000  # maximum number of samples in the choice, whose cost grows with the cube
HELD_OUT = 0.25  # share of the groups that is held out in the choice
CHUNK = 2048  # rows that are predicted at a time


@dataclasses.dataclass(frozen=True)
class Regressor:
  """The regression of the target dimensions that share a kernel and a ridge.

  Attributes:
    width: width of the RBF kernel; None: the linear kernel.
    dims: indices of the target dimensions.
    weights: coefficients of the directions [R, dims] for the linear kernel, dual coefficients of
      the samples [N, dims] for an RBF kernel.
  """

  width: float | None
  dims: np.ndarray
  weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class Probe:
  """A fitted regression.

  Attributes:
    scaling: scaling of the inputs.
    inputs: scaled inputs of the fit [N, R].
    unit: median squared distance of the samples; 0 if no RBF kernel was chosen.
    mean, scale: mean and standard deviation of the targets [A].
    regressors: one per kernel and ridge; target dimensions with an infinite ridge have none.
    chosen: (kernel width or None, ridge) for each target dimension.
    inner: errors [A] of the chosen kernel and ridge on the inner held-out groups, in units of the
      target's variance.
    text: describes the fit in one line.
  """

  scaling: whitening.Scaling
  inputs: np.ndarray
  unit: float
  mean: np.ndarray
  scale: np.ndarray
  regressors: tuple[Regressor, ...]
  chosen: tuple[tuple[float | None, float], ...]
  inner: np.ndarray
  text: str

  def predict(self, new: Any) -> np.ndarray:
    """Predicts targets [M, A] for new inputs [M, Z].

    Raises:
      errors.UserError: the width differs from that of the fitted inputs, or values are not finite.
    """
    new = whitening.matrix(new, "new inputs")
    if new.shape[1] != len(self.scaling.mean):
      raise errors.UserError(
        f"new inputs: expected [M, {len(self.scaling.mean)}], found {list(new.shape)}"
      )
    result = np.zeros((len(new), len(self.mean)))
    for begin in range(0, len(new), CHUNK):
      scaled = self.scaling(new[begin : begin + CHUNK])
      distance = None
      for regressor in self.regressors:
        if regressor.width is None:
          result[begin : begin + CHUNK, regressor.dims] = scaled @ regressor.weights
        else:
          distance = (
            whitening.squared_distance(scaled, self.inputs) if distance is None else distance
          )
          result[begin : begin + CHUNK, regressor.dims] = (
            np.exp(distance / (-regressor.width * self.unit)) @ regressor.weights
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
  """Fits linear and RBF kernel ridge regression and keeps the better one for each target.

  Args:
    inputs: [N, Z], finite.
    targets: [N, A], finite; each dimension is standardized.
    groups: group of each sample [N] (move, chain, trajectory), numbers or text; a group is never on
      both sides of the inner split.
    seed: seed of the inner split.
    whiten: False standardizes each input dimension instead. Use it for tokens of a picture, whose
      many directions of small variance hold noise.
    kernels: names from `KERNELS`.
    blocks: block number of each target dimension [A]; the dimensions of a block (for example the
      one-hot classes of a label) share kernel and ridge. None: each dimension has its own.

  Raises:
    errors.UserError: unequal lengths, values that are not finite, fewer than two groups, an unknown
      kernel.
  """
  inputs, targets, groups = (
    whitening.matrix(inputs, "inputs"),
    whitening.matrix(targets, "targets"),
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
  mean, scale = whitening.standard(targets)
  standardized = (targets - mean) / scale
  grid = _inner_errors(inputs, standardized, train, held, whiten=whiten, kernels=kernels)
  blocks = np.arange(targets.shape[1]) if blocks is None else np.asarray(blocks)
  best = np.array(
    [grid[:, :, blocks == blocks[a]].mean(axis=2).argmin() for a in range(targets.shape[1])],
    dtype=int,
  )
  widths = _widths(kernels)
  chosen = tuple((widths[b // len(RIDGES)], float(RIDGES[b % len(RIDGES)])) for b in best)
  scaling = whitening.scale_inputs(inputs, whiten)
  scaled = scaling(inputs)
  unit, regressors = _regressors(scaled, standardized, chosen)
  inner = grid.reshape(-1, targets.shape[1])[best, np.arange(targets.shape[1])]
  return Probe(
    scaling=scaling,
    inputs=scaled,
    unit=unit,
    mean=mean,
    scale=scale,
    regressors=regressors,
    chosen=chosen,
    inner=inner,
    text=_text(scaled, inputs, chosen, whiten=whiten, sizes=(len(train), len(held))),
  )


def inner_split(index: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Splits samples by group; returns the indices of (training, held-out) samples.

  If there are more than `SELECT` samples, it uses a random subset of the groups.

  Args:
    index: group number of each sample [N], 0 to G - 1.
    seed: seed of the split.

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
  """The grid of kernel widths; None is the linear kernel."""
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
  """Mean squared errors on held-out samples [kernels, ridges, A].

  Scaling and target means come from the training samples.
  """
  scaling = whitening.scale_inputs(inputs[train], whiten)
  fitted, new = scaling(inputs[train]), scaling(inputs[held])
  mean = targets[train].mean(axis=0)
  centered, truth = targets[train] - mean, targets[held] - mean
  result = np.full((len(_widths(kernels)), len(RIDGES), targets.shape[1]), np.inf)
  distance = cross = None
  for k, width in enumerate(_widths(kernels)):
    if width is None:
      directions, singular = whitening.principal(fitted)
      values, basis, projected = singular**2, new @ directions, directions.T @ (fitted.T @ centered)
    else:
      distance = whitening.squared_distance(fitted, fitted) if distance is None else distance
      cross = whitening.squared_distance(new, fitted) if cross is None else cross
      unit = width * _median(distance)
      if not unit:
        continue
      values, vectors = np.linalg.eigh(np.exp(distance / -unit))
      basis, projected = np.exp(cross / -unit) @ vectors, vectors.T @ centered
    for r, ridge in enumerate(RIDGES):
      predicted = basis @ (projected / (np.maximum(values, 0) + ridge)[:, None])
      result[k, r] = ((predicted - truth) ** 2).mean(axis=0)
  # If all inputs are equal, the median distance is 0 and any kernel predicts the mean.
  if not np.isfinite(result).any():
    result[:, -1] = (truth**2).mean(axis=0)
  return result


def _median(distance: np.ndarray) -> float:
  """Median squared distance between samples, from at most about a thousand samples.

  If more than half of the pairs of samples are equal (codes, classes), equal pairs are left out.
  """
  step = max(len(distance) // 1000, 1)
  values = distance[::step, ::step]
  values = values[~np.eye(len(values), dtype=bool)]
  apart = values > _ROUNDING * values.max(initial=0.0)
  if apart.sum() * 2 < len(values):
    values = values[apart]
  return float(np.median(values)) if len(values) else 0.0


def _regressors(
  scaled: np.ndarray, targets: np.ndarray, chosen: tuple
) -> tuple[float, tuple[Regressor, ...]]:
  """Fits on all samples; returns (median squared distance, regressors).

  Args:
    scaled: scaled inputs [N, R].
    targets: standardized targets [N, A].
    chosen: (kernel width or None, ridge) for each target dimension.
  """
  dims_by_choice = collections.defaultdict(list)
  for a, choice in enumerate(chosen):
    dims_by_choice[choice].append(a)
  distance, unit, regressors = None, 0.0, []
  for (width, ridge), dims in dims_by_choice.items():
    dims = np.array(dims)
    if np.isinf(ridge):
      continue  # predicts the mean, which needs no weights
    if width is None:
      directions, singular = whitening.principal(scaled)
      weights = directions @ (
        (directions.T @ (scaled.T @ targets[:, dims])) / (singular**2 + ridge)[:, None]
      )
    else:
      if distance is None:
        distance = whitening.squared_distance(scaled, scaled)
        unit = _median(distance) or 1.0
      gram = np.exp(distance / (-width * unit))
      gram.flat[:: len(gram) + 1] += ridge
      weights = np.linalg.solve(gram, targets[:, dims])
    regressors.append(Regressor(width, dims, weights))
  return unit, tuple(regressors)


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
