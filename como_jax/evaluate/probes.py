"""Scaling and scores that the linear and the MLP probe share.

CoMo (arXiv 2505.17006) reports the MSE of a probe without its split, scaling or optimizer. Here
they are fixed and printed with every number. Targets are standardized by the training episodes, so
that 1 means "nothing known" and 0 "everything known", whatever the units of the robot.

Legend: N samples, Z latent width, A target dimensions.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.evaluate import splits

# (z, targets, episodes) of the training samples -> a function z -> predictions
Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class ProbeResult:
  """Held-out error of predicting targets from z.

  Normalized errors are in units of the variance of the training targets. Raw errors are in squared
  units of the target. Dimensions that are constant in training have no normalized error: they are
  nan and left out of the means.

  Attributes:
    mse: normalized error, mean over dimensions and over folds.
    mse_raw: raw error, mean over dimensions and over folds.
    r2: R2 against the held-out mean.
    names: names of the dimensions [A].
    mse_by_dimension, mse_raw_by_dimension, r2_by_dimension: [A].
    true: held-out targets in raw units [M, A].
    predicted: predictions of them [M, A].
    index: sample numbers of these rows, int [M].
    errors: normalized error of each of these samples [M].
    standard_error: of `mse`: over folds, or for a single split by bootstrap over its held-out
      episodes.
    folds: number of folds; 1 for a single split.
    text: scaling, split sizes and regularization, to be printed with the numbers.
    half: `mse` of a fit on half of the training episodes (linear probe on a single split).
  """

  mse: float
  mse_raw: float
  r2: float
  names: tuple[str, ...]
  mse_by_dimension: np.ndarray
  mse_raw_by_dimension: np.ndarray
  r2_by_dimension: np.ndarray
  true: np.ndarray
  predicted: np.ndarray
  index: np.ndarray
  errors: np.ndarray
  standard_error: float | None
  folds: int
  text: str
  half: float | None = None


def scale_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Mean, standard deviation and whether constant, for each column.

  The standard deviation of a constant column is 1, so that columns can be divided by it.
  """
  mean, deviation = values.mean(axis=0), values.std(axis=0)
  # A column that varies by less than the float32 precision of its values counts as constant.
  constant = deviation <= 1e-7 * np.abs(values).max(axis=0)
  return mean, np.where(constant, 1.0, deviation), constant


def run(
  predict: Predict,
  z: np.ndarray,
  targets: np.ndarray,
  episodes: np.ndarray,
  *,
  names: tuple[str, ...],
  chosen: Sequence[splits.Split],
  method: Callable[[], str],
) -> ProbeResult:
  """Fits on the training side of each split and scores the held-out side.

  Args:
    predict: (z_train, targets_train, episodes_train) -> a function held-out z -> predictions.
      Targets and predictions are standardized.
    z: latents [N, Z].
    targets: [N, A].
    episodes: episode id of each sample [N].
    names: names of the target dimensions [A].
    chosen: one split, or the folds.
    method: returns a text about the fits; it is called after the last fit.
  """
  scored = [_score(predict, z, targets, episodes, split) for split in chosen]
  constants = np.any([fold.constant for fold in scored], axis=0)
  # [folds, A] each
  normalized, raw, r2 = (
    np.stack([getattr(fold, name) for fold in scored]) for name in ("normalized", "raw", "r2")
  )
  by_fold = _mean(normalized, axis=1)
  folds = len(scored)
  text = [method(), "targets standardized by the training episodes (1 = nothing known)"]
  text.append(
    str(chosen[0])
    if folds == 1
    else (
      f"{folds} folds by episode (first: {chosen[0]}); mean and standard error over folds, "
      "which share training data"
    )
  )
  if constants.any():
    text.append("constant in training, left out: " + ", ".join(np.asarray(names)[constants]))
  return ProbeResult(
    mse=float(_mean(by_fold)),
    mse_raw=float(raw.mean()),
    r2=float(_mean(r2)),
    names=names,
    mse_by_dimension=_mean(normalized, axis=0),
    mse_raw_by_dimension=raw.mean(axis=0),
    r2_by_dimension=_mean(r2, axis=0),
    true=np.concatenate([fold.truth for fold in scored]),
    predicted=np.concatenate([fold.prediction for fold in scored]),
    index=np.concatenate([fold.index for fold in scored]),
    errors=np.concatenate([fold.errors for fold in scored]),
    standard_error=float(np.std(by_fold, ddof=1) / np.sqrt(folds))
    if folds > 1
    else bootstrap(scored[0].errors, episodes[scored[0].index]),
    folds=folds,
    text="; ".join(text),
  )


@dataclasses.dataclass(frozen=True)
class _Fold:
  """The held-out side of one split.

  Attributes:
    truth: targets in raw units [M, A].
    prediction: predictions of them [M, A].
    index: sample numbers of these rows, int [M].
    constant: whether each dimension is constant in training, bool [A].
    normalized, raw, r2: scores of each dimension [A].
    errors: normalized error of each sample [M].
  """

  truth: np.ndarray
  prediction: np.ndarray
  index: np.ndarray
  constant: np.ndarray
  normalized: np.ndarray
  raw: np.ndarray
  r2: np.ndarray
  errors: np.ndarray


