"""The rows of the exam for the page, and as text."""

from como_jax import report
from como_jax.report import exam_rows


def test_report_rows_show_what_was_withheld_as_withheld():
  rows = {
    "trained": {
      "kind": "model",
      "e_z": 0.9,
      "e_z_low": 0.8,
      "e_z_high": 1.0,
      "s": None,
      "excess/scene": 0.2,
      "excess/scene_low": 0.1,
      "excess/scene_high": 0.3,
      "excess/camera": 0.4,
      "excess/camera_low": 0.3,
      "excess/camera_high": 0.5,
      "flags": ["camera"],
      "future/second": 0.5,
      "future/second_low": 0.4,
      "future/second_high": 0.6,
    }
  }
  shown = exam_rows.exam(rows).rows[0]
  assert shown == report.ExamRow(
    "trained",
    "model",
    error=(0.9, 0.8, 1.0),
    score=None,
    leak=(0.4, 0.3, 0.5),
    read=("camera",),
    gap=None,
    future=(0.5, 0.4, 0.6),
  )


def test_intervals_of_what_was_not_measured():
  row = {"a": 1.0, "a_low": 0.5, "a_high": 1.5, "b": 1.0, "c": 1.0, "c_low": None, "c_high": 2.0}
  assert exam_rows.interval(row, "a") == (1.0, 0.5, 1.5)
  assert [exam_rows.interval(row, key) for key in "bcd"] == [None] * 3
  assert exam_rows.interval(row | {"a_low": float("nan")}, "a") is None


def test_the_table_and_the_differences_as_text():
  rows = {
    "trained": {
      "e_z": 0.5,
      "s": 0.25,
      "s_low": 0.125,
      "s_high": 0.5,
      "excess/scene": 0.75,
      "flags": ["scene", "camera"],
      "minus_flow": -0.125,
      "minus_flow_low": -0.25,
      "minus_flow_high": 0.0,
    },
    "x": {"e_z": 1.0, "s": None},
  }
  assert exam_rows.table(rows).splitlines() == [
    "                       S [95 %]     e_z    scene  camera objects  colors  future  flagged",
    "trained       0.25 [0.12, 0.50]   0.500     0.75       -       -       -       -  "
    "scene, camera",
    "x                      withheld   1.000        -       -       -       -       -  -",
  ]
  baselines = {"difference": "minus_components", "flow": "minus_flow"}
  assert exam_rows.gaps("trained", rows["trained"], baselines) == [
    "trained: error of the move 0.500, minus that of the flow: -0.125 [-0.250, +0.000]"
  ]
