"""How the whole picture moves between two frames (the camera's motion), and what is left of the
motion besides.

Everything works on square gray thumbnails of `SIZE` pixels. The model has four numbers:
translation, zoom and rotation, fitted by robust least squares on the pixels (Gauss-Newton with
weights that ignore what moves on its own, as in the motion2D of Odobez and Bouthemy), started from
the best of: no motion, the motion before, and the peaks of a phase correlation. A gain and an
offset of the brightness are fitted with them, so that exposure is not taken for motion.
"""

import dataclasses
import functools
import math

import numpy as np
from PIL import Image

SIZE = 64  # side of the thumbnail in pixels
CELLS = 8  # the picture is judged in CELLS x CELLS cells
_CELL = SIZE // CELLS
_POOL = np.kron(np.eye(CELLS, dtype=np.float32), np.full((1, _CELL), 1 / _CELL, np.float32))
_NOWHERE = -1e4  # gray level of pixels that lie outside of the other picture ...
_OUTSIDE = -1.0  # ... and the level below which a pixel is one
# mean gray levels between two thumbnails that are called the same picture without a fit
_SAME = 0.4
_CONVERGED = 0.1  # pixels; the step itself is still taken
_MAX_STEP = np.array([4 / SIZE, 4 / SIZE, 0.1, 0.1])  # of one iteration
_MAX_FIT = np.array([0.12, 0.12, 0.15, 0.15])  # from the start
# A weak pull to no change, so that pictures without texture do not move.
_PULL_PIXELS = SIZE * SIZE
_PULL = np.diag([900.0, 900.0, 225.0, 225.0, 1e3, 1.0])
_GOOD_START = 4.0  # gray levels of difference below which no other start is looked for
_PEAKS = 8  # of the phase correlation that are tried
_BAD_AGREEMENT, _MAX_STARTS = 0.6, 3  # below it the next start is tried, so many in all
_MIN_OVERLAP = 0.3  # of the picture that must still be seen
_FLAT = 9.0  # squared gray levels per pixel below which a gradient counts for little
_TEXTURE = 9.0  # squared gray levels: variance above which a cell shows a pattern
_ALIKE = 0.5  # correlation of two patterns that are taken for the same one
_MAX_RESIDUAL = 4.0  # pixels of the thumbnail, of a cell


def pool(values: np.ndarray) -> np.ndarray:
  """Means over the cells: [SIZE, SIZE] -> [CELLS, CELLS]."""
  return _POOL @ values @ _POOL.T


