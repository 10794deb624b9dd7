"""Estimates the motion of the whole picture between two frames, and the remaining motion.

The motion of the whole picture is the camera motion. Everything is computed on square gray
thumbnails of `SIZE` pixels. The model has four parameters: translation (two), zoom and rotation.
They are fitted by robust least squares on the pixels (Gauss-Newton, with weights that ignore
objects with their own motion, as in Motion2D of Odobez and Bouthemy). The fit starts from the best
of: no motion, the motion of the frame before, and the peaks of a phase correlation. A gain and an
offset of the brightness are fitted too, so that a change of exposure does not look like motion.
"""

import dataclasses
import functools
import math

import numpy as np
from PIL import Image

SIZE = 64  # side of the thumbnail in pixels
CELLS = 8  # the agreement is computed in CELLS x CELLS cells
_CELL = SIZE // CELLS
_POOL = np.kron(np.eye(CELLS, dtype=np.float32), np.full((1, _CELL), 1 / _CELL, np.float32))
_NOWHERE = -1e4  # gray level of warped pixels that lie outside of the other picture
_OUTSIDE = -1.0  # a warped pixel below this gray level lies outside
# Mean difference in gray levels; two thumbnails below it are equal, and no fit is made.
_SAME = 0.4
_CONVERGED = 0.1  # pixels; the fit ends after a smaller step
_MAX_STEP = np.array([4 / SIZE, 4 / SIZE, 0.1, 0.1])  # limit of one iteration
_MAX_FIT = np.array([0.12, 0.12, 0.15, 0.15])  # limit of the distance from the start
# A weak prior for no motion, so that pictures without texture do not move.
_PRIOR_PIXELS = SIZE * SIZE
_PRIOR = np.diag([900.0, 900.0, 225.0, 225.0, 1e3, 1.0])
_GOOD_START = 4.0  # gray levels; with a smaller difference, no phase correlation is computed
_PEAKS = 8  # number of peaks of the phase correlation that are tried
_BAD_AGREEMENT = 0.6  # with a smaller agreement, the next start is tried
_MAX_STARTS = 3  # largest number of starts that are tried
_MIN_OVERLAP = 0.3  # smallest share of the picture that both frames must show
_FLAT = 9.0  # squared gray levels per pixel; smaller gradients count little
_TEXTURE = 9.0  # squared gray levels; a cell with a larger variance has texture
_ALIKE = 0.5  # two cells with a larger correlation show the same pattern
_MAX_RESIDUAL = 4.0  # pixels of the thumbnail; limit of the remaining speed of a cell


def pool(values: np.ndarray) -> np.ndarray:
  """Means over cells: [SIZE, SIZE] -> [CELLS, CELLS]."""
  return _POOL @ values @ _POOL.T


