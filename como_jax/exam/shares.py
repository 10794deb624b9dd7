"""Variance components of z over complete twins, other cameras, and the speed of the camera.

Legend: M moves, C cameras, S scenes, Z latent width, N pairs, A target dimensions.

`variance_components` divides the variance of z by cause. `cross_decoding` predicts moves of one
camera with the probe of another. `dose` orders errors by the speed of the camera.

Pass whitened z (`whitening.scale_inputs`); otherwise directions of large variance dominate.
"""

import dataclasses
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.exam import kernel_ridge, motion_score, resampling, whitening
from como_jax.exam.resampling import Estimate

NAMES = ("motion", "camera", "scene", "motion x camera", "motion x scene", "camera x scene", "rest")


@dataclasses.dataclass(frozen=True)
class Shares:
  """Shares of the variance of z, which sum to 1.

  Attributes:
    shares: name from `NAMES` -> share, with its interval over groups of moves.
    raw: name -> variance component before clipping at 0.
    negative: names whose estimated component is below 0, that is, 0 within the noise; it counts
      as 0.
  """

  shares: dict[str, Estimate]
  raw: dict[str, float]
  negative: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Crossed:
  """Errors of probes that are fitted on one camera and predict another.

  Attributes:
    cameras: the cameras.
    e: [camera of the fit, camera that is predicted], on moves that were not fitted; nan if a camera
      has too few pairs.
  """

  cameras: tuple[Any, ...]
  e: np.ndarray

  @property
  def own(self) -> float:
    """Mean of e where a camera is predicted by its own probe."""
    return float(np.nanmean(np.diag(self.e)))

  @property
  def other(self) -> float:
    """Mean of e where a camera is predicted by the probe of another."""
    return float(np.nanmean(self.e[~np.eye(len(self.e), dtype=bool)]))


