"""S-PCFC and the effective rank of the latents.

S-PCFC (CoMo, arXiv 2505.17006) is the cosine similarity of z(t-n -> t) and z(t+n -> t), two motions
that end in the same frame. A model that encodes only the second frame has exactly 1. An untrained
model can be well below 1, and a collapsed model has 1, so always read it with `effective_rank`.

Legend: N samples, Z latent width.
"""

import dataclasses
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.evaluate import arrays


@dataclasses.dataclass(frozen=True)
class Consistency:
  """Cosines of past-to-current and future-to-current motions.

  Attributes:
    mean: S-PCFC; nan if no pair has a direction.
    std, quartiles: of the cosines.
    mean_centered: S-PCFC after the mean of z is subtracted. If it is much lower than `mean`, a
      constant offset of z made `mean` high.
    values: cosines of the pairs that have a direction [M].
    histogram: counts over [-1, 1], int [bins].
    edges: edges of the histogram [bins + 1].
    zeros: number of pairs left out because one latent is (nearly) zero and has no direction.
    text: describes the pairs.
  """

  mean: float
  std: float
  quartiles: tuple[float, float, float]
  mean_centered: float
  values: np.ndarray
  histogram: np.ndarray
  edges: np.ndarray
  zeros: int
  text: str


@dataclasses.dataclass(frozen=True)
class Rank:
  """How many directions z uses.

  Attributes:
    entropy: effective rank: exp of the entropy of the normalized singular values; 0 for a constant
      z.
    participation: participation ratio: (sum of variances)^2 / sum of squared variances along the
      principal axes.
    dimensions: Z.
    singular_values: [min(N, Z)], largest first.
  """

  entropy: float
  participation: float
  dimensions: int
  singular_values: np.ndarray


def s_pcfc(past: Any, future: Any, *, bins: int = 40, floor: float = 1e-8) -> Consistency:
  """S-PCFC of pairs of latents.

  Args:
    past: z(t-n -> t) [N, Z].
    future: z(t+n -> t) [N, Z].
    bins: number of bins of the histogram over [-1, 1].
    floor: a latent that is shorter than this times the median length has no direction; its pair is
      left out and counted in `zeros`.

  Raises:
    errors.UserError: other shapes, or values that are not finite.
  """
  past, future = arrays.finite(past, "z(t-n -> t)"), arrays.finite(future, "z(t+n -> t)")
  if past.shape != future.shape:
    raise errors.UserError(
      f"z(t-n -> t) has shape {past.shape} and z(t+n -> t) {future.shape}, expected the same"
    )
  values, zeros = _cosines(past, future, floor)
  center = np.concatenate([past, future]).mean(axis=0)
  # If all latents are equal, rounding leaves small residues: compare them with the length of the
  # latents before centering.
  centered, _ = _cosines(
    past - center, future - center, max(floor, 1e-12), reference=np.concatenate([past, future])
  )
  counts, edges = np.histogram(values, bins=bins, range=(-1.0, 1.0))
  text = f"{len(values)} pairs" + (
    f"; {zeros} more left out: a latent of length zero has no direction" if zeros else ""
  )
  if not len(values):
    none = np.nan
    return Consistency(none, none, (none, none, none), none, values, counts, edges, zeros, text)
  lower, median, upper = (float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
  return Consistency(
    mean=float(values.mean()),
    std=float(values.std()),
    quartiles=(lower, median, upper),
    mean_centered=float(centered.mean()) if len(centered) else np.nan,
    values=values,
    histogram=counts,
    edges=edges,
    zeros=zeros,
    text=text,
  )


def effective_rank(z: Any, *, center: bool = True) -> Rank:
  """Effective rank and participation ratio of z.

  Both are between 1 and Z, and 0 for a constant z. Source: Roy and Vetterli, 2007.

  Args:
    z: latents [N, Z].
    center: subtract the mean first, because a constant offset holds no motion.
  """
  z = arrays.finite(z, "z")
  length = np.linalg.norm(z)
  if center:
    z = z - z.mean(axis=0)
  singular = np.linalg.svd(z, compute_uv=False)
  # Of a constant float32 z, centering leaves only rounding errors.
  singular = np.where(singular > 1e-7 * length, singular, 0.0)
  if not singular.any():
    return Rank(0.0, 0.0, z.shape[1], singular)
  share = singular[singular > 0] / singular.sum()
  power = singular**2
  return Rank(
    entropy=float(np.exp(-(share * np.log(share)).sum())),
    participation=float(power.sum() ** 2 / (power**2).sum()),
    dimensions=z.shape[1],
    singular_values=singular,
  )


def principal_components(z: Any, dimensions: int = 2) -> tuple[np.ndarray, np.ndarray]:
  """Projects z on its first principal axes, for plots.

  Args:
    z: latents [N, Z].
    dimensions: number of axes.

  Returns:
    (projections [N, dimensions], share of the variance along each axis [dimensions]).
  """
  z = arrays.finite(z, "z")
  left, singular, _ = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
  points, share = np.zeros((len(z), dimensions)), np.zeros(dimensions)
  kept = min(dimensions, len(singular))
  points[:, :kept] = left[:, :kept] * singular[:kept]
  if singular.any():
    share[:kept] = (singular**2 / (singular**2).sum())[:kept]
  return points, share


def _cosines(
  first: np.ndarray, second: np.ndarray, floor: float, reference: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
  lengths = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
  median = np.median(
    np.linalg.norm(reference, axis=1) if reference is not None else np.concatenate(lengths)
  )
  valid = np.minimum(*lengths) > floor * median
  cosines = (first[valid] * second[valid]).sum(axis=1) / (lengths[0][valid] * lengths[1][valid])
  return np.clip(cosines, -1.0, 1.0), int((~valid).sum())
