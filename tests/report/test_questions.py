"""What each question asks of the rows."""

import pytest

from como_jax.evaluate import linear_probe
from como_jax.report import questions
from tests.report.made_rows import judge


@pytest.mark.parametrize(
  "rows, why",
  [
    ([], "withheld: on other cameras both pictures tell 0.300 ± 0.020 more than one"),
    (
      ["both-pictures"],
      "not measured: it takes probes fitted on some cameras and scored on others",
    ),
  ],
)
def test_without_a_word_on_single_pictures_it_is_not_known(rows, why):
  found = judge(drop=["motion_score"], rows=rows)
  assert (
    found.headline == f"Not known: whether z is motion or appearance was not told ({why})."
    and found.level == "mixed"
  )
  leaks = judge(drop=["motion_score"], rows=rows, camera_excess=(0.9, 0.02))
  assert leaks.headline.endswith("What is known: the camera can be read from z.")


@pytest.mark.parametrize(
  "changes, question",
  [
    ({"lp_gain": (0.5, None)}, 0),
    ({"lp_gain_difference": (0.2, None)}, 1),
    ({"motion_score": (0.6, None)}, 2),
    ({"retrieval_gain": (0.3, None)}, 4),
    ({"motion_contrast": (0.3, None)}, 4),
  ],
)
def test_a_number_without_an_error_bar_answers_nothing(changes, question):
  asked = [check.question for check in judge().checks]
  found = judge(**changes)
  assert (
    (asked[question], questions.UNCERTAIN) in found.missing
    and found.level == "mixed"
    and not found.headline.startswith("Yes")
  )


def test_the_same_moment_elsewhere_counts_before_the_nearest_neighbor():
  assert (
    judge(motion_contrast=(0.0, 0.05)).headline
    == "Partly: z tells motion, but the same motion is not found again elsewhere."
  )


@pytest.mark.parametrize("rows", [["untrained"], ["difference"]])
def test_without_a_row_to_compare_with_it_is_not_known(rows):
  found = judge(rows=rows)
  assert (
    found.headline == "Not known: whether z is motion or appearance was not told (not measured)."
    and found.level == "mixed"
  )


def test_gaps_have_to_exceed_their_noise():
  def asked(**changes):
    return [check.passed for check in judge(**changes).checks]

  # twice the error of the paired difference
  assert asked(lp_gain=(0.5, 0.26))[0] is False and asked(lp_gain=(0.5, 0.24))[0] is True
  # 2 % of the other's error
  assert asked(lp_mse=(0.883, 0.001), lp_half=0.883, lp_gain=(0.017, 0.001))[0] is False
  # unpaired: the joint error
  assert (
    judge(drop=["lp_gain"], lp_mse=(0.4, 0.25)).checks[0].evidence.endswith("(gap needed: 0.504)")
  )
  assert asked(lp_r2=-0.1)[0] is False
  assert asked(copy_ratio_moving=0.979)[5] is True and asked(copy_ratio_moving=0.981)[5] is False
  assert asked(camera_excess=(0.3, 0.2))[3] is True and asked(camera_excess=(0.3, 0.1))[3] is False
  assert asked(motion_score=(0.1, 0.06))[2] is False
  assert "on moving pixels" not in judge(drop=["copy_ratio_moving"]).checks[5].evidence
  assert questions.TOO_FEW == linear_probe.TOO_FEW
  assert not judge(lp_half=0.44).missing and len(judge(lp_half=0.46).missing) == 2
