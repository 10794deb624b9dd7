"""The report of a run: one self-contained HTML page, with its plots as PNG files next to it."""

from como_jax.report.data import (
  Exam,
  ExamRow,
  Goodput,
  Projection,
  Reconstruction,
  ReportData,
  Rollouts,
  Scatter,
  Similarity,
  Transfer,
)
from como_jax.report.explain import TRUE_CHANGE, TRUE_STATE
from como_jax.report.page import write

__all__ = [
  "TRUE_CHANGE",
  "TRUE_STATE",
  "Exam",
  "ExamRow",
  "Goodput",
  "Projection",
  "Reconstruction",
  "ReportData",
  "Rollouts",
  "Scatter",
  "Similarity",
  "Transfer",
  "write",
]
