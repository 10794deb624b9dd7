"""What the linear and the MLP probe share: checks, scaling, scores.

Legend: N samples, Z latent width, A target dimensions.

CoMo (arXiv 2505.17006) reports a probe's MSE without its split, scaling or optimizer, so both are
fixed here and printed with every number: targets are standardized by the training episodes, which
makes 1 "nothing known" and 0 "everything known" whatever the robot's units.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.evaluate import splits

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ProbeResult:
  """Held-out error of predicting targets from z.

  Normalized errors are in units of the training targets' variance, raw ones in squared units of the
  target.
  Dimensions
  that are constant in training have no normalized error: they are nan and left out of the means.
  """

  mse: float  # normalized, mean over dimensions; over folds if there are several
  mse_raw: float
  r2: float  # against the held-out mean
  names: tuple[str, ...]  # [A]
  mse_by_dimension: np.ndarray  # [A]
  mse_raw_by_dimension: np.ndarray  # [A]
  r2_by_dimension: np.ndarray  # [A]
  true: np.ndarray  # [M, A] held-out targets, raw units
  predicted: np.ndarray  # [M, A]
  index: np.ndarray  # int [M], sample numbers of the rows above
  errors: np.ndarray  # [M] normalized error of each of these samples
  standard_error: (
    float | None
  )  # of mse, over folds; for a single split, over its held-out episodes drawn again
  folds: int
  text: str  # scaling, split sizes, regularization: print it with the number
  # mse when fitted on half of the training episodes (linear probe on one split)
  half: float | None = None


def check(
  z: Any, targets: Any, episodes: Any, names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
  """Z [N, Z] and targets [N, A] as float64, episodes [N], names [A].

  Raises:
    errors.UserError: shapes that do not agree, or values that are not finite.
  """
  z, targets, episodes = finite(z, "z"), np.asarray(targets), np.asarray(episodes)
  targets = finite(targets[:, None] if targets.ndim == 1 else targets, "targets")
  if not len(z) == len(targets) == len(episodes):
    raise errors.UserError(
      f"z, targets and episodes hold {len(z)}, {len(targets)} and {len(episodes)} samples, "
      "expected the same number"
    )
  names = (
    tuple(names) if names is not None else tuple(f"dimension {i}" for i in range(targets.shape[1]))
  )
  if len(names) != targets.shape[1]:
    raise errors.UserError(
      f"{len(names)} names for {targets.shape[1]} target dimensions: {', '.join(names)}"
    )
  return z, targets, episodes, names


def finite(values: Any, what: str) -> np.ndarray:
  """The values as float64 [N, D], or a UserError that says how many rows are bad."""
  values = np.asarray(values, dtype=np.float64)
  if values.ndim != 2:
    raise errors.UserError(
      f"{what} has shape {values.shape}, expected two axes [samples, dimensions]"
    )
  bad = int((~np.isfinite(values)).any(axis=1).sum())
  if bad:
    raise errors.UserError(
      f"{what} has {bad} of {len(values)} rows with nan or infinity, expected finite numbers"
    )
  return values


def scale_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(mean, standard deviation, whether constant) of each column; the deviation of a constant column
  is 1, so that it can be divided by.
  """
  mean, deviation = values.mean(axis=0), values.std(axis=0)
  # Float32 data: what varies by less than a float32 step of its size does not vary.
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
  """Fits on each split's training side and scores its held-out side.

  Args:
    predict: (z_train, targets_train, episodes_train) -> a function of held-out z. Targets are
      standardized and so are the predictions.
    chosen: one split, or the folds.
    method: text about the fit, asked for after the last one.
  """
  parts, true, predicted, index, by_sample, constants = (
    [],
    [],
    [],
    [],
    [],
    np.zeros(targets.shape[1], bool),
  )
  for split in chosen:
    mean, scale, constant = scale_of(targets[split.train])
    fitted = predict(z[split.train], (targets[split.train] - mean) / scale, episodes[split.train])
    guess = fitted(z[split.held_out]) * scale + mean
    truth = targets[split.held_out]
    raw = np.mean((guess - truth) ** 2, axis=0)
    spread = np.mean((truth - truth.mean(axis=0)) ** 2, axis=0)
    r2 = 1.0 - np.divide(raw, spread, out=np.full_like(raw, np.nan), where=(spread > 0) & ~constant)
    by_sample.append(_mean(np.where(constant, np.nan, (guess - truth) ** 2 / scale**2), axis=1))
    parts.append((np.where(constant, np.nan, raw / scale**2), raw, r2))
    true.append(truth)
    predicted.append(guess)
    index.append(np.flatnonzero(split.held_out))
    constants |= constant
  normalized, raw, r2 = (
    np.stack(column) for column in zip(*parts, strict=False)
  )  # [folds, A] each
  by_fold = _mean(normalized, axis=1)
  folds = len(parts)
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
    true=np.concatenate(true),
    predicted=np.concatenate(predicted),
    index=np.concatenate(index),
    errors=np.concatenate(by_sample),
    standard_error=float(np.std(by_fold, ddof=1) / np.sqrt(folds))
    if folds > 1
    else bootstrap(by_sample[0], episodes[index[0]]),
    folds=folds,
    text="; ".join(text),
  )


