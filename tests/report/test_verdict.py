"""What the report says of made-up tables: the whole sentence, and which questions were answered."""

import pytest

from como_jax.report import verdict
from tests.report.made_rows import GOOD, judge


def test_all_good():
  found = judge()
  assert (found.headline, found.level, found.missing) == (
    verdict.judge(GOOD).headline,
    "good",
    (),
  ) and found.headline.startswith("Yes, as far as this data can tell: every sign says")
  assert [check.passed for check in found.checks] == [True] * 7
  assert found.checks[0].question == "Does z tell the action better than the untrained model?"
  assert [check.evidence for check in found.checks] == [
    "LP-MSE 0.400 against 0.900 (gap needed: 0.060)",
    "LP-MSE 0.400 against 0.600 (gap needed: 0.060)",
    "S = 0.60 on other cameras (needed: above 0.20)",
    "0.04 of the way from chance to certainty (needed: at most 0.10; untrained: 0.90)",
    "the nearest z's action is more alike than chance by 0.300 (needed: above 0.100)",
    "error is 0.600 of the copy's on moving pixels (needed: below 0.98)",
    "effective rank 7.00 (needed: 1.5; untrained: 4.00)",
  ]


@pytest.mark.parametrize(
  "changes, headline, level",
  [
    (
      {"camera_excess": (0.5, 0.03)},
      "Partly: z tells motion, but the camera can be read from z.",
      "mixed",
    ),
    (
      {"retrieval_gain": (0.05, 0.05)},
      "Partly: z tells motion, but the same motion is not found again elsewhere.",
      "mixed",
    ),
    (
      {"effective_rank": 1.2},
      "Partly: z tells motion, but z uses hardly more than one direction.",
      "mixed",
    ),
    (
      {
        "lp_mse": (0.95, 0.03),
        "lp_half": 0.95,
        "lp_gain": (-0.05, 0.03),
        "lp_gain_difference": (-0.35, 0.03),
      },
      "Not yet: z tells the action no better than the untrained model; z tells the action no "
      "better than components of the encoder's features, which need no training.",
      "bad",
    ),
    (
      {"lp_mse": (0.65, 0.03), "lp_half": 0.66, "lp_gain_difference": (-0.05, 0.03)},
      (
        "Not yet: z tells the action no better than components of the encoder's features, which "
        "need no training."
      ),
      "bad",
    ),
    (
      {"motion_score": (-0.3, 0.1)},
      "Not yet: z tells the action no better than a single picture.",
      "bad",
    ),
    (
      {"copy_ratio_moving": 1.2},
      "Not yet: pictures drawn with z are no better than copies.",
      "bad",
    ),
    (
      {"copy_ratio_moving": 0.99, "camera_excess": (0.5, 0.03)},
      "Not yet: the camera can be read from z; pictures drawn with z are no better than copies.",
      "bad",
    ),
    (
      {"lp_half": 0.5},
      "Not known: whether z is motion or appearance was not told (too few windows: fitted on half "
      "of them the error is 0.500 and not 0.400).",
      "mixed",
    ),
    (
      {"lp_half": 0.5, "camera_excess": (0.5, 0.03)},
      "Not known: whether z is motion or appearance was not told (too few windows: fitted on half "
      "of them the error is 0.500 and not 0.400). What is known: the camera can be read from z.",
      "mixed",
    ),
  ],
)
def test_one_no_is_never_a_yes(changes, headline, level):
  found = judge(**changes)
  assert (found.headline, found.level) == (headline, level)


@pytest.mark.parametrize(
  "drop, rows, why",
  [
    (["camera_excess"], [], "not measured: it takes several cameras"),
    (["retrieval_gain"], [], "not measured: it takes several cameras or scenes"),
    (["copy_ratio", "copy_ratio_moving"], [], "not measured"),
    (["effective_rank"], [], "not measured"),
  ],
)
def test_what_is_missing_is_said(drop, rows, why):
  found = judge(drop=drop, rows=rows)
  assert (found.headline, found.level) == ("So far yes, but not everything was measured.", "mixed")
  assert [reason for _, reason in found.missing] == [why] and len(found.checks) == 6


