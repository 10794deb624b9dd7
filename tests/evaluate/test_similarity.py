"""Similarity of motion across views, and appearance in z."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.evaluate import appearance, retrieval, similarity


def _world(motion, camera, samples=600, seed=0):
  """Z = motion * (the action) + camera * (a vector of the camera); three views, two tasks, episodes
  of ten samples.
  """
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
  result = similarity.matrix(z, views, center="none")
  unit = z / np.linalg.norm(z, axis=1, keepdims=True)
  for a in range(3):
    for b in range(3):
      pairs = [
        unit[i] @ unit[j]
        for i in np.flatnonzero(views == a)
        for j in np.flatnonzero(views == b)
        if i != j
      ]
      np.testing.assert_allclose(result.values[a, b], np.mean(pairs), atol=1e-12)
  assert result.labels == ("0", "1", "2") and result.counts.sum() == 40


def _filmed(seed=0, motions=12, scenes=2, cameras=2, steps=10, **weights):
  """(z, arguments of `contrast`): motions acted in every scene and filmed by every camera, `stride`
  4; of two tasks whose objects z may know, and of their place in each motion. z is the weighted sum
  of vectors of what `weights` name.
  """
  rng = np.random.default_rng(seed)
  index = np.indices((motions, scenes, cameras, steps)).reshape(4, -1)
  motion, scene, camera, step = index
  known = {
    "now": step + steps * motion,
    "objects": motion % 2,
    "place": motion,
    "scene": scene,
    "camera": camera,
  }
  z = 0.01 * rng.normal(size=(len(motion), 16))
  for name, weight in weights.items():
    z += weight * rng.normal(size=(known[name].max() + 1, 16))[known[name]]
  return z, similarity.Moments(
    motions=motion, times=4 * step, views=camera, scenes=motion * scenes + scene, stride=4
  )


def _contrast(seed=0, **weights):
  return similarity.contrast(*_filmed(seed, **weights))


def test_contrast_tells_motion_from_appearance():
  moving = _contrast(now=1)
  assert moving.motion > 0.9 and abs(moving.appearance) < 0.05 and moving.standard_error < 0.05
  looks = _contrast(camera=1)
  assert abs(looks.motion) < 0.01 and looks.appearance > 0.9
  assert 0.2 < _contrast(now=1, camera=1).motion < 0.9


def test_centring_takes_the_camera_away():
  z, moments = _filmed(now=0.3, camera=3)

  def ask(center):
    return similarity.contrast(z, moments, center=center).motion

  assert ask("view") > ask("mean") + 0.3


@pytest.mark.parametrize(
  "known", [{"objects": 1}, {"objects": 1, "place": 1}, {"objects": 1, "scene": 1, "camera": 1}]
)
def test_seeing_the_objects_is_not_the_same_motion(known):
  for seed in range(3):
    assert abs(_contrast(seed, **known).motion) < 0.01


def test_what_was_filmed_once_has_no_contrast():
  found = similarity.contrast(*_filmed(scenes=1, cameras=1, now=1))
  assert (
    np.isnan(found.motion)
    and np.isnan(found.other_motion_other_view)
    and found.standard_error is None
  )
  assert "0 motions that were seen in several environments" in found.text


def test_the_same_moment_is_within_half_a_stride():
  z = np.array([[1.0, 0], [0.6, 0.8], [0, 1], [-1, 0]])

  def ask(apart, stride):
    times = np.array([0, apart, apart + 10, apart + 20])
    moments = similarity.Moments(np.zeros(4), times, [0, 1, 1, 0], np.zeros(4), stride)
    return similarity.contrast(z, moments, center="none")

  # 0 and 1 are one moment; of other moments in another view: 0-2 (0) and 1-3 (-0.6), 2-3 (0)
  near = ask(2, 4)
  assert near.same_motion == pytest.approx(0.6) and near.other_time == pytest.approx(-0.6 / 3)
  assert near.motion == pytest.approx(0.8)
  assert np.isnan(ask(3, 4).motion), (
    "three frames of four apart: neither the same moment nor another"
  )
  assert np.isnan(ask(5, 4).motion) and ask(5, 10).same_motion == pytest.approx(0.6)
  assert ask(2, np.full(4, 4)).motion == near.motion


def test_contrast_by_hand():
  z = np.array([[1.0, 0], [0, 1], [1, 1], [1, 0]])
  moments = similarity.Moments([0, 0, 1, 1], [0, 0, 0, 9], [0, 1, 0, 1], [0, 0, 1, 1], stride=1)
  found = similarity.contrast(z, moments, center="none")
  half = 0.5**0.5
  assert (found.other_motion_same_view, found.other_motion_other_view) == pytest.approx(
    ((half + 0) / 2, (1 + half) / 2)
  )
  assert found.appearance == pytest.approx(half / 2 - (1 + half) / 2) and found.text.startswith(
    "4 samples, 0 motions"
  )
  assert np.isnan(found.motion), "motion 0 has no other moment, and motion 1 not the same one twice"


def test_the_error_of_contrast_is_over_motions():
  z, moments = _filmed(now=1)
  odd = moments.motions % 2 == 1
  # Half of the motions have a contrast of 1; of the other half z knows the place alone: as alike at
  # all times.
  z[odd] = np.random.default_rng(5).normal(size=(12, 16))[moments.motions[odd]]
  found = similarity.contrast(z, moments)
  assert found.motion == pytest.approx(0.5, abs=0.05) and found.standard_error == pytest.approx(
    0.5 / 12**0.5, rel=0.1
  )


def test_retrieval():
  z, actions, views, _, episodes = _world(motion=1, camera=0)
  found = retrieval.across_views(z, actions, views=views, episodes=episodes)
  assert found.cosine > 0.9 > found.chance + 0.5 and found.agreement > 0.95 and found.queries == 600
  z, actions, views, _, episodes = _world(motion=1, camera=0, samples=3000)
  random = np.random.default_rng(0).normal(size=z.shape)
  noise = retrieval.across_views(random, actions, views=views, episodes=episodes, limit=1500)
  assert abs(noise.cosine - noise.chance) < 0.1 and noise.queries == 1500


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
    similarity.matrix(z, np.zeros(6), center="views")
  with pytest.raises(errors.UserError, match="needs views"):
    similarity.matrix(z, np.zeros(6), center="view")
  with pytest.raises(errors.UserError, match="groups"):
    similarity.matrix(z, np.zeros(5))
  with pytest.raises(errors.UserError, match="2 views"):
    retrieval.across_views(z, z, views=np.zeros(6), episodes=np.arange(6))
  with pytest.raises(errors.UserError, match="2 labels"):
    appearance.identity(z, np.zeros(6), episodes=np.arange(6))


def test_similarity_by_hand():
  z = np.array([[1.0, 0], [0, 1], [1, 0], [0, 0]])
  found = similarity.matrix(z, np.array(["x", "x", "y", "y"]), center="none")
  np.testing.assert_allclose(found.values, [[0, 1 / 4], [1 / 4, 0]])
  assert found.labels == ("x", "y") and found.counts.tolist() == [2, 2]
  alone = similarity.matrix(z[:3], np.array(["x", "x", "y"]), center="none").values
  assert np.isnan(alone[1, 1]) and alone[0, 1] == pytest.approx(0.5)
  # of a single pair
  assert similarity.matrix(z[:2], np.array(["x", "y"]), center="none").values[0, 1] == 0
  centered = similarity.matrix(z + 5, np.array(["x", "x", "y", "y"]))
  mean = z - z.mean(0)
  unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
  assert centered.values[0, 0] == pytest.approx(unit[0] @ unit[1]) and centered.values[
    0, 1
  ] == pytest.approx((unit[:2] @ unit[2:].T).mean())
  viewed = similarity.matrix(
    np.array([[1.0, 0], [3, 0], [0, 1], [0, 5]]),
    np.array([0, 1, 0, 1]),
    center="view",
    views=np.array([0, 0, 1, 1]),
  )
  np.testing.assert_allclose(viewed.values, [[0, -0.5], [-0.5, 0]], atol=1e-12)
  with pytest.raises(
    errors.UserError, match=r"^groups has shape \(5,\), expected \(4,\), one a latent$"
  ):
    similarity.matrix(z, np.zeros(5))