def pool(
  results: Sequence[ProbeResult], labels: Sequence[str], episodes: Sequence[np.ndarray]
) -> ProbeResult:
  """One result of several robots, each probed on its own dimensions over its own samples; that of
  one robot alone is itself.

  Means are over all held-out samples, so each robot counts by its number of them. The samples of
  the robots stand behind each other; `true` and `predicted` hold nan in the dimensions of the
  others.

  Args:
    results: of a single split each.
    labels: of the robots, put before the names of their dimensions.
    episodes: of all samples of each robot, as given to its probe.
  """
  if len(results) == 1:
    return results[0]
  counts = np.array([len(one.errors) for one in results], np.float64)

  def mean(name):
    return float(_mean_of(np.array([getattr(one, name) for one in results], np.float64), counts))

  before = np.cumsum([0, *(len(ids) for ids in episodes)])
  index = np.concatenate([one.index + start for one, start in zip(results, before, strict=False)])
  errors_ = np.concatenate([one.errors for one in results])
  known = ~np.isnan(errors_)

  def joined(name):
    return np.concatenate([getattr(one, name) for one in results])

  parts = [
    f"{label}, {len(one.names)} dimensions: {one.text}"
    for label, one in zip(labels, results, strict=False)
  ]
  return ProbeResult(
    mse=mean("mse"),
    mse_raw=mean("mse_raw"),
    r2=mean("r2"),
    names=tuple(
      f"{label}: {name}" for label, one in zip(labels, results, strict=False) for name in one.names
    ),
    mse_by_dimension=joined("mse_by_dimension"),
    mse_raw_by_dimension=joined("mse_raw_by_dimension"),
    r2_by_dimension=joined("r2_by_dimension"),
    true=_diagonal([one.true for one in results]),
    predicted=_diagonal([one.predicted for one in results]),
    index=index,
    errors=errors_,
    standard_error=bootstrap(errors_[known], np.concatenate(episodes)[index[known]])
    if known.any()
    else None,
    folds=1,
    text=f"{len(results)} robots, mean over held-out samples; " + "; ".join(parts),
    half=None if any(one.half is None for one in results) else mean("half"),
  )


def _mean_of(values: np.ndarray, weights: np.ndarray) -> float:
  known = ~np.isnan(values)
  return np.average(values[known], weights=weights[known]) if known.any() else np.nan


def _diagonal(blocks: Sequence[np.ndarray]) -> np.ndarray:
  """Blocks [M_i, A_i] on the diagonal of one array, nan elsewhere."""
  found = np.full(np.sum([block.shape for block in blocks], axis=0), np.nan)
  row = column = 0
  for block in blocks:
    found[row : row + len(block), column : column + block.shape[1]] = block
    row, column = row + len(block), column + block.shape[1]
  return found


def gain(better: ProbeResult, worse: ProbeResult, episodes: Any) -> tuple[float, float | None]:
  """How much lower one probe's normalized error is than another's on the same held-out samples, and
  the standard error of that.

  Paired: which episodes are hard moves both errors alike, so this is known far better than either
  error.

  Args:
    better, worse: results on the same samples.
    episodes: [N] of all samples, as given to the probes.

  Raises:
    errors.UserError: the two were measured on other samples.
  """
  if not np.array_equal(better.index, worse.index):
    raise errors.UserError(
      "the two probes were scored on different samples, expected the same ones"
    )
  difference = worse.errors - better.errors
  told = np.isfinite(difference)  # a robot whose targets never change has no error
  if not told.any():
    return float("nan"), None
  return float(difference[told].mean()), bootstrap(
    difference[told], np.asarray(episodes)[better.index][told]
  )


def bootstrap(values: np.ndarray, episodes: np.ndarray, *, draws: int = 500) -> float | None:
  """Standard error of the mean of values [M] when the held-out episodes are drawn again; None with
  a single episode.
  """
  _, ids = np.unique(episodes, return_inverse=True)
  sums, counts = np.bincount(ids, values), np.bincount(ids)
  if len(sums) < 2:
    return None
  chosen = np.random.default_rng(0).integers(len(sums), size=(draws, len(sums)))
  return float(np.std(sums[chosen].sum(1) / counts[chosen].sum(1), ddof=1))


def _mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
  """The mean of what is not nan; nan, without a warning, where nothing is left."""
  known = ~np.isnan(values)
  count = known.sum(axis=axis)
  total = np.where(known, values, 0.0).sum(axis=axis)
  return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