class Thumbnail:
  """A gray picture [N, N] float32 with the values that `register` needs.

  Each value is computed at its first use and cached.
  """

  def __init__(self, gray: np.ndarray):
    self.gray = gray

  @functools.cached_property
  def image(self) -> Image.Image:
    """The picture for Pillow."""
    return Image.fromarray(self.gray)

  @functools.cached_property
  def half(self) -> "Thumbnail":
    """The picture at half the size."""
    rows = self.gray[::2] + self.gray[1::2]
    return Thumbnail((rows[:, ::2] + rows[:, 1::2]) / 4)

  @functools.cached_property
  def level(self) -> np.ndarray:
    """The picture minus its mean."""
    return self.gray - self.gray.mean()

  @functools.cached_property
  def spectrum(self) -> np.ndarray:
    """Fourier transform of the windowed picture."""
    return np.fft.rfft2(self.level * _window())

  @functools.cached_property
  def moments(self) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the cells, [CELLS, CELLS] each."""
    mean = pool(self.gray)
    return mean, np.maximum(pool(self.gray * self.gray) - mean * mean, 0)

  @functools.cached_property
  def gradients(self) -> tuple[np.ndarray, np.ndarray]:
    """Gray levels per pixel along x and y, [N, N] each."""
    x, y = np.zeros_like(self.gray), np.zeros_like(self.gray)
    np.subtract(self.gray[:, 2:], self.gray[:, :-2], out=x[:, 1:-1])
    np.subtract(self.gray[2:], self.gray[:-2], out=y[1:-1])
    x *= 0.5
    y *= 0.5
    return x, y


@functools.cache
def _window() -> np.ndarray:
  edge = np.hanning(SIZE + 2)[1:-1].astype(np.float32)
  return np.outer(edge, edge)


@functools.cache
def _grid(size: int, aspect: float) -> tuple[np.ndarray, np.ndarray]:
  """X and y of the pixel centers, measured from the picture's center, in picture widths.

  `aspect` is height / width.
  """
  line = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
  return np.tile(line, (size, 1)), np.tile(np.float32(aspect) * line[:, None], (1, size))


@dataclasses.dataclass(frozen=True)
class Registration:
  """The result of `register`.

  Attributes:
    motion: [4] float: translation of the content along x (right) and y (down) in picture widths,
      zoom (natural logarithm of the scale, > 0 is magnified), rotation (radians, > 0 is clockwise
      on the screen).
    agreement: agreement of the two pictures after the motion is removed, 0 to 1. It is the share of
      textured cells (in either picture, within the overlap) whose patterns correlate; nan when
      neither picture has texture.
    residual: remaining speed, mean over the cells of the overlap, in picture widths.
  """

  motion: np.ndarray
  agreement: float
  residual: float


IDENTICAL = Registration(np.zeros(4), 1.0, 0.0)


def register(before: Thumbnail, after: Thumbnail, aspect: float, guess: np.ndarray) -> Registration:
  """Estimates the motion from one picture to another.

  Args:
    before: the first picture.
    after: the second picture.
    aspect: height / width of the original pictures.
    guess: [4], a motion to try first, for example that of the frame before.
  """
  if np.abs(after.gray - before.gray).mean() < _SAME:
    return IDENTICAL
  first, *others = _starts(before, after, aspect, guess)[:_MAX_STARTS]
  best = _register_from(before, after, aspect, first)
  for start in others:
    if not best.agreement < _BAD_AGREEMENT:  # otherwise the start may have been too far away
      break
    result = _register_from(before, after, aspect, start)
    if result.agreement > best.agreement:
      best = result
  return best


def _register_from(
  before: Thumbnail, after: Thumbnail, aspect: float, start: np.ndarray
) -> Registration:
  """The motion that a fit from one start finds."""
  motion, warped, error = _fit(before, after, aspect, start)
  return Registration(motion, *_judge(before, warped, error, aspect))


def _starts(
  before: Thumbnail, after: Thumbnail, aspect: float, guess: np.ndarray
) -> list[np.ndarray]:
  """Starts for the fit, sorted by the difference of the pictures that they leave.

  They are translations, or the guess itself.
  """
  guessed = round(guess[0] * SIZE), round(guess[1] / aspect * SIZE)
  costs = {shift: _cost(before.gray, after.gray, *shift) for shift in ((0, 0), guessed)}
  if min(costs.values()) > _GOOD_START:
    cross = after.spectrum * np.conj(before.spectrum)
    size = np.abs(cross)
    surface = np.fft.irfft2(cross / (size + 1e-3 * size.max() + 1e-9), s=(SIZE, SIZE))
    for index in np.argpartition(surface.ravel(), -_PEAKS)[-_PEAKS:]:
      y, x = divmod(int(index), SIZE)
      shift = (x + SIZE // 2) % SIZE - SIZE // 2, (y + SIZE // 2) % SIZE - SIZE // 2
      costs[shift] = _cost(before.gray, after.gray, *shift)
  return [
    guess.astype(np.float64)
    if (x, y) == guessed != (0, 0)
    else np.array([x / SIZE, y * aspect / SIZE, 0.0, 0.0])
    for x, y in sorted(costs, key=lambda shift: costs[shift])
  ]


def _cost(before: np.ndarray, after: np.ndarray, x: int, y: int) -> float:
  """Mean clipped difference of two pictures after a shift, on every second pixel and line.

  It is computed in the overlap of the pictures, and is infinite when the overlap is too small.
  """
  if (SIZE - abs(x)) * (SIZE - abs(y)) < _MIN_OVERLAP * SIZE * SIZE:
    return np.inf
  old = before[max(0, -y) : SIZE - max(0, y) : 2, max(0, -x) : SIZE - max(0, x) : 2]
  new = after[max(0, y) : SIZE - max(0, -y) : 2, max(0, x) : SIZE - max(0, -x) : 2]
  difference = (new - old).ravel()
  difference -= np.add.reduce(difference) / difference.size
  return float(np.add.reduce(np.minimum(np.abs(difference), 40)) / difference.size)


def _warp(after: Thumbnail, motion: np.ndarray, aspect: float) -> np.ndarray:
  """Warps `after` back by the motion, so that it matches the picture before."""
  size = len(after.gray)
  scale = math.exp(motion[2])
  cos, sin = scale * math.cos(motion[3]), scale * math.sin(motion[3])
  # In thumbnail pixels: one pixel is 1 / size of the picture's width in x, and aspect / size in y.
  # Pillow's pixel centers are at + 0.5.
  right = motion[0] * size + size / 2 * (1 - cos + sin * aspect)
  down = motion[1] / aspect * size + size / 2 * (1 - cos - sin / aspect)
  data = (cos, -sin * aspect, right, sin / aspect, cos, down)
  image = after.image.transform(
    (size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=_NOWHERE
  )
  return np.asarray(image)


def _fit(
  before: Thumbnail, after: Thumbnail, aspect: float, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Fits the motion from a start.

  Returns:
    (motion, `after` warped by it, remaining error, 0 where `after` is outside).
  """
  motion, light, _, _ = _descend(before.half, after.half, aspect, start, (0.0, 0.0), iterations=5)
  if np.any(np.abs(motion - start) > _MAX_FIT):  # the fit diverged: the two pictures do not match
    motion, light = start, (0.0, 0.0)
  fine, light, warped, error = _descend(before, after, aspect, motion, light, iterations=2, every=2)
  if np.any(np.abs(fine - start) > _MAX_FIT):
    return start, *_error(before, after, aspect, start, (0.0, 0.0))
  return fine, warped, error


