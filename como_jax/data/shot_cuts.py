"""Where the shots of a video change, from measures of its frames (`frame_measures` says what counts
as a cut).
"""

import dataclasses
import functools

import numpy as np

_DISAGREE = 0.4  # agreement of two pictures below which they may be of two shots
# agreement of the frames around, from which on they are one shot before, and one after
_USUAL = 0.75
MIN_CHANGE = 4.0  # mean gray levels; below it nothing is a cut
# share of the pixels whose color class changes, from which on colors alone may tell a cut
_NEW_COLORS = 0.5
_OUTLIER = 2.5  # times the change of colors around it
# Two still pictures differ: the agreement is below, the change is so many times that of the frames
# around.
_NEXT_SLIDE, _SPIKE = 0.8, 10.0
_STANDS = 1.5  # mean gray levels by which noise and the encoder change a picture that stands
_OTHER_COLOR = 20.0  # gray levels between two colors
_PICTURE = 0.9  # of the picture must be of one color for the whole to be called so
_FLAT = 4.0  # standard deviation in gray levels of a picture of one color
_FLASH = 3  # frames
_BRIGHTER = 10.0  # gray levels
_ALIKE = 0.75  # likeness of two tiny pictures that show the same
_UNLIKE = 0.5  # correlation below which the ends of a dissolve show something else
_NEAR_SECONDS = 0.35  # how far "just before and after" reaches ...
_NEAR_FRAMES = 2  # ... or so many frames that are not repeated
_DISSOLVE_SECONDS = (0.25, 0.5, 1.0)  # half lengths that are tried
_DISSOLVE_ERROR = 0.03  # of the energy of the change that a mixture of its ends may leave


