"""Tests whether the same motion has a similar z across tasks, views and scenes.

Source: CoMo, arXiv 2505.17006, Figure 4.
Legend: N samples, Z latent width, G groups.
"""

import dataclasses
from typing import Any

import numpy as np

from como_jax.evaluate import directions


@dataclasses.dataclass(frozen=True)
class SimilarityMatrix:
  """Mean cosines between the latents of two groups.

  Attributes:
    values: [G, G]; the diagonal leaves out the similarity of a sample to itself, and is nan for a
      group with one sample.
    labels: names of the groups.
    counts: number of samples of each group, int [G].
  """

  values: np.ndarray
  labels: tuple[str, ...]
  counts: np.ndarray


@dataclasses.dataclass(frozen=True)
class Contrast:
  """Mean cosines of pairs of samples, by what the pairs share; nan if there are no such pairs.

  Attributes:
    same_motion: the same moment of the same motion, with another camera or in another scene.
    other_time: the same motion at another time, with another camera or in another scene.
    other_motion_same_view: another motion, the same camera.
    other_motion_other_view: another motion, another camera.
    motion: same_motion - other_time: higher = z holds the current motion, whatever the camera.
    standard_error: of `motion`, by bootstrap over motions; None with fewer than two motions.
    appearance: other_motion_same_view - other_motion_other_view: lower = z holds less about the
      camera.
    text: describes the samples.
  """

  same_motion: float
  other_time: float
  other_motion_same_view: float
  other_motion_other_view: float
  motion: float
  standard_error: float | None
  appearance: float
  text: str


def matrix(z: Any, groups: Any, *, center: str = "mean", views: Any = None) -> SimilarityMatrix:
  """Mean cosine similarity between groups (for example "task / view" of each sample).

  Args:
    z: latents [N, Z].
    groups: group of each sample [N]; labels are in sorted order.
    center: "none"; "mean": subtract the mean of z, because with a common offset all latents are
      similar; "view": subtract the mean of each view.
    views: view of each sample [N], for center="view".
  """
  unit = directions.unit(z, center, views)
  groups = directions.ids(groups, len(unit), "groups")
  labels, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
  sums = np.zeros((len(labels), unit.shape[1]))
  np.add.at(sums, index, unit)
  # Samples without a direction are 0, so the self-similarity of a group is the number of its
  # samples with a direction.
  self_similarity = np.bincount(index, weights=(unit**2).sum(axis=1), minlength=len(labels))
  pairs = np.outer(counts, counts).astype(np.float64)
  products = sums @ sums.T
  np.fill_diagonal(pairs, counts * (counts - 1))
  np.fill_diagonal(products, np.diag(products) - self_similarity)
  values = np.divide(products, pairs, out=np.full_like(products, np.nan), where=pairs > 0)
  return SimilarityMatrix(
    values=values, labels=tuple(str(label) for label in labels), counts=counts
  )


@dataclasses.dataclass(frozen=True)
class Moments:
  """What each sample shows.

  Attributes:
    motions: id of the motion of each sample [N]; a motion may be filmed by several cameras and
      repeated in several scenes.
    times: frame number of each sample in its episode [N].
    views: camera of each sample [N].
    scenes: episode of each sample [N]; samples that differ in camera or episode are of different
      environments.
    stride: frames between the two pictures of a sample, a number or [N]. Samples at most half a
      stride apart are the same moment; samples at least one stride apart are other moments.
  """

  motions: Any
  times: Any
  views: Any
  scenes: Any
  stride: Any


def contrast(z: Any, moments: Moments, *, center: str = "mean", limit: int = 2000) -> Contrast:
  """Contrast between the same moment and other moments of a motion, seen in another environment.

  Both sides of the comparison are of one motion and show the same objects. So a z that holds only
  the objects, the task, the scene or the camera scores 0.

  Args:
    z: latents [N, Z].
    moments: motion, time, view and scene of each sample.
    center: as for `matrix`.
    limit: maximum number of samples, evenly spaced.
  """
  unit = directions.unit(z, center, moments.views)
  chosen = np.unique(np.linspace(0, len(unit) - 1, min(limit, len(unit))).astype(int))
  motion, view, scene = (
    directions.codes(directions.ids(getattr(moments, name), len(unit), name))[chosen]
    for name in ("motions", "views", "scenes")
  )
  time = directions.ids(moments.times, len(unit), "times")[chosen].astype(np.float64)
  max_distance = np.broadcast_to(np.asarray(moments.stride, np.float64), len(unit))[chosen, None]
  cosines = unit[chosen] @ unit[chosen].T
  same_motion, same_view = motion[:, None] == motion, view[:, None] == view
  elsewhere, apart = ~same_view | (scene[:, None] != scene), np.abs(time[:, None] - time)
  same_moment, other_moment = (
    same_motion & elsewhere & when for when in (apart <= max_distance / 2, apart >= max_distance)
  )

  # Sums per motion, so that the result does not depend on the number of samples per motion.
  def by_motion(values):
    return np.bincount(motion, values.sum(axis=1), minlength=motion.max() + 1)

  counts, other_counts = (
    by_motion(same_moment.astype(np.float64)),
    by_motion(other_moment.astype(np.float64)),
  )
  sums, other_sums = by_motion(cosines * same_moment), by_motion(cosines * other_moment)
  valid = (counts > 0) & (other_counts > 0)
  weights, high, low = (
    counts[valid],
    sums[valid] / counts[valid],
    other_sums[valid] / other_counts[valid],
  )

  def mean(pairs):
    return float(cosines[pairs].mean()) if pairs.any() else float("nan")

  def average(values):
    return float(values @ weights / weights.sum()) if valid.any() else float("nan")

  return Contrast(
    same_motion=average(high),
    other_time=average(low),
    other_motion_same_view=mean(~same_motion & same_view),
    other_motion_other_view=mean(~same_motion & ~same_view),
    motion=average(high - low),
    standard_error=directions.weighted_error(high - low, weights),
    appearance=mean(~same_motion & same_view) - mean(~same_motion & ~same_view),
    text=(
      f"{len(chosen)} samples, {int(valid.sum())} motions that were seen in several "
      f"environments, {int(weights.sum()) // 2} pairs of the same moment, centring: {center}"
    ),
  )
