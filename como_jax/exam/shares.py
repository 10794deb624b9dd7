"""What z varies with over complete twins, and how its values relate to each other.

Legend: M moves, C cameras, S scenes, Z latent width, N pairs, A target dimensions.

`components` divides the variance of z by cause; `cross_decoding` reads moves of one camera with a
probe of another; `dose` orders errors by the camera's own speed; `additivity`, `reversal`, `static`
and `shifted` ask whether z adds up, turns around, vanishes and, elsewhere in the picture, stays as
a displacement does. Pass whitened z (`kernel_ridge.scale_inputs`), or loud directions decide.
"""

import dataclasses
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.exam import kernel_ridge, motion_score, resampling
from como_jax.exam.resampling import Estimate

NAMES = ("motion", "camera", "scene", "motion x camera", "motion x scene", "camera x scene", "rest")


@dataclasses.dataclass(frozen=True)
class Shares:
  """Shares of the variance of z, which sum to 1.

  Attributes:
    shares: by name, of `NAMES`, with intervals over groups of moves.
    raw: the variance components before clipping, by name.
    negative: names whose component came out below 0 (none is there, to within the noise) and counts
      as 0.
  """

  shares: dict[str, Estimate]
  raw: dict[str, float]
  negative: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Relation:
  """Squared length of what is left over, relative to that of z itself: 0 = exact, 1 = no better
  than predicting zero; and the mean cosine of prediction and z.
  """

  error: Estimate
  cosine: Estimate


@dataclasses.dataclass(frozen=True)
class Crossed:
  """e [fit camera, read camera] of moves that were not fitted; nan where a camera has too few
  pairs.
  """

  cameras: tuple[Any, ...]
  e: np.ndarray

  @property
  def own(self) -> float:
    """Mean of e where a camera is read with its own probe."""
    return float(np.nanmean(np.diag(self.e)))

  @property
  def other(self) -> float:
    """Mean of e where a camera is read with another's probe."""
    return float(np.nanmean(self.e[~np.eye(len(self.e), dtype=bool)]))


def components(
  z: Any,
  *,
  groups: Any = None,
  whiten: bool = True,
  seed: int = 0,
  resamples: int = resampling.RESAMPLES,
) -> Shares:
  """Unbiased variance components of a crossed design with one value in each cell.

  Moves are drawn at random; cameras and scenes are given levels, whose effects sum to zero. With
  mean squares MS and every cell having an independent rest of variance r, E MS_rest = r, E
  MS_motion = CS v_motion + r, E MS_mc = S C/(C-1) v_mc + r, E MS_ms likewise, E MS_camera = M S
  C/(C-1) v_camera + S C/(C-1) v_mc + r, E MS_scene likewise, E MS_cs = M CS/((C-1)(S-1)) v_cs + r;
  v is the mean square of an effect over its levels, so that the seven v sum to the variance of a
  cell. A three-way interaction cannot be told from the rest. (Searle, Casella and McCulloch,
  Variance Components, 1992, chapter 4.) Intervals are percentiles over draws of groups of moves,
  shifted so that the draws' mean is the estimate: drawing moves twice adds their noise to the given
  effects once more.

  Args:
    z: [M, C, S, Z], every move seen by every camera in every scene.
    groups: chain of each move [M]; None: each move by itself.
    whiten: over all cells, so that the scale of z's numbers plays no part.
    seed, resamples: of the intervals.

  Raises:
    errors.UserError: another rank, fewer than two of moves, cameras, scenes or groups, values that
      are not finite.
  """
  z = np.asarray(z, dtype=np.float64)
  if z.ndim != 4 or min(z.shape[:3], default=0) < 2:
    raise errors.UserError(
      f"z: expected [moves, cameras, scenes, Z], at least 2 of each, found {list(z.shape)}"
    )
  moves, cameras, scenes, _ = z.shape
  flat = kernel_ridge.matrix(z.reshape(-1, z.shape[3]), "z")
  flat = kernel_ridge.scale_inputs(flat)(flat) if whiten else flat - flat.mean(axis=0)
  groups = np.arange(moves) if groups is None else np.asarray(groups).reshape(-1)
  if len(groups) != moves:
    raise errors.UserError(f"groups: expected [{moves}], one for each move, found [{len(groups)}]")
  draws = resampling.groups_of(groups, seed=seed, resamples=resamples)
  weights = np.concatenate([np.ones((1, moves)), draws.counts[:, draws.index]])
  found = _expected(
    *_sums_of_squares(flat.reshape(moves, cameras, scenes, -1), weights), weights, cameras, scenes
  )
  raw, drawn = found[0], found[1:]
  drawn = drawn + (raw - drawn.mean(axis=0))
  values, drawn = (_normalized(some) for some in (raw, drawn))
  shares = {n: resampling.estimate(values[k], drawn[:, k]) for k, n in enumerate(NAMES)}
  negative = tuple(name for name, value in zip(NAMES, raw, strict=False) if value < 0)
  return Shares(shares, dict(zip(NAMES, raw.tolist(), strict=False)), negative)


