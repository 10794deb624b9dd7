"""Detects bars of one color around the picture of a video (letterbox, pillarbox), and overlays.

An overlay is a part of the picture that stands still while the rest moves.
"""

import numpy as np
from PIL import Image

_FIRST = 16  # all of the first frames are used
_EVERY = 4  # of the later frames, every 4th is used
_MIN_USED = 8  # frames; with fewer, nothing is detected
_TOLERANCE = 14  # gray levels; the encoder changes a pixel of a bar by up to this
_CLEAR = 24  # gray levels; the picture next to a bar differs from it by more than this at some time
_SHARE = 0.8  # smallest share of a line that has the bar's color; the rest may be a logo
_EDGE = 0.5  # smallest share of the line next to a bar that differs from it at some time
_MAX_SHARE = 0.45  # largest share of the picture's side that one bar may take
# Gray level of the brightest black bar. Bars of another color are accepted only on both sides, and
# only when the picture moves.
_BLACK = 40
_STEADY = 12  # gray levels; a pixel that changes less stands still
_MOVING = 32  # gray levels; a pixel that changes more moves
_MAX_STEADY = 0.25  # largest share of the picture that an overlay may take


class BarFinder:
  """Stores the minimum and the maximum gray level of every pixel over the frames used."""

  def __init__(self):
    self._count = self._used = 0
    self._extremes: tuple[np.ndarray, np.ndarray] | None = None  # (minimum, maximum) [H, W]

  def add(self, image: np.ndarray) -> None:
    """Adds a frame, uint8 [H, W, 3]. Raises ValueError when its size differs from the first."""
    if self._skips(image):
      return
    self.add_gray(np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L")))

  def _skips(self, image: np.ndarray) -> bool:
    if self._extremes is not None and image.shape[:2] != self._extremes[0].shape:
      height, width = self._extremes[0].shape
      size = f"{image.shape[0]}x{image.shape[1]}"
      raise ValueError(f"frame {self._count} has {size} pixels, those before {height}x{width}")
    self._count += 1
    return self._count > _FIRST and self._count % _EVERY > 0

  def add_gray(self, gray: np.ndarray) -> None:
    """Adds the gray levels of a frame, uint8 [H, W]."""
    self._used += 1
    if self._extremes is None:
      self._extremes = gray.copy(), gray.copy()
    low, high = self._extremes
    np.minimum(low, gray, out=low)
    np.maximum(high, gray, out=high)

  def find(self) -> tuple[int, int, int, int]:
    """Width of the bars in pixels: (top, bottom, left, right).

    All are 0 in a video of few frames, of one color, or without bars. At least 80 % of each line of
    a bar has the bar's color in every frame; the rest may be a logo. At least half of the pixels of
    the picture next to the bar differ clearly from it at some time. So a dark scene or a shadow is
    not a bar.
    """
    if self._extremes is None or self._used < _MIN_USED:
      return 0, 0, 0, 0
    low, high = (levels.astype(np.int16) for levels in self._extremes)
    top, bottom = _pair(low, high)
    inner = slice(top, low.shape[0] - bottom)
    left, right = _pair(low[inner].T, high[inner].T)
    return top, bottom, left, right

  def overlay(self) -> float:
    """Share of the picture, without bars, that stands still while the rest moves.

    It is 0 when too little of the picture moves.
    """
    if self._extremes is None or self._used < _MIN_USED:
      return 0.0
    top, bottom, left, right = self.find()
    height, width = self._extremes[0].shape
    low, high = (levels[top : height - bottom, left : width - right] for levels in self._extremes)
    span = high.astype(np.int16) - low
    steady = float((span <= _STEADY).mean())
    return steady if (span > _MOVING).mean() > 1 - _MAX_STEADY and steady <= _MAX_STEADY else 0.0


def _pair(low: np.ndarray, high: np.ndarray) -> tuple[int, int]:
  """Number of lines of the bars at the first and at the last rows.

  Args:
    low: minimum gray level of every pixel, [H, W].
    high: maximum gray level of every pixel, [H, W].
  """
  first, first_color = _bar(low, high)
  last, last_color = _bar(low[::-1], high[::-1])
  moves = (high - low > _MOVING).mean() > 0.1
  alike = min(first, last) > 0 and abs(first - last) <= max(2, 0.1 * max(first, last)) and moves
  black_first, black_last = first_color <= _BLACK, last_color <= _BLACK
  return (first if black_first or alike else 0), (last if black_last or alike else 0)


def _bar(low: np.ndarray, high: np.ndarray) -> tuple[int, float]:
  """(number of lines, gray level) of the bar that begins at the first row."""
  color = float(np.median((low[0] + high[0]) / 2))
  differs = (high - color > _TOLERANCE) | (color - low > _TOLERANCE)  # at some time
  is_bar = (~differs).mean(1) >= _SHARE
  lines = int(np.argmin(is_bar)) if not is_bar.all() else len(low)
  if not lines or lines > _MAX_SHARE * len(low):
    return 0, color
  # One line further than the border, which may be a mixture of bar and picture.
  beside = min(lines + 1, len(low) - 1)
  clear = (high[beside] - color > _CLEAR) | (color - low[beside] > _CLEAR)
  return (lines if clear.mean() >= _EDGE else 0), color