def _descend(before, after, aspect, motion, light, *, iterations, every=1):
  """Makes Gauss-Newton steps on every `every`-th pixel of every `every`-th line.

  `light` is (gain, offset) of the brightness.

  Returns:
    (motion, light, warped picture, error). The last two have all pixels. They are not computed
    again after a last small step.
  """
  size = len(before.gray)
  pixels = (slice(None, None, every), slice(None, None, every))
  x, y = (line[pixels] for line in _grid(size, aspect))
  gx, gy = (gradient[pixels] for gradient in before.gradients)
  columns = np.empty((6, *gx.shape), np.float32)
  np.multiply(gx, size, out=columns[0])  # per picture width
  np.multiply(gy, size / aspect, out=columns[1])
  gx, gy = columns[:2]
  columns[2], columns[3] = gx * x + gy * y, gy * x - gx * y
  columns[4], columns[5] = before.level[pixels], 1
  columns = columns.reshape(6, -1)
  prior = _PRIOR * (gx.size / _PRIOR_PIXELS)
  warped, error = _error(before, after, aspect, motion, light)
  for _ in range(iterations):
    part = error[pixels]
    scale = 3 * _median(np.abs(part[::2, 1::2])) + 2
    weighted = (
      columns * ((warped[pixels] > _OUTSIDE) / np.square(1 + np.square(part / scale))).ravel()
    )
    step = np.linalg.solve(weighted @ columns.T + prior, weighted @ part.ravel())
    moved = np.minimum(np.maximum(step[:4], -_MAX_STEP), _MAX_STEP)
    motion, light = motion - moved, (min(max(light[0] + step[4], -0.6), 1.0), light[1] + step[5])
    if np.abs(moved).max() * size < _CONVERGED:
      break
    warped, error = _error(before, after, aspect, motion, light)
  return motion, light, warped, error


def _median(values: np.ndarray) -> float:
  return float(np.partition(values.ravel(), values.size // 2)[values.size // 2])


def _error(before, after, aspect, motion, light) -> tuple[np.ndarray, np.ndarray]:
  """(`after` warped, its difference from `before` with gain and offset applied)."""
  warped = _warp(after, motion, aspect)
  error = warped - before.gray
  error -= np.float32(light[0]) * before.level + np.float32(light[1])
  error[warped <= _OUTSIDE] = 0
  return warped, error


def _judge(
  before: Thumbnail, warped: np.ndarray, error: np.ndarray, aspect: float
) -> tuple[float, float]:
  """(agreement, residual) of a `Registration`, after the global motion is removed."""
  seen = warped > _OUTSIDE
  shown = pool(seen.astype(np.float32)) > 0.5
  if not shown.any():
    return 0.0, 0.0
  gx, gy = before.gradients
  xx, xy, yy = pool(gx * gx) + _FLAT, pool(gx * gy), pool(gy * gy) + _FLAT
  ex, ey = pool(gx * error), pool(gy * error)
  determinant = xx * yy - xy * xy
  x, y = (yy * ex - xy * ey) / determinant, (xx * ey - xy * ex) / determinant
  speed = np.minimum(np.hypot(x, aspect * y), _MAX_RESIDUAL)
  residual = float(speed[shown].mean()) / SIZE
  mean, variance = before.moments
  second = np.where(seen, warped, before.gray)
  second_mean = pool(second)
  second_variance = np.maximum(pool(second * second) - second_mean * second_mean, 0)
  covariance = pool(before.gray * second) - mean * second_mean
  textured = shown & (np.maximum(variance, second_variance) > _TEXTURE)
  if not textured.any():
    return float("nan"), residual
  scale = np.sqrt((variance + _TEXTURE / 4) * (second_variance + _TEXTURE / 4))
  alike = covariance > _ALIKE * scale
  return float(alike[textured].mean()), residual
