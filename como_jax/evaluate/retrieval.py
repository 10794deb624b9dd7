"""Retrieval: is the nearest neighbor in z, in another view, of a motion in the same direction?

Legend: N samples, Z latent width, A action dimensions.
"""

import dataclasses
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.evaluate import arrays, directions, probes


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


def across_views(
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
    center: as for `similarity.matrix`.
    limit: maximum number of samples, drawn at random.
    seed: seed of the draw.

  Raises:
    errors.UserError: no sample has an allowed neighbor (one view or one episode only).
  """
  z_directions, actions = directions.unit(z, center, views), arrays.finite(actions, "actions")
  views, episodes = (
    directions.codes(directions.ids(views, len(z_directions), "views")),
    directions.codes(directions.ids(episodes, len(z_directions), "episodes")),
  )
  _, scale, _ = probes.scale_of(actions)
  # Actions are scaled but not centered: the sign of an action is part of its direction, and an
  # action of 0 has no direction.
  action_directions = directions.of_rows(actions / scale)
  usable = np.flatnonzero(action_directions.any(axis=1))
  chosen = np.sort(np.random.default_rng(seed).permutation(usable)[:limit])
  z_directions, action_directions, views, episodes = (
    z_directions[chosen],
    action_directions[chosen],
    views[chosen],
    episodes[chosen],
  )
  allowed = (views[:, None] != views[None, :]) & (episodes[:, None] != episodes[None, :])
  queries = allowed.any(axis=1)
  if not queries.any():
    raise errors.UserError(
      "retrieval across views needs samples of at least 2 views and 2 episodes"
    )
  action_cosines = action_directions @ action_directions.T
  nearest = np.where(allowed, z_directions @ z_directions.T, -np.inf).argmax(axis=1)
  neighbor_cosines = action_cosines[np.arange(len(z_directions)), nearest][queries]
  mean_cosines = (action_cosines * allowed).sum(axis=1)[queries] / allowed.sum(axis=1)[queries]
  _, by_episode, counts = np.unique(episodes[queries], return_inverse=True, return_counts=True)
  gains = np.bincount(by_episode, neighbor_cosines - mean_cosines) / counts
  return Retrieval(
    cosine=float(neighbor_cosines.mean()),
    chance=float(action_cosines[allowed].mean()),
    agreement=float((neighbor_cosines > 0.5).mean()),
    agreement_chance=float((action_cosines[allowed] > 0.5).mean()),
    gain=float((neighbor_cosines - mean_cosines).mean()),
    standard_error=directions.weighted_error(gains, counts),
    queries=int(queries.sum()),
    text=(
      f"{int(queries.sum())} queries, neighbors from other views and other episodes, centring: "
      f"{center}"
    ),
  )