@dataclasses.dataclass(frozen=True)
class Signals:
  """What is known of T frames; entry t of a change describes t - 1 -> t, entry 0 is not used.

  Attributes:
    times: [T] seconds.
    agreement: [T], `global_motion.Registration.agreement`.
    change: [T], mean absolute difference in gray levels.
    colors: [T], share of the pixels that change their color class.
    repeated: [T] bool.
    small, texture: [T, S, S], tiny gray pictures without bars, and the standard deviation within
      each of their pixels.
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
    """[T], median gray level."""
    return np.median(self.small, axis=(1, 2))

  @functools.cached_property
  def contrast(self) -> np.ndarray:
    """[T], standard deviation of the gray levels, without the most deviant places, which may be a
    sign on one color.
    """
    count, places = len(self.small), self.small[0].size
    squares = np.square(self.small - self.level[:, None, None]) + np.square(self.texture)
    squares = np.sort(squares.reshape(count, places), axis=1)[:, : round(places * _PICTURE)]
    return np.sqrt(squares.mean(1))


def find(signals: Signals) -> np.ndarray:
  """[T] bool: a cut lies between frame t - 1 and t."""
  count = len(signals.times)
  cut = np.zeros(count, bool)
  if count < 2:
    return cut
  flat = signals.contrast < _FLAT
  plain = np.isnan(signals.agreement)  # neither picture has a pattern: only the change itself tells
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
  """How alike two tiny pictures [S, S] are: their largest correlation when shifted by up to two
  pixels, -1 to 1.
  """
  side = len(a)
  a, b = a.astype(np.float32), b.astype(np.float32)
  best = -1.0
  for y in range(-2, 3):
    for x in range(-2, 3):
      one = a[max(0, y) : side + min(0, y), max(0, x) : side + min(0, x)]
      other = b[max(0, -y) : side - max(0, y), max(0, -x) : side - max(0, x)]
      one, other = one - one.mean(), other - other.mean()
      size = np.sqrt((one * one).sum() * (other * other).sum())
      if size > one.size:  # a standard deviation of a gray level
        best = max(best, float((one * other).sum() / size))
  return best


def _around(signals: Signals, around: np.ndarray, t: int) -> tuple[float, float]:
  """The usual agreement and the largest change of colors just before and after change t, but for
  repeated frames.
  """
  agreements, colors = [], [0.0]
  for step in (-1, 1):
    # repeated frames since the last new one, and between new ones at most
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
    # nothing moves on this side, or no more
    if not taken or taken < _NEAR_FRAMES and stood > 2 * pause + _NEAR_FRAMES:
      agreements.append(1.0)
  return float(np.median(agreements)), float(max(colors))


def _is_hard(
  signals: Signals, agreement: np.ndarray, around: np.ndarray, flat: np.ndarray, t: int
) -> bool:
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
  # To or from one color: hard only where the picture is there, or gone, at once; else it is a fade.
  if flat[t - 1] and flat[t]:
    return signals.change[t] > _OTHER_COLOR
  if flat[t - 1] or flat[t]:
    return _at_once(signals, flat, t)
  # Where things move, pictures that look alike are of one shot, after a jerk or in other light.
  # Slides may look alike.
  return stands or likeness(signals.small[t - 1], signals.small[t]) <= _ALIKE


def _at_once(signals: Signals, flat: np.ndarray, t: int) -> bool:
  """A picture comes out of one color, or goes into it, within change t, not little by little."""
  if flat[t - 1]:
    return signals.contrast[t] > 0.6 * signals.contrast[t : t + 5].max()
  return signals.contrast[t - 1] > 0.6 * signals.contrast[max(0, t - 5) : t].max()


def _flash(signals: Signals, flat: np.ndarray, t: int) -> tuple[int, int]:
  """The changes first .. last - 1 that are a flash around change t; empty where there is none."""
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
  """Cuts in the middle of stretches of one color between two pictures, which go and come little by
  little.
  """
  found = np.zeros_like(cut)
  edges = np.diff(np.concatenate([[0], flat.astype(np.int8), [0]]))
  # frames first .. last - 1
  for first, last in zip(np.flatnonzero(edges > 0), np.flatnonzero(edges < 0), strict=True):
    if first == 0 or last == len(flat) or cut[first : last + 1].any():
      continue
    if any(signals.change[t] > MIN_CHANGE and _at_once(signals, flat, t) for t in (first, last)):
      continue
    if likeness(signals.small[first - 1], signals.small[last]) < _ALIKE:
      found[(first + last) // 2] = True
  return found


def _dissolves(signals: Signals, cut: np.ndarray) -> np.ndarray:
  """Cuts in the middle of a mixture that goes from one picture to another one."""
  found = np.zeros_like(cut)
  count = len(cut)
  interval = float(np.median(np.diff(signals.times)))
  pictures = signals.small.reshape(count, -1)
  error = np.full(count, np.inf)
  for half in _DISSOLVE_SECONDS:
    k = round(half / interval / 2) * 2
    if k < 4 or count <= 2 * k:
      continue
    for first in range(k, count - k, 4096):  # in pieces, for long videos
      t = np.arange(first, min(first + 4096, count - k))
      faded = np.minimum(signals.contrast[t - k], signals.contrast[t + k]) < 2 * _FLAT
      error[t] = np.minimum(error[t], np.where(faded, np.inf, _mixture_error(pictures, t, k)))
  shots = np.cumsum(cut)
  reach = max(2, round(_DISSOLVE_SECONDS[-1] / interval))
  for t in np.argsort(error, kind="stable"):
    if error[t] > _DISSOLVE_ERROR:
      break
    first, last = max(0, t - reach), min(count - 1, t + reach)
    near = shots[first] != shots[last] or found[first : last + 1].any()
    found[t] = not near
  return found


def _mixture_error(pictures: np.ndarray, t: np.ndarray, k: int) -> np.ndarray:
  """How badly frames around t are mixtures of those at t - k and t + k, of their difference; inf if
  those are alike.
  """
  first, last = pictures[t - k].astype(np.float32), pictures[t + k].astype(np.float32)
  step = last - first
  energy = np.square(step).sum(1)
  a, b = first - first.mean(1, keepdims=True), last - last.mean(1, keepdims=True)
  alike = (a * b).sum(1) / np.sqrt(np.square(a).sum(1) * np.square(b).sum(1) + 1e-6)
  error = np.zeros(len(t))
  shares = []
  for part in (-k // 2, 0, k // 2):
    at = pictures[t + part].astype(np.float32) - first
    share = (at * step).sum(1) / (energy + 1e-6)
    error = np.maximum(error, np.square(at - share[:, None] * step).sum(1) / (energy + 1e-6))
    shares.append(share)
  early, middle, late = shares
  steady = (early < middle - 0.1) & (middle < late - 0.1) & (np.abs(middle - 0.5) < 0.15)
  enough = energy > 12.0**2 * pictures.shape[1]
  return np.where(steady & enough & (alike < _UNLIKE), error, np.inf)
