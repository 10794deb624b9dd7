"""Relations between latents.

They test whether z behaves like a displacement: z adds up, changes its sign for reversed pairs, is
zero for equal pictures, and does not depend on the location in the picture.

Pass whitened z (`whitening.scale_inputs`); otherwise directions of large variance dominate. Legend:
Z latent width, N pairs, V views.
"""

import dataclasses
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.exam import resampling, whitening
from como_jax.exam.resampling import Estimate


@dataclasses.dataclass(frozen=True)
class Relation:
  """How exactly a relation between latents holds.

  Attributes:
    error: mean squared length of the residual, relative to that of z: 0 = exact, 1 = no better than
      a prediction of zero.
    cosine: mean cosine between prediction and z.
  """

  error: Estimate
  cosine: Estimate


def additivity(
  z_ab: Any, z_bc: Any, z_ac: Any, *, groups: Any = None, zero: Any = None, seed: int = 0
) -> Relation:
  """Compares z(a,b) + z(b,c) with z(a,c).

  A latent that holds only appearance has an error of 1, independent noise has 3.

  Args:
    z_ab: [N, Z].
    z_bc: [N, Z].
    z_ac: [N, Z].
    groups: group of each row [N]; None: each row is its own group.
    zero: the latent of no motion [Z], subtracted from all. None: the mean of z_ab and z_bc, because
      moves have mean zero by design. Latents of static pairs are not used for it, so that latents
      without static pairs can be tested too.
    seed: seed of the bootstrap.
  """
  z_ab, z_bc, z_ac = _same_shape(z_ab=z_ab, z_bc=z_bc, z_ac=z_ac)
  zero = (z_ab.mean(axis=0) + z_bc.mean(axis=0)) / 2 if zero is None else np.asarray(zero)
  return _relation(z_ab + z_bc - 2 * zero, z_ac - zero, groups, seed)


def reversal(
  z_ab: Any, z_ba: Any, *, groups: Any = None, zero: Any = None, seed: int = 0
) -> Relation:
  """Compares -z(a,b) with z(b,a).

  A latent that holds only appearance has an error of 4, independent noise has 2.

  Args:
    z_ab: [N, Z].
    z_ba: [N, Z].
    groups: as for `additivity`.
    zero: as for `additivity`; None: the mean of z_ab.
    seed: seed of the bootstrap.
  """
  z_ab, z_ba = _same_shape(z_ab=z_ab, z_ba=z_ba)
  zero = z_ab.mean(axis=0) if zero is None else np.asarray(zero)
  return _relation(zero - z_ab, z_ba - zero, groups, seed)


def shifted(
  z_ab: Any, z_shifted: Any, *, groups: Any = None, zero: Any = None, seed: int = 0
) -> Relation:
  """Compares z of two pictures with z of the same pictures, both shifted by the same few pixels.

  Error 0: both z are equal. Error 1: as far away as the mean of z. Independent noise has 2.

  Args:
    z_ab: [N, Z].
    z_shifted: [N, Z].
    groups: as for `additivity`.
    zero: as for `reversal`.
    seed: seed of the bootstrap.
  """
  z_ab, z_shifted = _same_shape(z_ab=z_ab, z_shifted=z_shifted)
  zero = z_ab.mean(axis=0) if zero is None else np.asarray(zero)
  return _relation(z_shifted - zero, z_ab - zero, groups, seed)


def static(z_aa: Any, z: Any) -> float:
  """Mean squared length of z of equal pictures, relative to that of z of all pairs.

  Lengths are measured from the mean of z. 0 = z shows no motion, as it should. 1 = z is as long as
  for pairs with motion. nan if z is constant.

  Args:
    z_aa: latents of two equal pictures [V, Z].
    z: latents of pairs [N, Z].
  """
  z_aa, z = whitening.matrix(z_aa, "z_aa"), whitening.matrix(z, "z")
  if z_aa.shape[1] != z.shape[1]:
    raise errors.UserError(f"z_aa: expected [V, {z.shape[1]}], found {list(z_aa.shape)}")
  zero = z.mean(axis=0)
  length = ((z - zero) ** 2).sum(axis=1).mean()
  return float(((z_aa - zero) ** 2).sum(axis=1).mean() / length) if length else float("nan")


def _same_shape(**arrays: Any) -> list[np.ndarray]:
  checked = {name: whitening.matrix(values, name) for name, values in arrays.items()}
  (first, like), *others = checked.items()
  for name, values in others:
    if values.shape != like.shape:
      raise errors.UserError(
        f"{name}: expected {list(like.shape)}, as {first}, found {list(values.shape)}"
      )
  return list(checked.values())


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
