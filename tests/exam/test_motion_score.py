"""S, its interval, and when it is withheld."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.exam import motion_score, spread
from tests.exam import worlds
from tests.exam.made_errors import GROUPS, MOVES, made


def test_errors_are_in_units_of_the_variance():
  predicted, target = np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([[0.0, 4.0], [0.0, 3.0]])
  np.testing.assert_allclose(
    motion_score.pair_errors(predicted, target, [2.0, 4.0]), [[0.5, 1.0], [0.0, 2.25]]
  )
  with pytest.raises(
    errors.UserError, match=r"are \[2, 2\], \[2, 2\] and \[1\], expected \[M, A\]"
  ):
    motion_score.pair_errors(predicted, target, [2.0])
  with pytest.raises(errors.UserError, match="variance: expected numbers above 0, found 0"):
    motion_score.pair_errors(predicted, target, [2.0, 0.0])


def test_e_caps_each_dimension_and_not_each_pair():
  assert motion_score.e([[0.0, 5.0], [1.0, 5.0]]) == pytest.approx((0.5 + 1) / 2)
  assert motion_score.e([[0.0, 5.0], [1.6, 0.0]]) == pytest.approx((0.8 + 1) / 2)


def test_s_lies_between_one_picture_and_both():
  score = motion_score.score(made([0.8, 0.6]), made([0.5, 0.3]), made([0.2, 0.2]), MOVES)
  assert score.s.value == pytest.approx((0.7 - 0.4) / (0.7 - 0.2)) and not score.withheld
  assert score.s.low < score.s.value < score.s.high and score.groups == 200
  np.testing.assert_allclose(score.by_dimension, [0.5, 0.3])
  assert (score.z.value, score.single.value, score.both.value) == pytest.approx((0.4, 0.7, 0.2))


def test_the_better_control_counts():
  weak, strong = made([0.9, 0.9]), made([0.8, 0.6])
  arguments = {"z": made([0.5, 0.3]), "moves": MOVES}
  one = motion_score.score(strong, both=made([0.2, 0.2]), **arguments)
  two = motion_score.score([weak, strong], both=[made([0.3, 0.3]), made([0.2, 0.2])], **arguments)
  assert two.s == one.s and (two.chosen_single, two.chosen_both) == (1, 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_standard_errors_are_those_of_groups(seed):
  """Rows of a group are alike: the error of a mean is that of 200 groups, not of 600 rows."""
  random = np.random.default_rng(seed)
  shared = random.normal(size=(200, 1)) * 0.1 + 0.5
  values = np.repeat(shared, 3, axis=0)
  estimate = motion_score.e_estimate(values, MOVES, resamples=4000)
  assert estimate.error == pytest.approx(shared.std() / np.sqrt(200), rel=0.06)
  assert estimate.high - estimate.low == pytest.approx(3.92 * estimate.error, rel=0.08)
  by_row = motion_score.e_estimate(values, motion_score.Moves(np.arange(600)), resamples=4000)
  assert by_row.error == pytest.approx(estimate.error / np.sqrt(3), rel=0.06)


def test_unequal_groups_are_drawn_whole():
  """One group of 100 rows with errors of 0.5, 10 of one row with 0: a mean over rows, drawn by
  group.
  """
  values, groups = (
    np.repeat([[0.5], [0.0]], [100, 10], axis=0),
    np.array([0] * 100 + list(range(1, 11))),
  )
  estimate = motion_score.e_estimate(values, motion_score.Moves(groups))
  assert (
    estimate.value == pytest.approx(50 / 110) and estimate.low == 0 and 0.48 < estimate.high <= 0.5
  )


def test_a_paired_difference_is_sharper_than_two_intervals():
  z = made([0.5, 0.3])
  other = z + 0.02 + 0.01 * np.random.default_rng(1).normal(size=z.shape)
  found = motion_score.difference(z, other, MOVES)
  assert found.value == pytest.approx(-0.02, abs=0.002) and found.high < 0 and found.error < 0.001
  assert motion_score.e_estimate(z, MOVES).error > 5 * found.error
  assert motion_score.difference(z, z, MOVES).error == 0


def test_large_and_small_moves_are_no_part_of_the_error():
  """Errors that are 0.4 of the square of each move: e is 0.4 in every draw, however large the moves
  drawn are.
  """
  random = np.random.default_rng(0)
  squares = np.repeat(random.uniform(0.2, 1.8, size=(200, 1)) ** 4, 3, axis=0)
  moves = motion_score.Moves(GROUPS, squares)
  found = motion_score.e_estimate(0.4 * squares, moves)
  assert (found.value, found.low, found.high) == pytest.approx((0.4, 0.4, 0.4))
  assert motion_score.e(0.4 * squares, squares) == pytest.approx(0.4)
  assert motion_score.difference(0.5 * squares, 0.3 * squares, moves).error == pytest.approx(
    0, abs=1e-12
  )
  score = motion_score.score(0.8 * squares, 0.5 * squares, 0.2 * squares, moves)
  assert (score.s.value, score.s.low, score.s.high) == pytest.approx((0.5, 0.5, 0.5))
  part = spread.over_levels(0.8 * squares, 0.5 * squares, 0.2 * squares, moves, levels=GROUPS % 2)
  assert [one.s.value for one in part.scores] == pytest.approx([0.5, 0.5])
  asked = made([0.8, 0.8]), made([0.5, 0.5]), made([0.2, 0.2])
  for wrong, text in (
    (squares, r"squares: expected \[600, 2\], as z's errors, found \[600, 1\]"),
    (np.ones((600, 3)), r"squares: expected \[600, 2\], as z's errors, found \[600, 3\]"),
    (np.zeros((600, 2)), "squares: a number that is asked for never moves"),
  ):
    with pytest.raises(errors.UserError, match=text):
      motion_score.score(*asked, motion_score.Moves(GROUPS, wrong))


def test_the_limit_of_one_picture_counts_without_error_where_it_is_the_smallest():
  asked = made([0.9, 0.8]), made([0.5, 0.3]), made([0.2, 0.2])
  sampled = motion_score.score(*asked, MOVES)
  low = motion_score.score(*asked, motion_score.Moves(GROUPS, limit=0.7))
  assert (low.single.value, low.single.low, low.single.high, low.chosen_single) == (
    0.7,
    0.7,
    0.7,
    -1,
  ) and low.single.error < 1e-9
  assert low.s.value == pytest.approx((0.7 - 0.4) / (0.7 - 0.2)) and low.z == sampled.z
  high = motion_score.score(*asked, motion_score.Moves(GROUPS, limit=0.95))
  assert high.s == sampled.s and high.chosen_single == 0
  levels = spread.over_levels(*asked, motion_score.Moves(GROUPS, limit=0.7), levels=GROUPS % 2)
  assert [one.single.value for one in levels.scores] == [0.7, 0.7]


def test_s_is_withheld_where_both_pictures_do_not_help():
  score = motion_score.score(made([0.95, 0.9]), made([0.5, 0.3]), made([0.92, 0.85]), MOVES)
  assert np.isnan(score.s.value) and "not clearly better than one" in score.withheld
  assert score.z.value == pytest.approx(0.4) and score.gain.low < motion_score.CLEAR
  noisy = motion_score.score(
    made([0.8, 0.8], seed=1, noise=3), made([0.5, 0.3]), made([0.7, 0.7], seed=2, noise=3), MOVES
  )
  assert noisy.gain.value > motion_score.CLEAR and noisy.withheld


def test_errors_name_what_is_wrong():
  z = made([0.5, 0.3])
  for arguments, text in (
    ((z[:5], z, z, GROUPS), r"single's errors: expected \[600, 2\], as z's errors, found \[5, 2\]"),
    ((z, z, z[:, :1], GROUPS), r"both's errors: expected \[600, 2\]"),
    ((z, z, z, GROUPS[:7]), r"groups: expected \[600\], one for each pair, found \[7\]"),
    ((z, z * np.nan, z, GROUPS), "z's errors: 600 of 600 rows"),
    ((z, z, z, np.zeros(600)), "at least 2 groups, found 1"),
  ):
    with pytest.raises(errors.UserError, match=text):
      motion_score.score(*arguments[:3], motion_score.Moves(arguments[3]))


@pytest.fixture(scope="module")
def pilot():
  """(world's fit pairs, test pairs, errors of single pictures, of both), on scenes that were not
  fitted.
  """
  world = worlds.World()
  fit, test = world.pairs(800), world.pairs(600)
  both = [np.concatenate([some.first, some.second], axis=1) for some in (fit, test)]
  single = [
    worlds.errors_of(getattr(fit, name), getattr(test, name), fit.moved, test.moved, whiten=False)
    for name in ("first", "second")
  ]
  return fit, test, single, worlds.errors_of(*both, fit.moved, test.moved, whiten=False)


def test_the_pilots_world(pilot):
  fit, test, single, both = pilot
  z = {name: (a, worlds.latents(test, fit)[name]) for name, a in worlds.latents(fit, fit).items()}
  found = {
    name: motion_score.score(
      single, worlds.errors_of(a, b, fit.moved, test.moved), both, motion_score.Moves(test.group)
    )
    for name, (a, b) in z.items()
  }
  assert found["difference"].s.value == pytest.approx(1, abs=0.02)
  assert found["both"].s.value == pytest.approx(1, abs=0.02)
  assert found["first"].s.value < 0.02 and found["future"].s.value < 0.02
  assert found["first"].s.low > -0.2 and found["future"].s.low > -0.4


def test_s_does_not_depend_on_the_width_of_z(pilot):
  fit, test, single, both = pilot
  differences = [some.second - some.first for some in (fit, test)]
  small = [worlds.components(values, differences[0], 16) for values in differences]
  score = [
    motion_score.score(
      single, worlds.errors_of(*small, fit.moved, test.moved), both, motion_score.Moves(test.group)
    )
  ]
  for width in (16, 128, 512, 1024):
    mixed = np.random.default_rng(width).normal(size=(16, width))
    wide = [(values @ mixed).astype(np.float32) for values in small]
    errors_wide = worlds.errors_of(*wide, fit.moved, test.moved)
    score.append(motion_score.score(single, errors_wide, both, motion_score.Moves(test.group)))
  values = [found.s.value for found in score]
  assert np.ptp(values) < 0.02 and values[0] > 0.9
