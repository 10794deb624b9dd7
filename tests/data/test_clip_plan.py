"""Which frames make which clip."""

import numpy as np

from como_jax.data import clip_plan
from como_jax.data.clip_plan import Span


def test_clips_by_hand():
  keep = np.array([0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1], bool)
  shot = np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
  tasks = list("xxxxxxxxxxyy")
  assert clip_plan.cut_clips(keep, shot, tasks, 3) == [
    [Span(1, 4, 0, "x"), Span(4, 5, 0, "x")],
    [Span(6, 7, 0, "x")],
    [Span(7, 10, 1, "x"), Span(10, 12, 1, "y")],
  ]
  assert clip_plan.cut_clips(np.zeros(3, bool), shot, tasks, 3) == []
  assert clip_plan.cut_clips(np.ones(4, bool), shot, tasks, 4) == [[Span(0, 4, 0, "x")]]
