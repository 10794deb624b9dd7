"""Similarity of motion across views, and appearance in z."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.evaluate import appearance, similarity


def _world(motion, camera, samples=600, seed=0):
  """z = motion * (the action) + camera * (a vector of the camera); three views, two tasks, episodes of ten samples."""
  rng = np.random.default_rng(seed)
  episodes = np.arange(samples) // 10
  views, tasks = episodes % 3, (episodes // 3) % 2
  actions = rng.normal(size=(samples, 3)) * 0.5 + np.where(tasks[:, None] == 0, 1.0, -1.0)
  z = (
    motion * actions @ rng.normal(size=(3, 12))
    + camera * rng.normal(size=(3, 12))[views]
    + 0.01 * rng.normal(size=(samples, 12))
  )
  return z, actions, views, tasks, episodes


def test_matrix_equals_pair_by_pair():
  z, _, views, _, _ = _world(1, 1, samples=40)
  result = similarity.matrix(z, views, centre="none")
  unit = z / np.linalg.norm(z, axis=1, keepdims=True)
  for a in range(3):
    for b in range(3):
      pairs = [unit[i] @ unit[j] for i in np.flatnonzero(views == a) for j in np.flatnonzero(views == b) if i != j]
      np.testing.assert_allclose(result.values[a, b], np.mean(pairs), atol=1e-12)
  assert result.labels == ("0", "1", "2") and result.counts.sum() == 40


def test_contrast_tells_motion_from_appearance():
  z, _, views, tasks, _ = _world(motion=1, camera=0)
  moving = similarity.contrast(z, tasks, views=views)
  assert moving.motion > 0.5 and abs(moving.appearance) < 0.1
  z, _, views, tasks, _ = _world(motion=0, camera=1)
  looks = similarity.contrast(z, tasks, views=views)
  assert abs(looks.motion) < 0.1 and looks.appearance > 0.5
  assert np.isnan(similarity.contrast(z, tasks, views=np.zeros(len(z))).same_task_other_view)


def test_centring_takes_the_camera_away():
  z, _, views, tasks, _ = _world(motion=0.3, camera=3)
  assert (
    similarity.contrast(z, tasks, views=views, centre="view").motion
    > similarity.contrast(z, tasks, views=views).motion + 0.3
  )


def test_retrieval():
  z, actions, views, _, episodes = _world(motion=1, camera=0)
  found = similarity.retrieval(z, actions, views=views, episodes=episodes)
  assert found.cosine > 0.9 > found.chance + 0.5 and found.agreement > 0.95 and found.queries == 600
  z, actions, views, _, episodes = _world(motion=1, camera=0, samples=3000)
  random = np.random.default_rng(0).normal(size=z.shape)
  noise = similarity.retrieval(random, actions, views=views, episodes=episodes, limit=1500)
  assert abs(noise.cosine - noise.chance) < 0.1 and noise.queries == 1500


def test_the_neighbour_is_of_another_view_and_another_episode():
  """The nearest z is the same moment seen by the other camera, the next the episode's own later, with other actions; those must not count."""
  angle = np.deg2rad([0, 0, 20, 20, 50, 50, 170, 170])
  z = np.stack([np.cos(angle), np.sin(angle)], 1)
  views, episodes = np.tile([0, 1], 4), np.array([0, 0, 0, 0, 1, 1, 2, 2])
  actions = np.array([[1.0, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [-1, 0], [-1, 0]])
  found = similarity.retrieval(z, actions, views=views, episodes=episodes, centre="none")
  # From episode 0 to episode 1, at right angles; from 1 to 0, the same; from 2 to 1, the same.
  assert (found.cosine, found.agreement, found.queries) == (pytest.approx(0, abs=1e-12), 0, 8)
  # Allowed pairs: 0-1 four times (0), 0-2 four times (-1), 1-2 twice (0), each in both directions.
  assert found.chance == pytest.approx(-8 / 20) and found.agreement_chance == 0
  # With an answer in another episode that is right for half of the queries.
  actions[4:6] = 2.0, 2.0
  found = similarity.retrieval(z, actions, views=views, episodes=episodes, centre="none")
  scaled = actions / actions.std(0)
  cosine = lambda a, b: scaled[a] @ scaled[b] / np.linalg.norm(scaled[a]) / np.linalg.norm(scaled[b])
  assert found.cosine == pytest.approx((4 * cosine(0, 4) + 2 * cosine(4, 0) + 2 * cosine(6, 4)) / 8)
  assert found.agreement == 6 / 8 and found.agreement_chance == 8 / 20  # cosine(0, 4) is 0.62


def test_standing_still_is_no_query_and_no_answer():
  z = np.array([[1.0, 0], [1, 0.1], [1, 0.2], [1, 0.3]])
  actions = np.array([[1.0, 0], [0, 0], [1, 0], [1, 1]])
  found = similarity.retrieval(z, actions, views=np.array([0, 1, 1, 1]), episodes=np.arange(4), centre="none")
  assert found.queries == 3 and found.cosine == pytest.approx(1 / 3 * (1 + 1 + found_cosine(actions)))


def found_cosine(actions):
  """Between the first and the last action, each dimension in units of its deviation."""
  a, b = actions[[0, 3]] / actions.std(0)
  return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_identity_is_chance_for_motion_and_one_for_appearance():
  z, _, views, _, episodes = _world(motion=1, camera=0, samples=1200)
  moving = appearance.identity(z, views, episodes=episodes)
  assert abs(moving.excess) < 0.25 and np.isclose(moving.chance, 1 / 3)
  z, _, views, _, episodes = _world(motion=1, camera=1)
  looks = appearance.identity(z, np.array(["front", "side", "top"])[views], episodes=episodes)
  assert looks.accuracy > 0.99 and looks.excess > 0.99 and looks.classes == ("front", "side", "top")


def test_bad_input():
  z = np.random.default_rng(0).normal(size=(6, 3))
  with pytest.raises(errors.UserError, match="did you mean 'view'"):
    similarity.matrix(z, np.zeros(6), centre="views")
  with pytest.raises(errors.UserError, match="needs views"):
    similarity.matrix(z, np.zeros(6), centre="view")
  with pytest.raises(errors.UserError, match="groups"):
    similarity.matrix(z, np.zeros(5))
  with pytest.raises(errors.UserError, match="2 views"):
    similarity.retrieval(z, z, views=np.zeros(6), episodes=np.arange(6))
  with pytest.raises(errors.UserError, match="2 labels"):
    appearance.identity(z, np.zeros(6), episodes=np.arange(6))
