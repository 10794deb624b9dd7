"""Neighbors in z of other views and episodes, and the directions of their actions."""

import numpy as np
import pytest

from como_jax.evaluate import retrieval


def test_the_neighbor_is_of_another_view_and_another_episode():
  """The nearest z is the same moment seen by the other camera, the next the episode's own later,
  with other actions; those must not count.
  """
  angle = np.deg2rad([0, 0, 20, 20, 50, 50, 170, 170])
  z = np.stack([np.cos(angle), np.sin(angle)], 1)
  views, episodes = np.tile([0, 1], 4), np.array([0, 0, 0, 0, 1, 1, 2, 2])
  actions = np.array([[1.0, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [-1, 0], [-1, 0]])
  found = retrieval.across_views(z, actions, views=views, episodes=episodes, center="none")
  # From episode 0 to episode 1, at right angles; from 1 to 0, the same; from 2 to 1, the same.
  assert (found.cosine, found.agreement, found.queries) == (pytest.approx(0, abs=1e-12), 0, 8)
  # Allowed pairs: 0-1 four times (0), 0-2 four times (-1), 1-2 twice (0), each in both directions.
  assert found.chance == pytest.approx(-8 / 20) and found.agreement_chance == 0
  # With an answer in another episode that is right for half of the queries.
  actions[4:6] = 2.0, 2.0
  found = retrieval.across_views(z, actions, views=views, episodes=episodes, center="none")
  scaled = actions / actions.std(0)

  def cosine(a, b):
    return scaled[a] @ scaled[b] / np.linalg.norm(scaled[a]) / np.linalg.norm(scaled[b])

  assert found.cosine == pytest.approx((4 * cosine(0, 4) + 2 * cosine(4, 0) + 2 * cosine(6, 4)) / 8)
  assert found.agreement == 6 / 8 and found.agreement_chance == 8 / 20  # cosine(0, 4) is 0.62


def test_standing_still_is_no_query_and_no_answer():
  z = np.array([[1.0, 0], [1, 0.1], [1, 0.2], [1, 0.3]])
  actions = np.array([[1.0, 0], [0, 0], [1, 0], [1, 1]])
  found = retrieval.across_views(
    z, actions, views=np.array([0, 1, 1, 1]), episodes=np.arange(4), center="none"
  )
  assert found.queries == 3 and found.cosine == pytest.approx(
    1 / 3 * (1 + 1 + found_cosine(actions))
  )


def found_cosine(actions):
  """Between the first and the last action, each dimension in units of its deviation."""
  a, b = actions[[0, 3]] / actions.std(0)
  return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_retrieval_uses_some_of_many():
  rng = np.random.default_rng(0)
  z, views, episodes = rng.normal(size=(30, 3)), np.arange(30) % 2, np.arange(30) // 2
  found = retrieval.across_views(z, z, views=views, episodes=episodes, limit=10)
  assert (
    found.queries <= 10
    and found.text
    == f"{found.queries} queries, neighbors from other views and other episodes, centring: view"
  )
  again, other = (
    retrieval.across_views(z, z, views=views, episodes=episodes, limit=10, seed=seed)
    for seed in (0, 1)
  )
  assert again == found != other
  assert retrieval.across_views(z, z, views=views, episodes=episodes).queries == 30
  many = rng.normal(size=(2002, 2))
  assert (
    retrieval.across_views(many, many, views=np.arange(2002) % 2, episodes=np.arange(2002)).queries
    == 2000
  )
