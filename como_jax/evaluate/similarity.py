"""Tests whether the same motion has a similar z across tasks, views and scenes.

Source: CoMo, arXiv 2505.17006, Figure 4.
Legend: N samples, Z latent width, G groups, A action dimensions.
"""

import dataclasses
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.evaluate import probes

CENTRES = ("none", "mean", "view")


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


@dataclasses.dataclass(frozen=True)
class Retrieval:
  """Compares the action of each sample with that of its nearest neighbor in z.

  Neighbors are from other views and other episodes.

  Attributes:
    cosine: mean cosine between the directions of the two actions; 1 = the same direction.
    chance: mean of this cosine over all allowed pairs.
    agreement: share of neighbors whose action is within 60 degrees.
    agreement_chance: the same share over all allowed pairs.
    gain: cosine of a query minus its mean over all allowed answers; mean over queries.
    standard_error: of `gain`, by bootstrap over the episodes of the queries; None with fewer than
      two episodes.
    queries: number of queries.
    text: describes the queries.
  """

  cosine: float
  chance: float
  agreement: float
  agreement_chance: float
  gain: float
  standard_error: float | None
  queries: int
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
  unit = _unit(z, center, views)
  groups = _ids(groups, len(unit), "groups")
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


def contrast(
  z: Any,
  motions: Any,
  times: Any,
  *,
  views: Any,
  scenes: Any,
  stride: Any,
  center: str = "mean",
  limit: int = 2000,
) -> Contrast:
  """Contrast between the same moment and other moments of a motion, seen in another environment.

  Both sides of the comparison are of one motion and show the same objects. So a z that holds only
  the objects, the task, the scene or the camera scores 0.

  Args:
    z: latents [N, Z].
    motions: id of the motion of each sample [N]; a motion may be filmed by several cameras and
      repeated in several scenes.
    times: frame number of each sample in its episode [N].
    views: camera of each sample [N].
    scenes: episode of each sample [N]; samples that differ in camera or episode are of different
      environments.
    stride: frames between the two pictures of a sample, a number or [N]. Samples at most half a
      stride apart are the same moment; samples at least one stride apart are other moments.
    center: as for `matrix`.
    limit: maximum number of samples, evenly spaced.
  """
  unit = _unit(z, center, views)
  chosen = np.unique(np.linspace(0, len(unit) - 1, min(limit, len(unit))).astype(int))
  codes = {"motions": motions, "views": views, "scenes": scenes}
  motion, view, scene = (
    _codes(_ids(value, len(unit), name))[chosen] for name, value in codes.items()
  )
  time = _ids(times, len(unit), "times")[chosen].astype(np.float64)
  max_distance = np.broadcast_to(np.asarray(stride, np.float64), len(unit))[chosen, None]
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
    standard_error=_bootstrap_error(high - low, weights),
    appearance=mean(~same_motion & same_view) - mean(~same_motion & ~same_view),
    text=(
      f"{len(chosen)} samples, {int(valid.sum())} motions that were seen in several "
      f"environments, {int(weights.sum()) // 2} pairs of the same moment, centring: {center}"
    ),
  )


def _bootstrap_error(values: np.ndarray, weights: np.ndarray, *, draws: int = 500) -> float | None:
  """Standard error of a weighted mean by bootstrap over its values; None with fewer than two."""
  if len(values) < 2:
    return None
  drawn = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
  return float(np.std((values * weights)[drawn].sum(axis=1) / weights[drawn].sum(axis=1), ddof=1))