def _sums_of_squares(z: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Uncorrected sums of squares of means over cells, for each draw of moves [B, M].

  Returns:
    ([B, 4] of the means of each (move), (move, camera), (move, scene), (move, camera, scene); [B,
    4] of the means over
    all moves: of everything, of each camera, of each scene, of each camera and scene), each times
      its cells.
  """
  moves, cameras, scenes, _ = z.shape
  cells = cameras * scenes
  means = (
    z.mean(axis=(1, 2), keepdims=True),
    z.mean(axis=2, keepdims=True),
    z.mean(axis=1, keepdims=True),
    z,
  )
  by_move, overall = [], []
  for mean in means:
    repeats = cells / (mean.shape[1] * mean.shape[2])
    flat = mean.reshape(moves, -1)
    gram = repeats * (
      flat @ flat.T
    )  # sums over draws are quadratic forms of it: the width of z plays no part
    by_move.append(weights @ np.diag(gram))
    overall.append(((weights @ gram) * weights).sum(axis=1) / weights.sum(axis=1))
  return np.stack(by_move, axis=1), np.stack(overall, axis=1)


def _expected(
  by_move: np.ndarray, overall: np.ndarray, weights: np.ndarray, cameras: int, scenes: int
) -> np.ndarray:
  """Variance components [B, 7], in the order of `NAMES`, that solve the expected mean squares."""
  moves = weights.sum(axis=1)
  m, mc, ms, mcs = by_move.T
  one, c, s, cs = overall.T
  square_m = (m - one) / (moves - 1)
  square_c, square_s = (c - one) / (cameras - 1), (s - one) / (scenes - 1)
  square_mc = (mc - m - c + one) / ((moves - 1) * (cameras - 1))
  square_ms = (ms - m - s + one) / ((moves - 1) * (scenes - 1))
  square_cs = (cs - c - s + one) / ((cameras - 1) * (scenes - 1))
  rest = (mcs - mc - ms - cs + m + c + s - one) / ((moves - 1) * (cameras - 1) * (scenes - 1))
  lost_c, lost_s = (cameras - 1) / cameras, (scenes - 1) / scenes
  return np.stack(
    [
      (square_m - rest) / (cameras * scenes),
      (square_c - square_mc) * lost_c / (moves * scenes),
      (square_s - square_ms) * lost_s / (moves * cameras),
      (square_mc - rest) * lost_c / scenes,
      (square_ms - rest) * lost_s / cameras,
      (square_cs - rest) * lost_c * lost_s / moves,
      rest,
    ],
    axis=1,
  )


def _normalized(values: np.ndarray) -> np.ndarray:
  clipped = np.maximum(values, 0)
  total = clipped.sum(axis=-1, keepdims=True)
  return clipped / np.where(total > 0, total, 1.0)


def cross_decoding(
  z: Any, targets: Any, cameras: Any, groups: Any, *, seed: int = 0, least: int = 40
) -> Crossed:
  """Whether one camera's probe reads another camera: where z is motion in the camera's frame, it
  does.

  One quarter of the groups is held out for every camera alike, so that the diagonal is read on
  moves that its probe has not seen either.

  Args:
    z, targets: [N, Z], [N, A].
    cameras, groups: of the pairs [N].
    seed: of the split.
    least: pairs to fit and pairs to read that a camera must have.

  Raises:
    errors.UserError: unequal lengths, values that are not finite.
  """
  z, targets = kernel_ridge.matrix(z, "z"), kernel_ridge.matrix(targets, "targets")
  cameras, groups = np.asarray(cameras).reshape(-1), np.asarray(groups).reshape(-1)
  if not len(z) == len(targets) == len(cameras) == len(groups):
    raise errors.UserError(
      f"z, targets, cameras and groups hold {len(z)}, {len(targets)}, {len(cameras)} and "
      f"{len(groups)} rows, expected equally many"
    )
  names, index = np.unique(groups, return_inverse=True)
  held = np.isin(
    index, np.random.default_rng([seed, 11]).permutation(len(names))[: max(len(names) // 4, 1)]
  )
  # one whitening for all: a camera has too few pairs for its own
  scaled = kernel_ridge.scale_inputs(z)(z)
  variance, levels = np.maximum((targets**2).mean(axis=0), 1e-300), np.unique(cameras)
  result = np.full((len(levels), len(levels)), np.nan)
  for i, fitted in enumerate(levels):
    rows = (cameras == fitted) & ~held
    if rows.sum() < least or len(np.unique(groups[rows])) < 2:
      continue
    probe = kernel_ridge.fit(
      scaled[rows], targets[rows], groups=groups[rows], seed=seed, whiten=False
    )
    for j, read in enumerate(levels):
      new = (cameras == read) & held
      if new.sum() >= least:
        error = motion_score.pair_errors(probe.predict(scaled[new]), targets[new], variance)
        result[i, j] = motion_score.e(error)
  return Crossed(tuple(levels.tolist()), result)


def dose(
  errors_: Any, speed: Any, moves: motion_score.Moves, *, seed: int = 0
) -> dict[float, Estimate]:
  """E of errors [N, A] at each speed of the camera [N], slowest first, with intervals over the
  moves' groups; a speed of one group alone has no interval and is left out.
  """
  values, speed, groups = (
    np.asarray(errors_),
    np.round(np.asarray(speed, dtype=float).reshape(-1), 4),
    np.asarray(moves.groups),
  )
  if not len(values) == len(speed) == len(groups):
    raise errors.UserError(
      f"errors, speed and groups hold {len(values)}, {len(speed)} and {len(groups)} rows, "
      "expected equally many"
    )
  rows = {float(level): speed == level for level in np.unique(speed)}
  return {
    level: motion_score.e_estimate(values[some], moves[some], seed=seed)
    for level, some in rows.items()
    if len(np.unique(groups[some])) > 1
  }


def additivity(
  z_ab: Any, z_bc: Any, z_ac: Any, *, groups: Any = None, zero: Any = None, seed: int = 0
) -> Relation:
  """z(a,b) + z(b,c) against z(a,c), [N, Z] each.

  `zero` [Z] is subtracted from all: by default the mean of z_ab and z_bc, because moves have mean
  zero by design; z of static pairs is not used, so that every latent can be asked. Then a latent
  that is only appearance has an error of 1, independent noise has 3.
  """
  z_ab, z_bc, z_ac = _same_shape(z_ab=z_ab, z_bc=z_bc, z_ac=z_ac)
  zero = (z_ab.mean(axis=0) + z_bc.mean(axis=0)) / 2 if zero is None else np.asarray(zero)
  return _relation(z_ab + z_bc - 2 * zero, z_ac - zero, groups, seed)


def reversal(
  z_ab: Any, z_ba: Any, *, groups: Any = None, zero: Any = None, seed: int = 0
) -> Relation:
  """-z(a,b) against z(b,a), [N, Z] each; `zero` as for `additivity` (by default the mean of z_ab).

  A latent that is only appearance has an error of 4, independent noise has 2.
  """
  z_ab, z_ba = _same_shape(z_ab=z_ab, z_ba=z_ba)
  zero = z_ab.mean(axis=0) if zero is None else np.asarray(zero)
  return _relation(zero - z_ab, z_ba - zero, groups, seed)


def shifted(
  z_ab: Any, z_shifted: Any, *, groups: Any = None, zero: Any = None, seed: int = 0
) -> Relation:
  """Z of two pictures against z of the same two, both moved by the same few pixels, [N, Z] each;
  `zero` as
  for `reversal`. Error 0: z is the same; 1: it is as far off as the mean of z; independent noise
  has 2.
  """
  z_ab, z_shifted = _same_shape(z_ab=z_ab, z_shifted=z_shifted)
  zero = z_ab.mean(axis=0) if zero is None else np.asarray(zero)
  return _relation(z_shifted - zero, z_ab - zero, groups, seed)


def static(z_aa: Any, z: Any) -> float:
  """Mean squared length of z of two equal pictures [V, Z] from the mean of z, relative to that of z
  [N, Z]: 0 = nothing moved and z says so, 1 = as long as where something moved.
  """
  z_aa, z = kernel_ridge.matrix(z_aa, "z_aa"), kernel_ridge.matrix(z, "z")
  if z_aa.shape[1] != z.shape[1]:
    raise errors.UserError(f"z_aa: expected [V, {z.shape[1]}], found {list(z_aa.shape)}")
  zero = z.mean(axis=0)
  whole = ((z - zero) ** 2).sum(axis=1).mean()
  return float(((z_aa - zero) ** 2).sum(axis=1).mean() / whole) if whole else float("nan")


def _same_shape(**arrays: Any) -> list[np.ndarray]:
  found = {name: kernel_ridge.matrix(values, name) for name, values in arrays.items()}
  (first, like), *others = found.items()
  for name, values in others:
    if values.shape != like.shape:
      raise errors.UserError(
        f"{name}: expected {list(like.shape)}, as {first}, found {list(values.shape)}"
      )
  return list(found.values())


def _relation(predicted: np.ndarray, truth: np.ndarray, groups: Any, seed: int) -> Relation:
  lengths = np.linalg.norm(predicted, axis=1) * np.linalg.norm(truth, axis=1)
  cosine = np.divide(
    (predicted * truth).sum(axis=1), lengths, out=np.zeros(len(truth)), where=lengths > 0
  )
  table = np.stack([((predicted - truth) ** 2).sum(axis=1), (truth**2).sum(axis=1), cosine], axis=1)
  draws = resampling.groups_of(np.arange(len(table)) if groups is None else groups, seed=seed)

  def ratio(mean: np.ndarray) -> np.ndarray:
    return mean[..., 0] / np.where(mean[..., 1] > 0, mean[..., 1], np.nan)

  return Relation(
    resampling.of_means(table, draws, ratio), resampling.of_means(table, draws, lambda m: m[..., 2])
  )
