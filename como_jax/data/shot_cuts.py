"""Detects the cuts between shots of a video from measures of its frames.

`frame_measures` defines what a cut is.
"""

import dataclasses
import functools

import numpy as np

_DISAGREE = 0.4  # two pictures with a smaller agreement may be of two shots
# Usual agreement of the frames around a cut; with at least this, they are one shot before the cut
# and one shot after it.
_USUAL = 0.75
MIN_CHANGE = 4.0  # mean gray levels; a smaller change is never a cut
# Share of pixels whose color class changes; with more, a change of colors alone can be a cut.
_NEW_COLORS = 0.5
_OUTLIER = 2.5  # such a change is more than this many times the changes of colors around it
# The next slide: the agreement is smaller than the first number, and the change is more than the
# second number times the changes around it.
_NEXT_SLIDE, _SPIKE = 0.8, 10.0
_STANDS = 1.5  # mean gray levels; noise and the encoder change a still picture by less
_OTHER_COLOR = 20.0  # gray levels between two different colors
_PICTURE = 0.9  # share of the picture that must have one color, for a picture of one color
_FLAT = 4.0  # gray levels; a picture of one color has a smaller standard deviation
_FLASH = 3  # frames; longest flash
_BRIGHTER = 10.0  # gray levels; a flash is brighter by more than this
_ALIKE = 0.75  # two tiny pictures with a larger likeness show the same
_UNLIKE = 0.5  # the ends of a dissolve have a smaller correlation
# "Just before and after" a cut: so many seconds, or so many frames that are not repeated.
_NEAR_SECONDS = 0.35
_NEAR_FRAMES = 2
_DISSOLVE_SECONDS = (0.25, 0.5, 1.0)  # half lengths that are tried
_DISSOLVE_ERROR = 0.03  # largest error of a mixture, as a share of the energy of the change


@dataclasses.dataclass(frozen=True)
class Signals:
  """Measures of T frames. Entry t of a change is for t - 1 -> t; its entry 0 is not used.

  Attributes:
    times: [T] seconds.
    agreement: [T], `global_motion.Registration.agreement`.
    change: [T], mean absolute difference in gray levels.
    colors: [T], share of the pixels that change their color class.
    repeated: [T] bool, whether a frame repeats the frame before.
    small: [T, S, S], tiny gray pictures without bars.
    texture: [T, S, S], standard deviation within each pixel of the tiny pictures.
  """

  times: np.ndarray
  agreement: np.ndarray
  change: np.ndarray
  colors: np.ndarray
  repeated: np.ndarray
  small: np.ndarray
  texture: np.ndarray

  @functools.cached_property
  def level(self) -> np.ndarray:
    """Median gray level, [T]."""
    return np.median(self.small, axis=(1, 2))

  @functools.cached_property
  def contrast(self) -> np.ndarray:
    """Standard deviation of the gray levels, [T], without the pixels that deviate most.

    Those may be a sign on a picture of one color.
    """
    count, pixels = len(self.small), self.small[0].size
    squares = np.square(self.small - self.level[:, None, None]) + np.square(self.texture)
    squares = np.sort(squares.reshape(count, pixels), axis=1)[:, : round(pixels * _PICTURE)]
    return np.sqrt(squares.mean(1))


