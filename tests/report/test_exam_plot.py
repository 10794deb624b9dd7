"""The plot of the exam."""

import io

import numpy as np
from PIL import Image

from como_jax import report
from como_jax.report import exam_plot, themes

MODEL = report.ExamRow("mine", "model", (0.4, 0.3, 0.5), (0.6, 0.5, 0.7), (0.1, 0.0, 0.2))
CHEAT = report.ExamRow("copy", "cheat", (0.9, 0.8, 1.0), (-9.0, -9.5, -8.5), (0.9, 0.8, 1.0))


def test_points_outside_are_drawn_at_the_edge_with_their_value(monkeypatch):
  named = []
  monkeypatch.setattr(exam_plot, "_name_points", lambda _f, _a, points, _t: named.extend(points))
  exam_plot.axes(report.Exam([MODEL, CHEAT], single=0.8, both=0.1), themes.LIGHT)
  assert named == [(0.6, 0.1, "mine", True), (exam_plot.LOWEST, 0.9, "copy (S -9.00)", False)]


def test_rows_without_a_score_have_an_error_alone():
  withheld = report.ExamRow("mine", "model", (0.4, 0.3, 0.5))
  for theme, bright in ((themes.LIGHT, True), (themes.DARK, False)):
    png = exam_plot.axes(report.Exam([withheld, CHEAT]), theme)
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    assert (np.median(picture) > 128) == bright and picture.std() > 2
