"""The rows of the exam for the page, and as text for the terminal.

A row is what exam.json stores: a value, and "NAME_low" and "NAME_high" for its 95 % interval.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from como_jax.report.data import Exam, ExamRow, Interval

Row = Mapping[str, Any]
# Column of the table -> key of the rows.
LEAKS = {
  "scene": "excess/scene",
  "camera": "excess/camera",
  "objects": "excess/objects",
  "colors": "excess/palette",
  "future": "future/second",
}


def interval(row: Row, key: str) -> Interval | None:
  """A value of a row with its interval; None: it was withheld or not measured."""
  value, low, high = (row.get(name) for name in (key, f"{key}_low", f"{key}_high"))
  if value is None or low is None or high is None:
    return None
  return (value, low, high) if np.isfinite((value, low, high)).all() else None


def exam(rows: Mapping[str, Row]) -> Exam:
  """Converts rows for the page."""
  first = next(iter(rows.values()))
  return Exam(
    tuple(_exam_row(name, row) for name, row in rows.items()),
    first.get("e_single"),
    first.get("e_both"),
  )


def _exam_row(name: str, row: Row) -> ExamRow:
  excess = {
    key: row[key] for key in row if key.startswith("excess/") and row.get(f"{key}_low") is not None
  }
  strongest = max(excess, key=lambda key: excess[key]) if excess else None
  return ExamRow(
    name,
    row["kind"],
    error=interval(row, "e_z"),
    score=interval(row, "s"),
    leak=interval(row, strongest) if strongest else None,
    read=tuple(row.get("flags", ())),
    gap=interval(row, "minus_components"),
    future=interval(row, "future/second"),
  )


def table(rows: Mapping[str, Row]) -> str:
  """S, error and leakage of each row, as text.

  The last column of leakage, "future", is the share of the second picture that z predicts.
  """
  width = max(len(name) for name in rows)
  heads = " ".join(f"{name:>7}" for name in LEAKS)
  lines = [f"{'':{width}}  {'S [95 %]':>22}  {'e_z':>6}  {heads}  flagged"]
  for name, row in rows.items():
    score = interval(row, "s")
    score_text = f"{score[0]:.2f} [{score[1]:.2f}, {score[2]:.2f}]" if score else "withheld"
    leaks = [row.get(key) for key in LEAKS.values()]
    cells = " ".join(f"{'-' if value is None else f'{value:.2f}':>7}" for value in leaks)
    lines.append(
      f"{name:{width}}  {score_text:>22}  {row['e_z']:6.3f}  {cells}  "
      f"{', '.join(row.get('flags', ())) or '-'}"
    )
  return "\n".join(lines)


def gaps(name: str, row: Row, baselines: Mapping[str, str]) -> list[str]:
  """Lines with the differences of a row's error of the move from those of baselines.

  Args:
    name: name of the row.
    row: the row.
    baselines: baseline -> key of the difference; one that the row does not have is left out.
  """
  lines = []
  for baseline, key in baselines.items():
    if gap := interval(row, key):
      lines.append(
        f"{name}: error of the move {row['e_z']:.3f}, minus that of the {baseline}: "
        f"{gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]"
      )
  return lines
