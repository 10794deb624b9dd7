"""Success statistics against published worked examples, exact values and simulation."""

import math

import numpy as np
import pytest

from como_jax import errors
from como_jax.evaluate import success


@pytest.mark.parametrize(
  "counts, low, high",
  [
    ((81, 263), 0.2553, 0.3662),  # Newcombe 1998, comparison of seven methods, method 3
    ((15, 148), 0.0624, 0.1605),
    ((0, 20), 0.0, 0.1611),
    ((1, 29), 0.0061, 0.1718),
    ((10, 10), 0.7225, 1.0),
  ],
)
def test_wilson_intervals_of_the_literature(counts, low, high):
  found = success.rate(*counts)
  assert (round(found.low, 4), round(found.high, 4)) == (low, high)
  assert (
    found.value == counts[0] / counts[1]
    and found.count == counts[1]
    and found.low <= found.value <= found.high
  )


@pytest.mark.parametrize(
  "first, second, low, high",
  [
    ((56, 70), (48, 80), 0.0524, 0.3339),  # Newcombe 1998, eleven methods, table II, method 10
    ((9, 10), (3, 10), 0.1705, 0.8090),
    ((6, 7), (2, 7), 0.0582, 0.8062),
    ((5, 56), (0, 29), -0.0381, 0.1926),
    ((0, 10), (0, 20), -0.1611, 0.2775),
    ((10, 10), (0, 20), 0.6791, 1.0),
  ],
)
def test_differences_of_the_literature(first, second, low, high):
  found = success.compare(first, second).difference
  assert (round(found.low, 4), round(found.high, 4)) == (low, high)
  back = success.compare(second, first).difference
  assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def pairs(both, only_first, only_second, neither):
  first = [True] * (both + only_first) + [False] * (only_second + neither)
  return first, [True] * both + [False] * only_first + [True] * only_second + [False] * neither


def test_a_paired_difference_of_the_literature():
  # Altman et al., Statistics with Confidence (2000), table 6.2
  found = success.compare_paired(*pairs(14, 5, 0, 22))
  assert found.difference.value == pytest.approx(5 / 41)
  assert found.difference.low == pytest.approx(
    0.011, abs=6e-4
  ) and found.difference.high == pytest.approx(0.226, abs=6e-4)
  assert found.p == pytest.approx(2 / 2**5)


def test_pairs_that_agree_give_narrower_intervals_than_unrelated_episodes():
  paired = success.compare_paired(*pairs(40, 8, 2, 50)).difference
  unrelated = success.compare((48, 100), (42, 100)).difference
  assert paired.value == pytest.approx(unrelated.value)
  assert paired.high - paired.low < 0.6 * (unrelated.high - unrelated.low)
  same = success.compare_paired([True, False], [True, False])
  assert (
    same.difference.value == 0 and same.p == 1 and same.difference.low < 0 < same.difference.high
  )
  perfect = success.compare_paired([True] * 5, [True] * 5).difference
  assert perfect.low == -perfect.high != 0


@pytest.mark.parametrize(
  "counts, p", [((8, 10, 1, 6), 0.03496503), ((3, 4, 1, 4), 0.48571429), ((5, 9, 5, 9), 1.0)]
)
def test_fisher_exact_test(counts, p):
  assert success.compare(counts[:2], counts[2:]).p == pytest.approx(p)


def test_mcnemar_exact_test():
  assert success.compare_paired(*pairs(3, 9, 2, 4)).p == pytest.approx(2 * (1 + 11 + 55) / 2**11)
  assert success.compare_paired(*pairs(3, 0, 0, 4)).p == 1


def test_one_task_is_wilson_and_many_tasks_are_narrower_than_each():
  one = success.mean_over_tasks({"a": (7, 10)})
  assert (one.value, one.low, one.high) == pytest.approx(
    (0.7, success.rate(7, 10).low, success.rate(7, 10).high)
  )
  many = success.mean_over_tasks({str(i): (7, 10) for i in range(9)})
  assert many.count == 90 and many.value == pytest.approx(0.7)
  assert many.high - many.low == pytest.approx((one.high - one.low) / 3)
  unequal = success.mean_over_tasks({"a": (0, 2), "b": (50, 50)})
  assert unequal.value == 0.5, "tasks count alike, whatever their number of episodes"
  certain = success.mean_over_tasks({"a": (10, 10), "b": (10, 10)})
  assert certain.high == 1 and certain.low < 1, "no certainty from a few successes"


def test_the_stratified_interval_covers():
  rng = np.random.default_rng(0)
  rates, n = np.array([0.1, 0.5, 0.7, 0.95]), 20
  covered = 0
  for draws in rng.binomial(n, rates, size=(1000, 4)):
    found = success.mean_over_tasks({str(i): (int(k), n) for i, k in enumerate(draws)})
    covered += found.low <= rates.mean() <= found.high
  assert 0.93 < covered / 1000 < 0.99


