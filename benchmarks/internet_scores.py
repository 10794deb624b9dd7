"""What is found in a video beside what it was made of: counts and errors."""

import dataclasses

import numpy as np
from internet_scenes import Made

from como_jax.data import frame_measures


@dataclasses.dataclass
class Score:
  """Counts of correct, missed and false detections."""

  right: int = 0
  missed: int = 0
  false: int = 0

  def __add__(self, other: "Score") -> "Score":
    return Score(self.right + other.right, self.missed + other.missed, self.false + other.false)

  def __str__(self) -> str:
    recall = self.right / max(1, self.right + self.missed)
    precision = self.right / max(1, self.right + self.false)
    counts = f"{self.right} of {self.right + self.missed}, {self.false} false"
    return f"{counts} (recall {recall:.3f}, precision {precision:.3f})"

  @property
  def short(self) -> str:
    """Short text, for example "3/4 +1"."""
    return f"{self.right}/{self.right + self.missed}" + (f" +{self.false}" if self.false else "")


def score_cuts(made: Made, found: np.ndarray) -> tuple[Score, Score]:
  """Scores hard cuts at the exact frame, and soft ones (dissolves, fades) anywhere within them."""
  truth, soft = np.array(made.cut), np.array(made.soft)
  hard = truth & ~soft
  runs = np.flatnonzero(truth & soft)
  hits = 0
  for t in runs:
    first, last = t, t
    while soft[first - 1]:
      first -= 1
    while last + 1 < len(soft) and soft[last + 1]:
      last += 1
    hits += found[first : last + 2].any()
  near = np.convolve(soft, np.ones(3), "same") > 0
  doubtful = max(0, int((found & near & ~hard).sum()) - hits)
  return (
    Score(
      int((hard & found).sum()), int((hard & ~found).sum()), int((found & ~hard & ~near).sum())
    ),
    Score(hits, len(runs) - hits, doubtful),
  )


def score_mask(truth, found) -> Score:
  """Scores a mask over frames."""
  truth, found = np.array(truth), np.asarray(found)
  return Score(int((truth & found).sum()), int((truth & ~found).sum()), int((found & ~truth).sum()))


def motion_error(made: Made, measures: frame_measures.FrameMeasures, size: int) -> np.ndarray:
  """Error and truth [n, 2] of the translation in widths per second, where it is known."""
  truth = np.array(made.motion) * made.fps
  height, width = made.frames[0].shape[:2]
  truth[:, 1] *= width / height if size else 1  # ingest resizes frames to a square
  known = ~np.isnan(truth[:, 0]) & ~measures.cut
  error = np.hypot(*(measures.global_motion[known, :2] - truth[known, :2]).T)
  return np.stack([error, np.hypot(*truth[known, :2].T)], 1)