def retrieval(
  z: Any,
  actions: Any,
  *,
  views: Any,
  episodes: Any,
  center: str = "view",
  limit: int = 2000,
  seed: int = 0,
) -> Retrieval:
  """Finds the nearest neighbor of each sample in z and compares the directions of their actions.

  The distance is the cosine of z. Neighbors are from other views and other episodes.

  Args:
    z: latents [N, Z].
    actions: actions [N, A]; they are scaled here, so that the units of the dimensions do not
      dominate the direction.
    views: view of each sample [N].
    episodes: episode of each sample [N]. The same moment seen by another camera is not an allowed
      neighbor, because it is of the same episode.
    center: as for `matrix`.
    limit: maximum number of samples, drawn at random.
    seed: seed of the draw.

  Raises:
    errors.UserError: no sample has an allowed neighbor (one view or one episode only).
  """
  unit, actions = _unit(z, center, views), probes.finite(actions, "actions")
  views, episodes = (
    _codes(_ids(views, len(unit), "views")),
    _codes(_ids(episodes, len(unit), "episodes")),
  )
  mean, scale, _ = probes.scale_of(actions)
  # Actions are scaled but not centered: the sign of an action is part of its direction, and an
  # action of 0 has no direction.
  directions = _directions(actions / scale)
  usable = np.flatnonzero(directions.any(axis=1))
  chosen = np.sort(np.random.default_rng(seed).permutation(usable)[:limit])
  unit, directions, views, episodes = (
    unit[chosen],
    directions[chosen],
    views[chosen],
    episodes[chosen],
  )
  allowed = (views[:, None] != views[None, :]) & (episodes[:, None] != episodes[None, :])
  queries = allowed.any(axis=1)
  if not queries.any():
    raise errors.UserError(
      "retrieval across views needs samples of at least 2 views and 2 episodes"
    )
  action_cosines = directions @ directions.T
  nearest = np.where(allowed, unit @ unit.T, -np.inf).argmax(axis=1)
  neighbor_cosines = action_cosines[np.arange(len(unit)), nearest][queries]
  mean_cosines = (action_cosines * allowed).sum(axis=1)[queries] / allowed.sum(axis=1)[queries]
  _, by_episode, counts = np.unique(episodes[queries], return_inverse=True, return_counts=True)
  gains = np.bincount(by_episode, neighbor_cosines - mean_cosines) / counts
  return Retrieval(
    cosine=float(neighbor_cosines.mean()),
    chance=float(action_cosines[allowed].mean()),
    agreement=float((neighbor_cosines > 0.5).mean()),
    agreement_chance=float((action_cosines[allowed] > 0.5).mean()),
    gain=float((neighbor_cosines - mean_cosines).mean()),
    standard_error=_bootstrap_error(gains, counts),
    queries=int(queries.sum()),
    text=(
      f"{int(queries.sum())} queries, neighbors from other views and other episodes, centring: "
      f"{center}"
    ),
  )


def _unit(z: Any, center: str, views: Any) -> np.ndarray:
  z = probes.finite(z, "z")
  if center not in CENTRES:
    raise errors.UserError(f"center is {center!r}, {errors.nearest(center, CENTRES)}")
  if center == "mean":
    z = z - z.mean(axis=0)
  if center == "view":
    if views is None:
      raise errors.UserError("center is 'view', which needs views: the view of each sample")
    index = _codes(_ids(views, len(z), "views"))
    means = np.stack([z[index == view].mean(axis=0) for view in range(index.max() + 1)])
    z = z - means[index]
  return _directions(z)


def _directions(values: np.ndarray) -> np.ndarray:
  """Divides rows by their length; rows without a direction become 0."""
  length = np.linalg.norm(values, axis=1, keepdims=True)
  return np.divide(
    values,
    length,
    out=np.zeros_like(values),
    where=length > 1e-8 * max(float(np.median(length)), 1e-30),
  )


def _ids(values: Any, count: int, what: str) -> np.ndarray:
  values = np.asarray(values)
  if values.shape != (count,):
    raise errors.UserError(f"{what} has shape {values.shape}, expected ({count},), one a latent")
  return values


def _codes(values: np.ndarray) -> np.ndarray:
  return np.unique(values, return_inverse=True)[1].reshape(-1)
