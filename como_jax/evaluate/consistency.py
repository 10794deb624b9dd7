"""S-PCFC and the shape of the latent cloud. Legend: N samples, Z latent width.

S-PCFC (CoMo, arXiv 2505.17006): cosine similarity of z(t-n -> t) and z(t+n -> t), two motions that
end in the same frame. A model that merely encodes the second frame gives exactly 1. An untrained
model may be well below 1 and a collapsed one at 1 for the dullest reason, so read it with
`effective_rank`.
"""

import dataclasses
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.evaluate import probes


@dataclasses.dataclass(frozen=True)
class Consistency:
  """Cosines of past-to-current and future-to-current motions."""

  mean: float  # S-PCFC; nan when no pair has a direction
  std: float
  quartiles: tuple[float, float, float]
  mean_centerd: (
    # the same after the mean z is taken away: an S-PCFC that falls a lot owed its height to a
    # constant offset
    float
  )
  values: np.ndarray  # [M] raw cosines of the pairs that have a direction
  histogram: np.ndarray  # int [bins], counts over [-1, 1]
  edges: np.ndarray  # [bins + 1]
  zeros: int  # pairs left out because one of the two latents is (nearly) zero and has no direction
  text: str


@dataclasses.dataclass(frozen=True)
class Rank:
  """How many directions z really uses, after its mean is taken away."""

  entropy: float  # exp of the entropy of the normalized singular values; 0 for a constant z
  participation: float  # (sum of variances)^2 / sum of squared variances along the principal axes
  dimensions: int  # Z
  singular_values: np.ndarray  # [min(N, Z)], largest first


def s_pcfc(past: Any, future: Any, *, bins: int = 40, floor: float = 1e-8) -> Consistency:
  """S-PCFC of latents past = z(t-n -> t) [N, Z] and future = z(t+n -> t) [N, Z].

  Args:
    bins: of the histogram over [-1, 1].
    floor: a latent shorter than this times the median length has no direction; its pair is left out
      and counted in `zeros`.

  Raises:
    errors.UserError: other shapes, or values that are not finite.
  """
  past, future = probes.finite(past, "z(t-n -> t)"), probes.finite(future, "z(t+n -> t)")
  if past.shape != future.shape:
    raise errors.UserError(
      f"z(t-n -> t) has shape {past.shape} and z(t+n -> t) {future.shape}, expected the same"
    )
  values, zeros = _cosines(past, future, floor)
  center = np.concatenate([past, future]).mean(axis=0)
  # Rounding leaves a residue where all latents are the same: hold the floor to the uncenterd
  # length.
  centerd, _ = _cosines(
    past - center, future - center, max(floor, 1e-12), reference=np.concatenate([past, future])
  )
  counts, edges = np.histogram(values, bins=bins, range=(-1.0, 1.0))
  text = f"{len(values)} pairs" + (
    f"; {zeros} more left out: a latent of length zero has no direction" if zeros else ""
  )
  if not len(values):
    return Consistency(np.nan, np.nan, (np.nan,) * 3, np.nan, values, counts, edges, zeros, text)
  quartiles = tuple(float(q) for q in np.quantile(values, (0.25, 0.5, 0.75)))
  return Consistency(
    mean=float(values.mean()),
    std=float(values.std()),
    quartiles=quartiles,
    mean_centerd=float(centerd.mean()) if len(centerd) else np.nan,
    values=values,
    histogram=counts,
    edges=edges,
    zeros=zeros,
    text=text,
  )


def effective_rank(z: Any, *, center: bool = True) -> Rank:
  """Effective rank (Roy and Vetterli 2007) and participation ratio of z [N, Z]; both lie between 1
  and Z, and are 0 for a constant z.

  Args:
    center: take the mean away first: a constant offset carries no motion.
  """
  z = probes.finite(z, "z")
  length = np.linalg.norm(z)
  if center:
    z = z - z.mean(axis=0)
  singular = np.linalg.svd(z, compute_uv=False)
  # what remains of a constant float32 z is rounding
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
  """(z projected on its first principal axes [N, dimensions], share of the variance along each
  [dimensions]), for plots.
  """
  z = probes.finite(z, "z")
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
  typical = np.median(
    np.linalg.norm(reference, axis=1) if reference is not None else np.concatenate(lengths)
  )
  known = np.minimum(*lengths) > floor * typical
  cosines = (first[known] * second[known]).sum(axis=1) / (lengths[0][known] * lengths[1][known])
  return np.clip(cosines, -1.0, 1.0), int((~known).sum())