def test_spread_over_runs():
  found = success.over_runs([0.2, 0.4, 0.6])
  assert (found.mean, found.deviation, found.low, found.high, found.count) == pytest.approx(
    (0.4, 0.2, 0.2, 0.6, 3)
  )
  assert found.interval == pytest.approx(
    (0.4 - 4.303 * 0.2 / math.sqrt(3), 0.4 + 4.303 * 0.2 / math.sqrt(3))
  )
  assert success.over_runs([0.5]).interval is None and success.over_runs([0.5]).deviation == 0


@pytest.mark.parametrize(
  "runs, t",
  [(2, 12.706), (11, 2.228), (12, 2.201), (16, 2.131), (20, 2.093), (31, 2.042), (121, 1.980)],
)
def test_intervals_over_runs_use_students_t(runs, t):
  """Points of the printed tables."""
  found = success.over_runs(np.arange(runs))
  assert (found.interval[1] - found.mean) * math.sqrt(runs) / found.deviation == pytest.approx(
    t, abs=6e-4
  )


@pytest.mark.parametrize(
  "call",
  [
    lambda: success.rate(0, 0),
    lambda: success.rate(3, 2),
    lambda: success.rate(1, 2, level=95),
    lambda: success.mean_over_tasks({}),
    lambda: success.compare_paired([True], []),
    lambda: success.over_runs([]),
  ],
)
def test_impossible_counts_are_refused(call):
  with pytest.raises(errors.UserError):
    call()


def test_texts():
  assert str(success.rate(5, 10)) == "50.0 % [23.7, 76.3]"
  assert str(success.compare((9, 10), (3, 10))) == "+60.0 points [+17.1, +80.9], p = 0.0198"


def test_students_t_of_the_printed_table():
  """Two-sided 95 % points for 1 to 10 degrees of freedom."""
  printed = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228]
  assert [success._t95(n) for n in range(1, 11)] == printed
  assert [round(success._t95(n), 3) for n in (11, 15, 30, 1000)] == [2.201, 2.131, 2.042, 1.962]


def test_correlations_by_hand():
  """Newcombe 1998: continuity-corrected when positive, not when negative, 0 when a margin is
  empty.
  """
  assert success._correlation(14, 5, 0, 22) == pytest.approx(
    (14 * 22 - 0 - 41 / 2) / (19 * 22 * 14 * 27) ** 0.5
  )
  assert success._correlation(1, 9, 8, 2) == pytest.approx((2 - 72) / (10 * 10 * 9 * 11) ** 0.5)
  assert success._correlation(2, 1, 1, 2) == 0  # less than the correction
  assert [
    success._correlation(*counts)
    for counts in ((3, 0, 2, 0), (0, 0, 2, 3), (3, 2, 0, 0), (0, 3, 0, 2))
  ] == [0] * 4


def test_levels_and_records():
  wide, narrow = success.rate(5, 10), success.rate(5, 10, level=0.5)
  assert (
    narrow.low > wide.low and narrow.high < wide.high and wide == success.rate(5, 10, level=0.95)
  )
  assert wide.to_json() == {"value": 0.5, "low": wide.low, "high": wide.high, "count": 10}
  assert success._z(0.95) == pytest.approx(1.959964, abs=1e-6) and success._z(0.5) == pytest.approx(
    0.674490, abs=1e-6
  )
  for name, given in (
    ("mean_over_tasks", ({"a": (3, 9)},)),
    ("compare", ((3, 9), (5, 9))),
    ("compare_paired", ([True, False, True], [False, False, True])),
  ):
    function = getattr(success, name)
    default, same, half = (
      function(*given, **level) for level in ({}, {"level": 0.95}, {"level": 0.5})
    )
    assert default == same != half
  assert (
    success.compare((3, 9), (5, 8)).difference.count == 17
    and success.compare_paired([True, False, True], [False, False, True]).difference.count == 3
  )
  assert (
    success.mean_over_tasks({"a": (0, 3), "b": (0, 3)}).low == 0
    and success.mean_over_tasks({"a": (0, 3), "b": (3, 3)}).value == 0.5
  )
  for level in (0, 1):
    with pytest.raises(errors.UserError, match="expected a number between 0 and 1"):
      success.rate(1, 2, level=level)
  with pytest.raises(errors.UserError):
    success.rate(-1, 2)
  with pytest.raises(
    errors.UserError,
    match="^a paired comparison of 2 and 1 episodes: expected the same episodes of both$",
  ):
    success.compare_paired([True, False], [True])
