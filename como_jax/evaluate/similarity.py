"""Whether the same motion gives a similar z across tasks, views and scenes (CoMo, arXiv 2505.17006,
Figure 4). Legend: N samples, Z latent width, G groups, A action.
"""

import dataclasses
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.evaluate import probes

CENTRES = ("none", "mean", "view")


@dataclasses.dataclass(frozen=True)
class SimilarityMatrix:
  """Mean cosine between the latents of two groups; the diagonal leaves out each sample's similarity
  to itself.
  """

  values: np.ndarray  # [G, G], nan on the diagonal of a group with one sample
  labels: tuple[str, ...]
  counts: np.ndarray  # int [G]


@dataclasses.dataclass(frozen=True)
class Contrast:
  """Mean cosines of pairs of samples by what they share. nan where there are no such pairs."""

  # the same moment of the same motion, seen by another camera or in another scene
  same_motion: float
  other_time: float  # the same motion at another time, seen by another camera or in another scene
  other_motion_same_view: float
  other_motion_other_view: float
  # same_motion minus other_time: higher = z says what happens now, from wherever it is seen
  motion: float
  standard_error: float | None  # of motion, over motions drawn again; None with fewer than two
  appearance: float  # the last two cosines' difference: lower = z says less about the camera
  text: str


@dataclasses.dataclass(frozen=True)
class Retrieval:
  """Nearest neighbor in z, among other views and other episodes: does it do the same thing?"""

  cosine: float  # mean cosine of the two actions' directions; 1 = the same direction
  chance: float  # the same for every allowed pair alike
  agreement: float  # share of neighbors whose action is within 60 degrees
  agreement_chance: float
  gain: float  # cosine of each query minus the mean over all its allowed answers, mean over queries
  # of gain, over the queries' episodes drawn again; None with fewer than two
  standard_error: float | None
  queries: int
  text: str


def matrix(z: Any, groups: Any, *, center: str = "mean", views: Any = None) -> SimilarityMatrix:
  """Mean cosine similarity between groups (for example "task / view" of each sample).

  Args:
    z: latents [N, Z].
    groups: group of each sample [N]; labels are in sorted order.
    center: "none", "mean" (take the mean z away: a common offset makes everything similar) or
      "view" (take each view's mean away).
    views: view of each sample [N], for center="view".
  """
  unit = _unit(z, center, views)
  groups = _ids(groups, len(unit), "groups")
  labels, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
  sums = np.zeros((len(labels), unit.shape[1]))
  np.add.at(sums, index, unit)
  # Samples without direction count as 0, so the self-similarity of a group is the number that have
  # one.
  selves = np.bincount(index, weights=(unit**2).sum(axis=1), minlength=len(labels))
  pairs = np.outer(counts, counts).astype(np.float64)
  products = sums @ sums.T
  np.fill_diagonal(pairs, counts * (counts - 1))
  np.fill_diagonal(products, np.diag(products) - selves)
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
  """How much more alike z is for the same moment of a motion in another environment than for its
  other moments there.

  Both sides of the comparison show the same objects at work (they are of one motion), so a z that
  only knows the objects, the task or the scene scores 0, and so does one that only knows the
  camera.

  Args:
    z: latents [N, Z].
    motions: id of the motion of each sample [N]; one motion may have been filmed by several cameras
      and acted again in several scenes.
    times: frame number of each sample in its episode [N].
    views, scenes: camera and episode of each sample [N]; samples that differ in either are of two
      environments.
    stride: frames between the two pictures of a sample, a number or [N]: samples up to half of it
      apart are the same moment, and those at least a whole one apart are others.
    center: as for `matrix`.
    limit: samples used, evenly spread.
  """
  unit = _unit(z, center, views)
  chosen = np.unique(np.linspace(0, len(unit) - 1, min(limit, len(unit))).astype(int))
  codes = {"motions": motions, "views": views, "scenes": scenes}
  motion, view, scene = (
    _codes(_ids(value, len(unit), name))[chosen] for name, value in codes.items()
  )
  time = _ids(times, len(unit), "times")[chosen].astype(np.float64)
  reach = np.broadcast_to(np.asarray(stride, np.float64), len(unit))[chosen, None]
  cosines = unit[chosen] @ unit[chosen].T
  together, same_view = motion[:, None] == motion, view[:, None] == view
  elsewhere, apart = ~same_view | (scene[:, None] != scene), np.abs(time[:, None] - time)
  same, other = (together & elsewhere & when for when in (apart <= reach / 2, apart >= reach))

  # Motion by motion, so that how many samples of each there are does not matter.
  def by_motion(values):
    return np.bincount(motion, values.sum(axis=1), minlength=motion.max() + 1)

  counts, others = by_motion(same.astype(np.float64)), by_motion(other.astype(np.float64))
  sums, other_sums = by_motion(cosines * same), by_motion(cosines * other)
  known = (counts > 0) & (others > 0)
  weights, high, low = counts[known], sums[known] / counts[known], other_sums[known] / others[known]

  def mean(pairs):
    return float(cosines[pairs].mean()) if pairs.any() else float("nan")

  def average(values):
    return float(values @ weights / weights.sum()) if known.any() else float("nan")

  return Contrast(
    same_motion=average(high),
    other_time=average(low),
    other_motion_same_view=mean(~together & same_view),
    other_motion_other_view=mean(~together & ~same_view),
    motion=average(high - low),
    standard_error=_spread(high - low, weights),
    appearance=mean(~together & same_view) - mean(~together & ~same_view),
    text=(
      f"{len(chosen)} samples, {int(known.sum())} motions that were seen in several "
      f"environments, {int(weights.sum()) // 2} pairs of the same moment, centring: {center}"
    ),
  )


def _spread(values: np.ndarray, weights: np.ndarray, *, draws: int = 500) -> float | None:
  """Standard error of a weighted mean when its parts are drawn again; None with fewer than two."""
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
  """Looks up each sample's nearest neighbor (cosine of z) in other views and other episodes, and
  compares the two actions' directions.

  Args:
    z: latents [N, Z].
    actions: actions [N, A]; standardized here, so that no dimension's unit dominates the direction.
    views, episodes: ids [N]. The same moment seen by another camera is not allowed as an answer, as
      it shares its episode.
    center: as for `matrix`.
    limit: samples used, drawn by seed.

  Raises:
    errors.UserError: no sample has an allowed neighbor (one view or one episode only).
  """
  unit, actions = _unit(z, center, views), probes.finite(actions, "actions")
  views, episodes = (
    _codes(_ids(views, len(unit), "views")),
    _codes(_ids(episodes, len(unit), "episodes")),
  )
  mean, scale, _ = probes.scale_of(actions)
  # Scaled but not centerd: the sign of an action is its direction, and standing still has none.
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
  alike = directions @ directions.T
  nearest = np.where(allowed, unit @ unit.T, -np.inf).argmax(axis=1)
  found = alike[np.arange(len(unit)), nearest][queries]
  usual = (alike * allowed).sum(axis=1)[queries] / allowed.sum(axis=1)[queries]
  _, by_episode, counts = np.unique(episodes[queries], return_inverse=True, return_counts=True)
  gains = np.bincount(by_episode, found - usual) / counts
  return Retrieval(
    cosine=float(found.mean()),
    chance=float(alike[allowed].mean()),
    agreement=float((found > 0.5).mean()),
    agreement_chance=float((alike[allowed] > 0.5).mean()),
    gain=float((found - usual).mean()),
    standard_error=_spread(gains, counts),
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
  """Rows divided by their length; rows without a direction become zero."""
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
