"""Errors of z and of the stored controls on the pairs of the test."""

import dataclasses

import pytest

from como_jax import errors
from como_jax.exam import motion_score, run, table


def test_errors_are_those_of_the_tests_pairs(made, results):
  exam, _, _ = made
  result = results["motion"]
  assert result.errors.shape == (len(exam.rows(1)), 4) and result.errors_robot.shape == (
    len(exam.rows(2)),
    4,
  )
  assert result.score.z.value == pytest.approx(motion_score.e(result.errors))
  both = exam.errors["both"] / exam.variance
  assert (
    result.score.both.value
    == pytest.approx(motion_score.e(both))
    == pytest.approx(result.controls["both"])
  )
  better = min(result.controls["first_linear"], result.controls["second_linear"])
  assert result.score.single.value == pytest.approx(better)
  found = motion_score.difference(
    result.errors, results["first"].errors, result.moves, resamples=300
  )
  assert found.high < 0


def test_a_set_without_controls_is_named(made):
  exam, _, _ = made
  for prefix in ("errors", "errors_robot"):
    bare = dataclasses.replace(
      exam, **{prefix: {"first_linear": getattr(exam, prefix)["first_linear"]}}
    )
    with pytest.raises(
      errors.UserError, match=rf"expected {prefix}/first_.*found \['first_linear'\]"
    ):
      run.evaluate(bare, exam.target, resamples=10)
  bare = dataclasses.replace(exam, errors_robot={}, pictures=None)
  without = run.evaluate(bare, exam.target, resamples=10)
  assert without.score_robot is None and without.errors_robot is None
  assert (
    without.future is None
    and "future/gap" not in without.row()
    and "told" not in table.text(without)
  )