def variance_components(
  z: Any,
  *,
  groups: Any = None,
  whiten: bool = True,
  seed: int = 0,
  resamples: int = resampling.RESAMPLES,
) -> Shares:
  """Unbiased variance components of a crossed design with one value in each cell.

  Moves are random effects. Cameras and scenes are fixed effects, which sum to zero. MS is a mean
  square, and every cell has an independent rest of variance r. Then

    E MS_rest = r
    E MS_motion = CS v_motion + r
    E MS_mc = S C/(C-1) v_mc + r, E MS_ms likewise
    E MS_camera = M S C/(C-1) v_camera + S C/(C-1) v_mc + r, E MS_scene likewise
    E MS_cs = M CS/((C-1)(S-1)) v_cs + r

  v is the mean square of an effect over its levels, so the seven v sum to the variance of a cell. A
  three-way interaction cannot be separated from the rest. Source: Searle, Casella and McCulloch,
  Variance Components, 1992, chapter 4.

  Intervals are percentiles over bootstrap draws of groups of moves. The draws are shifted so that
  their mean is the estimate, because resampling adds the noise of the moves to the fixed effects a
  second time.

  Args:
    z: [M, C, S, Z]: every move is seen by every camera in every scene.
    groups: chain of each move [M]; None: each move is its own group.
    whiten: whiten z over all cells, so that the scale of its dimensions has no effect.
    seed: seed of the bootstrap.
    resamples: number of bootstrap draws.

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
  flat = whitening.matrix(z.reshape(-1, z.shape[3]), "z")
  flat = whitening.scale_inputs(flat)(flat) if whiten else flat - flat.mean(axis=0)
  groups = np.arange(moves) if groups is None else np.asarray(groups).reshape(-1)
  if len(groups) != moves:
    raise errors.UserError(f"groups: expected [{moves}], one for each move, found [{len(groups)}]")
  draws = resampling.groups_of(groups, seed=seed, resamples=resamples)
  weights = np.concatenate([np.ones((1, moves)), draws.counts[:, draws.index]])
  estimates = _from_mean_squares(
    *_sums_of_squares(flat.reshape(moves, cameras, scenes, -1), weights), weights, cameras, scenes
  )
  raw, drawn = estimates[0], estimates[1:]
  drawn = drawn + (raw - drawn.mean(axis=0))
  values, drawn = (_normalized(parts) for parts in (raw, drawn))
  shares = {n: resampling.estimate(values[k], drawn[:, k]) for k, n in enumerate(NAMES)}
  negative = tuple(name for name, value in zip(NAMES, raw, strict=False) if value < 0)
  return Shares(shares, dict(zip(NAMES, raw.tolist(), strict=False)), negative)


def _sums_of_squares(z: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Uncorrected sums of squares of cell means, for each draw of moves.

  Args:
    z: [M, C, S, Z].
    weights: how often each draw takes each move [B, M].

  Returns:
    by_move [B, 4]: for the means of each (move), (move, camera), (move, scene) and (move, camera,
      scene).
    overall [B, 4]: for the means over all moves: of everything, of each camera, of each scene, and
      of each camera and scene.
    Each square is multiplied by the number of cells of its mean.
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
    # The sums over draws are quadratic forms of the Gram matrix, so their cost does not depend on
    # the width of z.
    gram = repeats * (flat @ flat.T)
    by_move.append(weights @ np.diag(gram))
    overall.append(((weights @ gram) * weights).sum(axis=1) / weights.sum(axis=1))
  return np.stack(by_move, axis=1), np.stack(overall, axis=1)


def _from_mean_squares(
  by_move: np.ndarray, overall: np.ndarray, weights: np.ndarray, cameras: int, scenes: int
) -> np.ndarray:
  """Solves the equations of the expected mean squares: variance components [B, 7] as `NAMES`."""
  moves = weights.sum(axis=1)
  m, mc, ms, mcs = by_move.T
  total, c, s, cs = overall.T
  square_m = (m - total) / (moves - 1)
  square_c, square_s = (c - total) / (cameras - 1), (s - total) / (scenes - 1)
  square_mc = (mc - m - c + total) / ((moves - 1) * (cameras - 1))
  square_ms = (ms - m - s + total) / ((moves - 1) * (scenes - 1))
  square_cs = (cs - c - s + total) / ((cameras - 1) * (scenes - 1))
  rest = (mcs - mc - ms - cs + m + c + s - total) / ((moves - 1) * (cameras - 1) * (scenes - 1))
  factor_c, factor_s = (cameras - 1) / cameras, (scenes - 1) / scenes
  return np.stack(
    [
      (square_m - rest) / (cameras * scenes),
      (square_c - square_mc) * factor_c / (moves * scenes),
      (square_s - square_ms) * factor_s / (moves * cameras),
      (square_mc - rest) * factor_c / scenes,
      (square_ms - rest) * factor_s / cameras,
      (square_cs - rest) * factor_c * factor_s / moves,
      rest,
    ],
    axis=1,
  )


def _normalized(values: np.ndarray) -> np.ndarray:
  """Clips at 0 and divides by the sum over the last axis."""
  clipped = np.maximum(values, 0)
  total = clipped.sum(axis=-1, keepdims=True)
  return clipped / np.where(total > 0, total, 1.0)


def cross_decoding(
  z: Any, targets: Any, cameras: Any, groups: Any, *, seed: int = 0, least: int = 40
) -> Crossed:
  """Tests whether the probe of one camera predicts moves of another camera.

  It does if z holds the motion in the camera's frame. One quarter of the groups is held out, the
  same for every camera, so that the diagonal too is computed on moves that the probe has not seen.

  Args:
    z: [N, Z].
    targets: [N, A].
    cameras: camera of each pair [N].
    groups: group of each pair [N].
    seed: seed of the split.
    least: minimum number of pairs of a camera, both for the fit and for the prediction.

  Raises:
    errors.UserError: unequal lengths, values that are not finite.
  """
  z, targets = whitening.matrix(z, "z"), whitening.matrix(targets, "targets")
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
  # One whitening for all cameras: a single camera has too few pairs.
  scaled = whitening.scale_inputs(z)(z)
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
  """Computes e at each speed of the camera, slowest first, with intervals over groups.

  A speed with pairs of one group only has no interval and is left out.

  Args:
    errors_: errors [N, A].
    speed: speed of the camera [N], rounded to 4 decimals.
    moves: the pairs [N].
    seed: seed of the bootstrap.

  Raises:
    errors.UserError: unequal lengths.
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
    level: motion_score.e_estimate(values[selected], moves[selected], seed=seed)
    for level, selected in rows.items()
    if len(np.unique(groups[selected])) > 1
  }
