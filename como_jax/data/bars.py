"""Bars of one color around the picture of a video (letterbox, pillarbox), and what stands still in
front of it.
"""

import numpy as np
from PIL import Image

_EVERY = 4  # frames between two that are looked at, after the first ones
_FIRST = 16
_TOLERANCE = 14  # gray levels by which the encoder changes a pixel of a bar
_CLEAR = 24  # by which the picture beside a bar differs from it at some time
_SHARE = 0.8  # of a line that must be a bar's: a logo may lie in it
_EDGE = 0.5  # of the line next to a bar that must at some time differ from it
_MOST = 0.45  # of the picture's side that one bar may take
# gray level; bars of another color are believed only on both sides and beside a picture that moves
_BLACK = 40
_MIN_LOOKED = 8
_STEADY, _MOVING, _MOST_STEADY = 12, 32, 0.25


class BarFinder:
  """Keeps the darkest and the brightest gray level that every pixel had in the frames looked at."""

  def __init__(self):
    self._count = self._looked = 0
    self._low = self._high = None

  def add(self, image: np.ndarray) -> None:
    """A frame, uint8 [H, W, 3]. Raises ValueError where its size is not that of the first one."""
    if self._skips(image):
      return
    self.add_gray(np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L")))

  def _skips(self, image: np.ndarray) -> bool:
    if self._low is not None and image.shape[:2] != self._low.shape:
      height, width = self._low.shape
      here = f"{image.shape[0]}x{image.shape[1]}"
      raise ValueError(f"frame {self._count} has {here} pixels, those before {height}x{width}")
    self._count += 1
    return self._count > _FIRST and self._count % _EVERY > 0

  def add_gray(self, gray: np.ndarray) -> None:
    """A frame's gray levels, uint8 [H, W]."""
    self._looked += 1
    if self._low is None:
      self._low, self._high = gray.copy(), gray.copy()
    np.minimum(self._low, gray, out=self._low)
    np.maximum(self._high, gray, out=self._high)

  def find(self) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) pixels; zeros in a video of few frames, of one color, or without
    bars.

    A bar's lines are of its color in every frame, all but a fifth of each line (a logo); the
    picture beside it differs clearly from it in half of its pixels at some time, so that a dark
    scene or a shade is no bar.
    """
    if self._looked < _MIN_LOOKED:
      return 0, 0, 0, 0
    low, high = self._low.astype(np.int16), self._high.astype(np.int16)
    top, bottom = _pair(low, high)
    inner = slice(top, low.shape[0] - bottom)
    left, right = _pair(low[inner].T, high[inner].T)
    return top, bottom, left, right

  def overlay(self) -> float:
    """Share of the picture without its bars that stands still while the rest moves; 0 where too
    little moves.
    """
    if self._looked < _MIN_LOOKED:
      return 0.0
    top, bottom, left, right = self.find()
    span = self._high[top : len(self._high) - bottom, left : self._high.shape[1] - right].astype(
      np.int16
    )
    span = span - self._low[top : len(self._low) - bottom, left : self._low.shape[1] - right]
    steady = float((span <= _STEADY).mean())
    return steady if (span > _MOVING).mean() > 1 - _MOST_STEADY and steady <= _MOST_STEADY else 0.0


def _pair(low: np.ndarray, high: np.ndarray) -> tuple[int, int]:
  """Lines of the bars at the first and at the last rows."""
  first, first_color = _bar(low, high)
  last, last_color = _bar(low[::-1], high[::-1])
  moves = (high - low > _MOVING).mean() > 0.1
  alike = min(first, last) > 0 and abs(first - last) <= max(2, 0.1 * max(first, last)) and moves
  black_first, black_last = first_color <= _BLACK, last_color <= _BLACK
  return (first if black_first or alike else 0), (last if black_last or alike else 0)


def _bar(low: np.ndarray, high: np.ndarray) -> tuple[int, float]:
  """Lines of a bar that begins at the first row, and its gray level."""
  color = float(np.median((low[0] + high[0]) / 2))
  unlike = (high - color > _TOLERANCE) | (color - low > _TOLERANCE)  # at some time
  within = (~unlike).mean(1) >= _SHARE
  lines = int(np.argmin(within)) if not within.all() else len(low)
  if not lines or lines > _MOST * len(low):
    return 0, color
  beside = min(lines + 1, len(low) - 1)  # a line further: the border itself may be a mixture
  clear = (high[beside] - color > _CLEAR) | (color - low[beside] > _CLEAR)
  return (lines if clear.mean() >= _EDGE else 0), color