def find(signals: Signals) -> np.ndarray:
  """Whether a cut lies between frame t - 1 and t, bool [T]."""
  count = len(signals.times)
  cut = np.zeros(count, bool)
  if count < 2:
    return cut
  flat = signals.contrast < _FLAT
  plain = np.isnan(signals.agreement)  # neither picture has texture: the change is used instead
  agreement = np.where(plain, signals.change < _OTHER_COLOR, signals.agreement)
  around = np.where(plain, signals.change < MIN_CHANGE, signals.agreement)
  for t in np.flatnonzero((agreement < _NEXT_SLIDE) & (signals.change > MIN_CHANGE)):
    cut[t] = t > 0 and _is_hard(signals, agreement, around, flat, int(t))
  for t in np.flatnonzero(cut):
    if cut[t]:
      first, last = _flash(signals, flat, int(t))
      cut[first:last] = False
  return cut | _fades(signals, flat, cut) | _dissolves(signals, cut)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
  """The likeness of two tiny pictures [S, S], -1 to 1.

  It is their largest correlation when shifted by up to two pixels.
  """
  side = len(a)
  a, b = a.astype(np.float32), b.astype(np.float32)
  best = -1.0
  for y in range(-2, 3):
    for x in range(-2, 3):
      first = a[max(0, y) : side + min(0, y), max(0, x) : side + min(0, x)]
      second = b[max(0, -y) : side - max(0, y), max(0, -x) : side - max(0, x)]
      first, second = first - first.mean(), second - second.mean()
      scale = np.sqrt((first * first).sum() * (second * second).sum())
      if scale > first.size:  # the standard deviations are above one gray level
        best = max(best, float((first * second).sum() / scale))
  return best


def _around(signals: Signals, around: np.ndarray, t: int) -> tuple[float, float]:
  """(median agreement, largest change of colors) just before and after change t.

  Repeated frames are left out.
  """
  agreements, colors = [], [0.0]
  for step in (-1, 1):
    # `stood`: number of repeated frames since the last new frame; `pause`: the largest number of
    # them between new frames.
    u, taken, stood, pause = t + step, 0, 0, 0
    while 0 < u < len(signals.times) and taken < _NEAR_FRAMES:
      if abs(signals.times[u] - signals.times[t]) > _NEAR_SECONDS and abs(u - t) > _NEAR_FRAMES:
        break
      if signals.repeated[u]:
        stood += 1
      else:
        agreements.append(around[u])
        colors.append(signals.colors[u])
        taken, pause, stood = taken + 1, max(pause, stood), 0
      u += step
    # On this side nothing moves, or the motion has ended.
    if not taken or taken < _NEAR_FRAMES and stood > 2 * pause + _NEAR_FRAMES:
      agreements.append(1.0)
  return float(np.median(agreements)), float(max(colors))


def _is_hard(
  signals: Signals, agreement: np.ndarray, around: np.ndarray, flat: np.ndarray, t: int
) -> bool:
  """Whether change t is a hard cut."""
  usual, colors = _around(signals, around, t)
  apart = agreement[t] < _DISAGREE and usual >= _USUAL
  recolored = signals.colors[t] > max(_NEW_COLORS, _OUTLIER * colors)
  others = np.concatenate([signals.change[max(1, t - 3) : t], signals.change[t + 1 : t + 4]])
  next_slide = (
    agreement[t] < _NEXT_SLIDE
    and len(others) > 3
    and signals.change[t] > _SPIKE * max(0.3, others.max())
  )
  stands = next_slide and others.max() < _STANDS
  if not (apart or recolored or next_slide):
    return False
  # A change to or from one color is hard only when the picture appears or disappears in one step.
  # Otherwise it is a fade.
  if flat[t - 1] and flat[t]:
    return signals.change[t] > _OTHER_COLOR
  if flat[t - 1] or flat[t]:
    return _at_once(signals, flat, t)
  # When the pictures move, two similar pictures are of one shot: the camera jerked, or the light
  # changed. Two slides may be similar.
  return stands or likeness(signals.small[t - 1], signals.small[t]) <= _ALIKE


def _at_once(signals: Signals, flat: np.ndarray, t: int) -> bool:
  """Whether a picture appears from one color, or disappears into it, in one step at change t."""
  if flat[t - 1]:
    return signals.contrast[t] > 0.6 * signals.contrast[t : t + 5].max()
  return signals.contrast[t - 1] > 0.6 * signals.contrast[max(0, t - 5) : t].max()