def test_nothing_measured():
  assert (
    verdict.judge({}) is None
    and verdict.judge({"trained": {"psnr": 20}}) is None
    and verdict.judge({"trained": {"lp_mse": float("nan")}}) is None
  )
  only = verdict.judge({"trained": {"lp_mse": 0.4}})
  assert only.headline.startswith("Not known") and only.checks == () and len(only.missing) == 7


def test_videos_without_numbers_are_not_a_yes():
  drop = [name for name in GOOD["trained"] if name.startswith(("lp", "motion", "retrieval"))]
  found = judge(drop=drop, motion_contrast=(0.2, 0.05))
  assert (
    found.headline.startswith("Not known")
    and "cosine above other moments' 0.200" in found.checks[1].evidence
  )
  assert judge(drop=drop, motion_contrast=(0.05, 0.05)).headline.endswith(
    "What is known: the same motion is not found again elsewhere."
  )
  assert judge(drop=drop, copy_ratio_moving=1.0).level == "bad"


STATE = {
  "state_" + name: value
  for name, value in GOOD["trained"].items()
  if name.startswith(("lp", "motion"))
}


def positions(trained, **rows):
  table = {
    "trained": GOOD["trained"] | {"lp_mse": (0.899, 0.03), "lp_half": 0.9} | STATE | trained,
    "both-pictures": {},
    "untrained": {"lp_mse": (0.9, 0.03), "state_lp_mse": (0.95, 0.03)},
    "difference": {"lp_mse": (0.6, 0.03), "state_lp_mse": (0.7, 0.03)},
  }
  return verdict.judge(table | {name: {"lp_mse": value} for name, value in rows.items()})


def test_positions_are_not_asked_for():
  found = positions({"action_positions": 1.0})
  assert (
    found.level == "good"
    and found.checks[0].question
    == "Does z tell the change of the robot's state better than the untrained model?"
  )
  assert found.checks[0].evidence == (
    "LP-MSE, state 0.400 against 0.950 (gap needed: 0.060); 100 % of the actions are "
    "positions, not motions"
  )
  assert "positions" not in found.checks[1].evidence
  bad = positions({"action_positions": 0.5, "state_lp_mse": (0.94, 0.03), "state_lp_half": 0.95})
  assert bad.headline.startswith(
    "Not yet: z tells the change of the robot's state no better than the untrained model"
  )
  assert (
    positions({"action_positions": 0.0}).checks[0].question
    == "Does z tell the action better than the untrained model?"
  )
  video = {name: value for name, value in GOOD["trained"].items() if name != "action_positions"}
  assert (
    verdict.judge(GOOD | {"trained": video | {"action_positions": 1.0}})
    .checks[0]
    .question.startswith("Does z tell the action")
  ), "no state was probed"


def test_actions_that_look_like_positions_where_they_cannot_be_compared():
  def rows(motion, position):
    return {"true-state-change": (motion, 0.1), "true-state": position}

  # no motion can tell them, so that z does not says nothing against z
  found = positions({}, **rows(1.01, 0.123))
  assert found.level == "good" and "the change of the robot's state" in found.checks[0].question
  assert found.checks[0].evidence.endswith(
    "rather than motions (LP-MSE 0.123 from the robot's state, 1.010 from its true change)"
  )
  # relative actions, a controller's small steps, a gap within two errors
  for motion, position in ((0.4, 0.8), (0.4, 0.1), (0.9, 0.71)):
    assert "tell the action" in positions({}, **rows(motion, position)).checks[0].question
  told = positions(
    {"lp_mse": (0.2, 0.03), "lp_half": 0.2, "lp_gain": (0.7, 0.02)}, **rows(1.0, 0.1)
  )
  assert told.checks[0].passed and "tell the action" in told.checks[0].question, (
    "z tells the action, whatever the state tells"
  )
  only = {
    name: value for name, value in GOOD["trained"].items() if not name.startswith("lp")
  } | STATE
  moved = verdict.judge(
    {"trained": only, "untrained": {"state_lp_mse": 0.9}, "difference": {"state_lp_mse": 0.9}}
  )
  assert "change of the robot's state" in moved.checks[0].question