def _score(
  predict: Predict, z: np.ndarray, targets: np.ndarray, episodes: np.ndarray, split: splits.Split
) -> _Fold:
  """Fits on the training side of a split and scores the held-out side; arguments as for `run`."""
  mean, scale, constant = scale_of(targets[split.train])
  fitted = predict(z[split.train], (targets[split.train] - mean) / scale, episodes[split.train])
  prediction = fitted(z[split.held_out]) * scale + mean
  truth = targets[split.held_out]
  raw = np.mean((prediction - truth) ** 2, axis=0)
  variance = np.mean((truth - truth.mean(axis=0)) ** 2, axis=0)
  return _Fold(
    truth,
    prediction,
    np.flatnonzero(split.held_out),
    constant,
    normalized=np.where(constant, np.nan, raw / scale**2),
    raw=raw,
    r2=1.0
    - np.divide(raw, variance, out=np.full_like(raw, np.nan), where=(variance > 0) & ~constant),
    errors=_mean(np.where(constant, np.nan, (prediction - truth) ** 2 / scale**2), axis=1),
  )


def pool(
  results: Sequence[ProbeResult], labels: Sequence[str], episodes: Sequence[np.ndarray]
) -> ProbeResult:
  """Combines the results of several robots, each probed on its own dimensions and samples.

  Means are over all held-out samples, so that a robot has the weight of its number of samples. The
  samples of the robots are concatenated. `true` and `predicted` are nan in the dimensions of other
  robots. The result of a single robot is returned as it is.

  Args:
    results: one result per robot, each of a single split.
    labels: names of the robots, used as prefix of the names of their dimensions.
    episodes: episode ids of all samples of each robot, as passed to its probe.
  """
  if len(results) == 1:
    return results[0]
  counts = np.array([len(result.errors) for result in results], np.float64)

  def mean(name):
    return float(
      _mean_of(np.array([getattr(result, name) for result in results], np.float64), counts)
    )

  first_samples = np.cumsum([0, *(len(ids) for ids in episodes)])
  index = np.concatenate(
    [result.index + start for result, start in zip(results, first_samples, strict=False)]
  )
  errors_ = np.concatenate([result.errors for result in results])
  finite_errors = ~np.isnan(errors_)

  def concatenated(name):
    return np.concatenate([getattr(result, name) for result in results])

  parts = [
    f"{label}, {len(result.names)} dimensions: {result.text}"
    for label, result in zip(labels, results, strict=False)
  ]
  return ProbeResult(
    mse=mean("mse"),
    mse_raw=mean("mse_raw"),
    r2=mean("r2"),
    names=tuple(
      f"{label}: {name}"
      for label, result in zip(labels, results, strict=False)
      for name in result.names
    ),
    mse_by_dimension=concatenated("mse_by_dimension"),
    mse_raw_by_dimension=concatenated("mse_raw_by_dimension"),
    r2_by_dimension=concatenated("r2_by_dimension"),
    true=_diagonal([result.true for result in results]),
    predicted=_diagonal([result.predicted for result in results]),
    index=index,
    errors=errors_,
    standard_error=bootstrap(errors_[finite_errors], np.concatenate(episodes)[index[finite_errors]])
    if finite_errors.any()
    else None,
    folds=1,
    text=f"{len(results)} robots, mean over held-out samples; " + "; ".join(parts),
    half=None if any(result.half is None for result in results) else mean("half"),
  )


def _mean_of(values: np.ndarray, weights: np.ndarray) -> float:
  known = ~np.isnan(values)
  return np.average(values[known], weights=weights[known]) if known.any() else np.nan


def _diagonal(blocks: Sequence[np.ndarray]) -> np.ndarray:
  """Puts blocks [M_i, A_i] on the diagonal of one array that is nan elsewhere."""
  result = np.full(np.sum([block.shape for block in blocks], axis=0), np.nan)
  row = column = 0
  for block in blocks:
    result[row : row + len(block), column : column + block.shape[1]] = block
    row, column = row + len(block), column + block.shape[1]
  return result


def gain(better: ProbeResult, worse: ProbeResult, episodes: Any) -> tuple[float, float | None]:
  """The difference of two normalized errors on the same held-out samples, and its standard error.

  The samples are paired. The difficulty of the episodes changes both errors alike, so that the
  difference is known much more exactly than each error.

  Args:
    better: the result whose error is subtracted.
    worse: the result from whose error it is subtracted.
    episodes: episode ids of all samples [N], as passed to the probes.

  Raises:
    errors.UserError: the results are on different samples.
  """
  if not np.array_equal(better.index, worse.index):
    raise errors.UserError(
      "the two probes were scored on different samples, expected the same ones"
    )
  difference = worse.errors - better.errors
  known = np.isfinite(difference)  # a robot with constant targets has no error
  if not known.any():
    return float("nan"), None
  return float(difference[known].mean()), bootstrap(
    difference[known], np.asarray(episodes)[better.index][known]
  )


def bootstrap(values: np.ndarray, episodes: np.ndarray, *, draws: int = 500) -> float | None:
  """Standard error of a mean, by bootstrap over the held-out episodes.

  Args:
    values: [M].
    episodes: episode id of each value [M].
    draws: number of bootstrap draws.

  Returns:
    The standard error; None if there is only one episode.
  """
  _, ids = np.unique(episodes, return_inverse=True)
  sums, counts = np.bincount(ids, values), np.bincount(ids)
  if len(sums) < 2:
    return None
  chosen = np.random.default_rng(0).integers(len(sums), size=(draws, len(sums)))
  return float(np.std(sums[chosen].sum(1) / counts[chosen].sum(1), ddof=1))


def _mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
  """Mean of the values that are not nan; nan, without a warning, if there are none."""
  known = ~np.isnan(values)
  count = known.sum(axis=axis)
  total = np.where(known, values, 0.0).sum(axis=axis)
  return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