def _flash(signals: Signals, flat: np.ndarray, t: int) -> tuple[int, int]:
  """The flash around change t: changes first .. last - 1, an empty range when there is none."""
  count = len(signals.times)
  for before in range(t - 1, max(-1, t - 2 - _FLASH), -1):
    for after in range(max(t, before + 2), min(count, before + 2 + _FLASH)):
      between = slice(before + 1, after)
      lit = flat[between] | (
        signals.level[between] > max(signals.level[before], signals.level[after]) + _BRIGHTER
      )
      if flat[before] or flat[after] or not lit.all():
        continue
      if likeness(signals.small[before], signals.small[after]) > _ALIKE:
        return before + 1, after + 1
  return t, t


def _fades(signals: Signals, flat: np.ndarray, cut: np.ndarray) -> np.ndarray:
  """Cuts of fades, bool [T]: in the middle of a stretch of one color between two pictures.

  The pictures disappear and appear slowly.
  """
  fades = np.zeros_like(cut)
  steps = np.diff(np.concatenate([[0], flat.astype(np.int8), [0]]))
  # The stretches are frames first .. last - 1.
  for first, last in zip(np.flatnonzero(steps > 0), np.flatnonzero(steps < 0), strict=True):
    if first == 0 or last == len(flat) or cut[first : last + 1].any():
      continue
    edges = int(first), int(last)
    if any(signals.change[t] > MIN_CHANGE and _at_once(signals, flat, t) for t in edges):
      continue
    if likeness(signals.small[first - 1], signals.small[last]) < _ALIKE:
      fades[(first + last) // 2] = True
  return fades


def _dissolves(signals: Signals, cut: np.ndarray) -> np.ndarray:
  """Cuts of dissolves, bool [T]: in the middle of a mixture that goes from picture to picture."""
  dissolves = np.zeros_like(cut)
  count = len(cut)
  interval = float(np.median(np.diff(signals.times)))
  pictures = signals.small.reshape(count, -1)
  error = np.full(count, np.inf)
  for half in _DISSOLVE_SECONDS:
    k = round(half / interval / 2) * 2
    if k < 4 or count <= 2 * k:
      continue
    for first in range(k, count - k, 4096):  # in blocks, to limit memory for long videos
      t = np.arange(first, min(first + 4096, count - k))
      faded = np.minimum(signals.contrast[t - k], signals.contrast[t + k]) < 2 * _FLAT
      error[t] = np.minimum(error[t], np.where(faded, np.inf, _mixture_error(pictures, t, k)))
  shots = np.cumsum(cut)
  reach = max(2, round(_DISSOLVE_SECONDS[-1] / interval))
  for t in np.argsort(error, kind="stable"):
    if error[t] > _DISSOLVE_ERROR:
      break
    first, last = max(0, t - reach), min(count - 1, t + reach)
    near = shots[first] != shots[last] or dissolves[first : last + 1].any()
    dissolves[t] = not near
  return dissolves


def _mixture_error(pictures: np.ndarray, t: np.ndarray, k: int) -> np.ndarray:
  """Error of frames around t as mixtures of the frames at t - k and t + k.

  It is relative to the energy of the difference of these two, and inf when they are similar.

  Args:
    pictures: [T, S * S] gray levels.
    t: [n] frames.
    k: number of frames to each end.
  """
  first, last = pictures[t - k].astype(np.float32), pictures[t + k].astype(np.float32)
  step = last - first
  energy = np.square(step).sum(1)
  a, b = first - first.mean(1, keepdims=True), last - last.mean(1, keepdims=True)
  alike = (a * b).sum(1) / np.sqrt(np.square(a).sum(1) * np.square(b).sum(1) + 1e-6)
  error = np.zeros(len(t))
  shares = []
  for part in (-k // 2, 0, k // 2):
    change = pictures[t + part].astype(np.float32) - first
    share = (change * step).sum(1) / (energy + 1e-6)
    error = np.maximum(error, np.square(change - share[:, None] * step).sum(1) / (energy + 1e-6))
    shares.append(share)
  early, middle, late = shares
  steady = (early < middle - 0.1) & (middle < late - 0.1) & (np.abs(middle - 0.5) < 0.15)
  enough = energy > 12.0**2 * pictures.shape[1]
  return np.where(steady & enough & (alike < _UNLIKE), error, np.inf)
