"""What may be said about recipes that were trained a few times: against hand arithmetic, printed
tables and simulation.
"""

import math

import numpy as np
import pytest
from scipy import stats

from como_jax import errors
from como_jax.evaluate import runs, success

# Successes of 150 episodes a seed: policies on few demonstrations alone, and with labeled video.
ALONE, LABELLED = np.array([72, 71, 70]) / 150, np.array([91, 89, 79]) / 150


def test_paired_runs_by_hand():
  """Differences 12.67, 12 and 6 points: mean 10.22, deviation 3.672; t(2) = 4.303."""
  found = runs.paired(LABELLED, ALONE)
  half = 4.302653 * 0.0367171 / math.sqrt(3)
  assert (found.difference.value, found.deviation) == pytest.approx((46 / 450, 0.0367171), rel=1e-5)
  assert (found.difference.low, found.difference.high) == pytest.approx(
    (46 / 450 - half, 46 / 450 + half), rel=1e-4
  )
  assert (
    str(found) == "+10.2 points [+1.1, +19.3], p = 0.040, n = 3 runs"
    and found.difference.count == 3
  )
  back = runs.paired(ALONE, LABELLED)
  assert (back.difference.value, back.difference.high, back.p) == pytest.approx(
    (-46 / 450, -found.difference.low, found.p)
  )
  assert runs.paired(LABELLED, ALONE, level=0.9).difference.low == pytest.approx(
    46 / 450 - 2.919986 * 0.0367171 / math.sqrt(3), rel=1e-4
  )


@pytest.mark.parametrize(
  "first, second, text",
  [
    ([0.6], [0.5], "+10.0 points, n = 1 run: no interval"),
    ([0.6, 0.5, 0.4], [0.5, 0.4, 0.3], "+10.0 points, n = 3 runs: no interval"),
  ],
)
def test_runs_without_a_spread_have_no_interval(first, second, text):
  found = runs.paired(first, second)
  assert str(found) == text and not found.known and found.p == 1
  assert (found.difference.low, found.difference.high) == (-1, 1) and not runs.equivalent(
    found.difference.low, found.difference.high, 0.5
  )


def test_the_motion_model_is_the_unit_of_claims_about_motion_models():
  first, second = [0.6, 0.7, 0.5, 0.6], [0.5, 0.6, 0.5, 0.4]
  assert (
    str(runs.by_model(first, second, ["a"] * 4)) == "+10.0 points, n = 1 motion model: no interval"
  )
  two = runs.by_model(first, second, ["a", "b", "b", "a"])  # 0.15 of a, 0.05 of b
  assert (two.difference.count, two.deviation, two.unit) == (
    2,
    pytest.approx(0.1 / math.sqrt(2)),
    "motion model",
  )
  assert two.difference.high == pytest.approx(0.1 + 12.7062 * 0.05, rel=1e-4)
  each = runs.by_model(first, second, range(4))
  assert each.difference == runs.paired(first, second).difference


def test_pooled_episodes_are_too_sure_and_runs_are_not():
  """No effect, but training seeds differ by 4 points: the interval over episodes leaves it out far
  more often than one time in twenty.
  """
  rng, truth = np.random.default_rng(1), 0.5
  seeds = truth + 0.04 * rng.standard_normal((300, 2, 3))
  outcomes = rng.random((300, 2, 3, 150)) < seeds[..., None]
  by_run, by_episode = 0, 0
  for first, second in outcomes:
    by_run += runs.paired(first.mean(1), second.mean(1)).p < 0.05
    by_episode += success.compare_paired(first.ravel().tolist(), second.ravel().tolist()).p < 0.05
  assert 0.02 < by_run / 300 < 0.085 < 0.12 < by_episode / 300


def test_components_of_variance():
  rng = np.random.default_rng(2)
  first = rng.random((400, 50)) < 0.5 + 0.1 * rng.standard_normal((400, 1))
  second = rng.random((400, 50)) < 0.5
  found = runs.components(first, second)
  assert found.between == pytest.approx(0.1, abs=0.015) and found.within == pytest.approx(
    math.sqrt(0.5), abs=0.02
  )
  assert found.deviation(50) == pytest.approx(
    (first.mean(1) - second.mean(1)).std(ddof=1), rel=1e-6
  )
  assert found.deviation(10**9) == pytest.approx(found.between, rel=1e-6)
  assert (
    runs.components([[1, 0, 1, 0]] * 2, [[0, 1, 1, 0]] * 2).between == 0
  )  # equal means: less than the episodes explain


@pytest.mark.parametrize(
  "units, effect", [(3, 3.26), (5, 1.68), (10, 0.997), (34, 0.494), (100, 0.283)]
)
def test_detectable_difference_of_the_printed_tables(units, effect):
  """Effect sizes of a paired t test with 80 % power at 5 %, two-sided: n = 34 for 0.5, 10 for 1.0
  (Cohen 1988, G*Power).
  """
  assert runs.detectable(units, 2.0) == pytest.approx(2 * effect, rel=0.01)


def test_detectable_difference_has_the_power_that_it_says():
  rng = np.random.default_rng(4)
  shift = runs.detectable(4, 0.05)
  seen = stats.ttest_1samp(shift + 0.05 * rng.standard_normal((4000, 4)), 0, axis=1).pvalue < 0.05
  assert seen.mean() == pytest.approx(0.8, abs=0.025)
  assert runs.detectable(1, 0.05) == math.inf and runs.detectable(4, 0.0) == 0
  shared = (
    stats.ttest_1samp(
      runs.detectable(4, 0.05, comparisons=8) + 0.05 * rng.standard_normal((4000, 4)), 0, axis=1
    ).pvalue
    < 0.05 / 8
  )
  assert shared.mean() == pytest.approx(0.8, abs=0.025)


def test_detectable_difference_between_two_trained_policies():
  assert runs.detectable_episodes(100) == pytest.approx(
    (1.959964 + 0.841621) * math.sqrt(0.5 / 100)
  )
  assert runs.detectable_episodes(100, rate=0.1) == pytest.approx(
    0.6 * runs.detectable_episodes(100)
  )
  assert runs.detectable_episodes(3) == 1


def test_pooled_deviation():
  assert runs.pooled([3.0, 4.0]) == pytest.approx(math.sqrt(12.5)) and runs.pooled([]) == 0


def test_holm_by_hand():
  """Of 0.01, 0.02, 0.03, 0.04: times 4, 3, 2, 1, and never falling."""
  assert runs.holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
  assert runs.holm([0.5, 0.9]) == [1, 1] and runs.holm([]) == [] and runs.holm([0.04]) == [0.04]


@pytest.mark.parametrize(
  "low, high, same", [(-4, 5, True), (-6, 1, False), (1, 5.1, False), (-5, 5, True), (6, 7, False)]
)
def test_equal_is_said_within_a_margin_only(low, high, same):
  assert runs.equivalent(low, high, 5) is same


@pytest.mark.parametrize(
  "call",
  [
    lambda: runs.paired([0.5], [0.5, 0.6]),
    lambda: runs.paired([], []),
    lambda: runs.paired([50.0, 60.0], [0.1, 0.2]),
    lambda: runs.by_model([0.5], [0.5], ["a", "b"]),
    lambda: runs.components([[1, 0]], [[1, 0]]),
    lambda: runs.components([[1, 0], [1]], [[1, 0], [1, 0]]),
    lambda: runs.equivalent(-1, 1, 0),
    lambda: runs.detectable_episodes(0),
  ],
)
def test_what_cannot_be_compared_is_refused(call):
  with pytest.raises(errors.UserError):
    call()