class Thumbnail:
  """A gray picture [N, N] float32 with what `register` needs of it, computed once and when first
  asked for.
  """

  def __init__(self, gray: np.ndarray):
    self.gray = gray

  @functools.cached_property
  def image(self) -> Image.Image:
    return Image.fromarray(self.gray)

  @functools.cached_property
  def half(self) -> "Thumbnail":
    """The picture at half the size."""
    rows = self.gray[::2] + self.gray[1::2]
    return Thumbnail((rows[:, ::2] + rows[:, 1::2]) / 4)

  @functools.cached_property
  def level(self) -> np.ndarray:
    """The picture less its mean."""
    return self.gray - self.gray.mean()

  @functools.cached_property
  def spectrum(self) -> np.ndarray:
    return np.fft.rfft2(self.level * _window())

  @functools.cached_property
  def moments(self) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance in the cells, [CELLS, CELLS] each."""
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
  """X and y of the pixels' centers from the picture's center, in picture widths; aspect = height /
  width.
  """
  line = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
  return np.tile(line, (size, 1)), np.tile(np.float32(aspect) * line[:, None], (1, size))


@dataclasses.dataclass(frozen=True)
class Registration:
  """What `register` found.

  Attributes:
    motion: [4] float: the content's translation along x (right) and y (down) in picture widths,
      zoom (natural logarithm of the scale, > 0 is magnified), rotation (radians, > 0 is clockwise
      on the screen).
    agreement: how far the two pictures agree after it, 0 to 1: share of the textured cells (of
      either picture, where both are seen) whose patterns correlate; nan where neither has any
      texture.
    residual: speed of what moves besides, mean over the cells seen in both, in picture widths.
  """

  motion: np.ndarray
  agreement: float
  residual: float


IDENTICAL = Registration(np.zeros(4), 1.0, 0.0)


def register(before: Thumbnail, after: Thumbnail, aspect: float, guess: np.ndarray) -> Registration:
  """The motion from one picture to another.

  Args:
    before, after: the two pictures.
    aspect: height / width of the pictures that the thumbnails were made of.
    guess: [4], a motion to try first, for example the one of the frame before.
  """
  if np.abs(after.gray - before.gray).mean() < _SAME:
    return IDENTICAL
  best = None
  for start in _starts(before, after, aspect, guess)[:_MAX_STARTS]:
    motion, warped, error = _fit(before, after, aspect, start)
    found = Registration(motion, *_judge(before, warped, error, aspect))
    if best is None or found.agreement > best.agreement:
      best = found
    if not best.agreement < _BAD_AGREEMENT:  # else the fit may have begun too far off
      break
  return best


def _starts(
  before: Thumbnail, after: Thumbnail, aspect: float, guess: np.ndarray
) -> list[np.ndarray]:
  """What the fit may begin with, translations or the guess as it is, that which leaves the least
  difference first.
  """
  guessed = round(guess[0] * SIZE), round(guess[1] / aspect * SIZE)
  costs = {shift: _cost(before.gray, after.gray, *shift) for shift in ((0, 0), guessed)}
  if min(costs.values()) > _GOOD_START:
    cross = after.spectrum * np.conj(before.spectrum)
    size = np.abs(cross)
    surface = np.fft.irfft2(cross / (size + 1e-3 * size.max() + 1e-9), s=(SIZE, SIZE))
    for place in np.argpartition(surface.ravel(), -_PEAKS)[-_PEAKS:]:
      y, x = divmod(int(place), SIZE)
      shift = (x + SIZE // 2) % SIZE - SIZE // 2, (y + SIZE // 2) % SIZE - SIZE // 2
      costs[shift] = _cost(before.gray, after.gray, *shift)
  return [
    guess.astype(np.float64)
    if (x, y) == guessed != (0, 0)
    else np.array([x / SIZE, y * aspect / SIZE, 0.0, 0.0])
    for x, y in sorted(costs, key=lambda shift: costs[shift])
  ]


def _cost(before: np.ndarray, after: np.ndarray, x: int, y: int) -> float:
  """Mean clipped difference, on every second pixel and line, where both pictures are seen after a
  shift; infinite where that is too little.
  """
  if (SIZE - abs(x)) * (SIZE - abs(y)) < _MIN_OVERLAP * SIZE * SIZE:
    return np.inf
  old = before[max(0, -y) : SIZE - max(0, y) : 2, max(0, -x) : SIZE - max(0, x) : 2]
  new = after[max(0, y) : SIZE - max(0, -y) : 2, max(0, x) : SIZE - max(0, -x) : 2]
  difference = (new - old).ravel()
  difference -= np.add.reduce(difference) / difference.size
  return float(np.add.reduce(np.minimum(np.abs(difference), 40)) / difference.size)


def _warp(after: Thumbnail, motion: np.ndarray, aspect: float) -> np.ndarray:
  """`after` seen where its content was before: what the motion explains is then equal to the
  picture before.
  """
  size = len(after.gray)
  scale = math.exp(motion[2])
  cos, sin = scale * math.cos(motion[3]), scale * math.sin(motion[3])
  # In thumbnail pixels: x in 1 / size, y in aspect / size of the picture's width. PIL's pixel
  # centers are at + 0.5.
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
  """Motion, `after` warped by it, and the error that it leaves, 0 where `after` is not seen."""
  motion, light, _, _ = _descend(before.half, after.half, aspect, start, (0.0, 0.0), iterations=5)
  if np.any(np.abs(motion - start) > _MAX_FIT):  # it ran away: these two pictures do not fit
    motion, light = start, (0.0, 0.0)
  fine, light, warped, error = _descend(before, after, aspect, motion, light, iterations=2, every=2)
  if np.any(np.abs(fine - start) > _MAX_FIT):
    return start, *_error(before, after, aspect, start, (0.0, 0.0))
  return fine, warped, error


def _descend(before, after, aspect, motion, light, *, iterations, every=1):
  """Gauss-Newton steps on every `every`-th pixel of every such line.

  `light` is (gain, offset) of the brightness.

  Returns motion, light, and the warped picture and error, all pixels, which may lack a last step
  that is not worth it.
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
  pull = _PULL * (gx.size / _PULL_PIXELS)
  warped, error = _error(before, after, aspect, motion, light)
  for _ in range(iterations):
    part = error[pixels]
    scale = 3 * _median(np.abs(part[::2, 1::2])) + 2
    weighted = (
      columns * ((warped[pixels] > _OUTSIDE) / np.square(1 + np.square(part / scale))).ravel()
    )
    step = np.linalg.solve(weighted @ columns.T + pull, weighted @ part.ravel())
    moved = np.minimum(np.maximum(step[:4], -_MAX_STEP), _MAX_STEP)
    motion, light = motion - moved, (min(max(light[0] + step[4], -0.6), 1.0), light[1] + step[5])
    if np.abs(moved).max() * size < _CONVERGED:
      break
    warped, error = _error(before, after, aspect, motion, light)
  return motion, light, warped, error


def _median(values: np.ndarray) -> float:
  return float(np.partition(values.ravel(), values.size // 2)[values.size // 2])


def _error(before, after, aspect, motion, light) -> tuple[np.ndarray, np.ndarray]:
  """`after` warped, and its difference to `before` with gain and offset applied."""
  warped = _warp(after, motion, aspect)
  error = warped - before.gray
  error -= np.float32(light[0]) * before.level + np.float32(light[1])
  error[warped <= _OUTSIDE] = 0
  return warped, error


def _judge(
  before: Thumbnail, warped: np.ndarray, error: np.ndarray, aspect: float
) -> tuple[float, float]:
  """Agreement and residual motion after the global motion is taken out."""
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
  other = np.where(seen, warped, before.gray)
  other_mean = pool(other)
  other_variance = np.maximum(pool(other * other) - other_mean * other_mean, 0)
  covariance = pool(before.gray * other) - mean * other_mean
  textured = shown & (np.maximum(variance, other_variance) > _TEXTURE)
  if not textured.any():
    return float("nan"), residual
  alike = covariance > _ALIKE * np.sqrt((variance + _TEXTURE / 4) * (other_variance + _TEXTURE / 4))
  return float(alike[textured].mean()), residual
