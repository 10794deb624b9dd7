"""What is read of appearance, with intervals that know how many trajectories there are."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.exam import leakage
from tests.exam import worlds


def views(count=480, classes=4, seed=0):
  """Labels [count] of trajectories of 2 [count]."""
  random = np.random.default_rng(seed)
  trajectories = np.arange(count) // 2
  return random.integers(classes, size=count // 2)[trajectories], trajectories


def identity(z, labels, trajectories, **options):
  return leakage.identities(z, {"labels": labels}, trajectories, **options)["labels"]


def test_a_class_in_z_is_read_and_flagged():
  labels, trajectories = views()
  z = np.random.default_rng(1).normal(size=(480, 6))
  assert not identity(z, labels, trajectories).flagged
  z[:, :4] += 5 * np.eye(4)[labels]
  found = identity(z, labels, trajectories)
  assert (
    found.excess.value > 0.9
    and found.flagged
    and found.chance == 0.25
    and found.classes == (0, 1, 2, 3)
  )
  assert found.excess.value == pytest.approx((found.accuracy.value - 0.25) / 0.75)
  assert found.excess.high - found.excess.low == pytest.approx(
    (found.accuracy.high - found.accuracy.low) / 0.75
  )


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_read_from_noise(seed):
  labels, trajectories = views(seed=seed)
  found = identity(
    np.random.default_rng(seed).normal(size=(480, 30)), labels, trajectories, seed=seed
  )
  assert found.excess.low < 0.05 and not found.flagged and abs(found.excess.value) < 0.2


def test_a_flag_needs_the_whole_interval():
  labels, trajectories = views(count=240, classes=2)
  z = np.random.default_rng(0).normal(size=(240, 2)) + 0.7 * labels[:, None]
  found = identity(z, labels, trajectories)
  assert found.excess.value > leakage.FLAG > found.excess.low and not found.flagged


def test_what_a_trajectory_has_of_its_own_is_not_its_class():
  """Each trajectory has one class and one place of z: a split by pair would read it perfectly."""
  labels, trajectories = views()
  z = np.random.default_rng(0).normal(size=(240, 5))[trajectories]
  assert identity(z, labels, trajectories).excess.value < 0.2
  assert identity(z, labels, np.arange(480)).excess.value > 0.5


def test_a_class_that_is_not_linear_is_read():
  labels, trajectories = views(classes=2)
  z = np.random.default_rng(0).normal(size=(480, 2))
  z *= (0.4 + 2 * labels)[:, None] / np.linalg.norm(z, axis=1, keepdims=True)  # two rings
  found = identity(z, labels, trajectories)
  assert found.excess.value > 0.9 and "RBF" in found.text


def test_a_common_class_does_not_flatter():
  random = np.random.default_rng(0)
  labels, trajectories = (random.uniform(size=480) < 0.1).astype(int), np.arange(480)
  z = random.normal(size=(480, 3)) + labels[:, None] * [2.0, 0.0, 0.0]
  found = identity(z, labels, trajectories)  # "never" is right in 9 of 10
  assert 0.5 < found.excess.value < 0.9 and found.accuracy.value == pytest.approx(
    (1 + found.excess.value) / 2
  )
  assert identity(random.normal(size=(480, 3)), labels, trajectories).excess.value < 0.3


def test_several_labels_at_once_are_what_each_is_alone():
  labels, trajectories = views()
  other = np.array(["left", "right"])[np.random.default_rng(5).integers(2, size=480)]
  z = np.random.default_rng(1).normal(size=(480, 6))
  z[:, 0] += labels
  both = leakage.identities(z, {"scene": labels, "camera": other}, trajectories)
  assert both["scene"] == identity(z, labels, trajectories)
  assert (
    both["scene"].excess.value > 0.1
    and not both["camera"].flagged
    and both["camera"].classes == ("left", "right")
  )


def test_intervals_grow_with_the_groups():
  """The same 120 held-out pairs as 60 trajectories of two copies: wider by the root of two."""
  labels, _ = views(count=960)
  z = np.random.default_rng(1).normal(size=(960, 4)) + 1.5 * np.eye(4)[labels]
  alone = identity(z[::2], labels[::2], np.arange(480))
  doubled = identity(
    np.repeat(z[::2], 2, axis=0), np.repeat(labels[::2], 2), np.repeat(np.arange(480), 2)
  )
  assert doubled.excess.error == pytest.approx(alone.excess.error, rel=0.15)


def test_r2_is_a_share_of_the_distance_from_the_fits_mean():
  truth = np.array([[2.0], [4.0], [6.0], [4.0]])
  assert leakage.r2(truth, truth, [0.0], groups=range(4)).total.value == 1
  assert leakage.r2(np.zeros((4, 1)), truth, [0.0], groups=range(4)).total.value == 0
  found = leakage.r2(truth + 3, truth, [0.0], groups=range(4))
  assert (
    found.total.value == pytest.approx(1 - 9 * 4 / 72) and found.by_number[0] == found.total.value
  )
  constant = np.concatenate([truth, np.full((4, 1), 2.0)], axis=1)
  found = leakage.r2(constant, constant, [0.0, 2.0], groups=range(4))
  assert found.by_number[0] == found.total.value == 1 and np.isnan(found.by_number[1])


@pytest.fixture(scope="module")
def pairs():
  return worlds.World().pairs(600, scenes=6)


def test_the_pilots_world_shows_its_scene(pairs):
  latents = worlds.latents(pairs, pairs)
  found = {n: identity(z, pairs.scene, pairs.group) for n, z in latents.items()}
  assert found["both"].flagged and found["first"].flagged and found["both"].excess.value > 0.8
  assert not found["motion"].flagged and found["motion"].excess.high < 0.2
  assert (
    found["difference"].flagged and "RBF" in found["difference"].text
  )  # the same motion; read by the bend of tanh


def test_the_future_picture_is_told_from_motion(pairs):
  latents = worlds.latents(pairs, pairs)
  first, second = (
    worlds.components(values, pairs.first, 24) for values in (pairs.first, pairs.second)
  )
  found = {
    n: leakage.future(latents[n], first, second, chains=pairs.group)
    for n in ("first", "future", "motion")
  }
  assert (
    found["future"].second.total.low > 0.9
    and found["future"].gap.low > 0.1
    and found["future"].flagged
  )
  assert found["first"].first.total.low > 0.9 and found["first"].gap.high < -0.1
  assert abs(found["motion"].gap.value) < 0.1 and found["motion"].second.total.high < 0.4
  assert not found["first"].flagged and not found["motion"].flagged


def test_a_displacement_knows_both_pictures_alike():
  """The end is the start and a move: a move tells half of the end's variance, and nothing of the
  start.
  """
  start, move = np.random.default_rng(0).normal(size=(2, 800, 3))

  def ask(z):
    return leakage.future(z, start, start + move, chains=np.arange(800))

  moved = ask(move)
  assert moved.first.total.high < 0.1 and moved.second.total.low > 0.3
  assert moved.gap.low < 0 < moved.gap.high and not moved.flagged
  # knows the end; of the start half: 0.5 of 1.5, the mean of the variances 1 and 2
  end = ask(start + move)
  assert end.gap.low < 1 / 3 < end.gap.high and end.flagged


def test_errors_name_what_is_wrong():
  labels, trajectories = views()
  z = np.random.default_rng(0).normal(size=(480, 3))
  with pytest.raises(
    errors.UserError, match=r"camera: expected \[480\], one for each row of z, found \[3\]"
  ):
    leakage.identities(z, {"scene": labels, "camera": labels[:3]}, trajectories)
  with pytest.raises(
    errors.UserError,
    match="labels: expected at least 2 classes on both sides of the split, found 1",
  ):
    identity(z, np.zeros(480), trajectories)
  with pytest.raises(errors.UserError, match="at least 8 trajectories, found 3"):
    identity(z, labels, np.arange(480) % 3)
  with pytest.raises(
    errors.UserError, match="z, first, second and chains hold 480, 480, 4 and 480 rows"
  ):
    leakage.future(z, z, z[:4], chains=trajectories)
