"""Measures every frame of a video: cuts, motion, camera motion, repeated and still frames, bars.

`FrameMeasurer` receives the frames of one camera one by one while the video is read. It stores
about a kilobyte per frame (100 MB for an hour at 30 frames per second), because cuts, dissolves and
still stretches depend on the frames before and after. Everything is measured on a thumbnail of
64 x 64 pixels, except the bars, which are measured on the full picture.

These are cuts:
  - A hard cut: most textured cells of the picture do not agree with the picture before, after the
    camera motion is removed, although they agree just before and just after. So a whip pan, shaking
    and flicker are not cuts. It is also a hard cut when the colors change far more than just before
    and after. Where the pictures stand still, the next slide is a cut, even if it shares much with
    the slide before.
  - A dissolve (up to 2 seconds) between two pictures that almost stand still: one cut at its
    middle. A dissolve between moving pictures may be missed.
  - A fade to one color (black, white) and from it to another picture: one cut in the middle of the
    color. A fade at the beginning or the end of a video is not a cut.

These are not cuts:
  - A flash: up to 3 frames that are brighter, or of one color, between two equal pictures.
  - A jump cut in front of a background that does not move: most of the picture agrees.
"""

import dataclasses
import functools

import numpy as np
from PIL import Image

from como_jax.data import bars, global_motion, shot_cuts

STILL_SECONDS = 1.0  # shortest stretch without motion that is still
# Bits. The hashes of a picture before and after re-encoding at usual quality differ by up to this.
HASH_DISTANCE = 6
_SMALL = 16  # side of the tiny picture that is stored for every frame, in cells
# Gray levels. A frame repeats the frame before when no cell changes by more.
_UNCHANGED = 0.5
# Limits for a doubled frame that was encoded again: mean change in gray levels, largest change of a
# cell in gray levels, change as a share of the changes around it.
_REPEATED_CHANGE, _REPEATED_LARGEST, _REPEATED_SHARE = 1.5, 3.0, 0.2
_STILL_ALLOWED = (2.0, 6.0)  # gray levels that a cell of a still stretch may change, by noise
_STILL_TEXTURE = 0.12  # gray levels more per gray level of standard deviation within a cell
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True)
class FrameMeasures:
  """Measures of the T frames of one camera.

  Attributes:
    times: [T] float64, seconds, as passed to `FrameMeasurer.add`.
    cut: [T] bool, whether a shot cut is between frame t - 1 and frame t. False at frame 0.
    motion: [T] float32, motion from t - 1 to t besides the global motion: mean over the picture of
      the remaining speed, in percent of the picture's width per second. 0 at frame 0 and across a
      cut. Motion of more than 4 % of the width between two frames is underestimated.
    global_motion: [T, 4] float32, motion of the whole picture from t - 1 to t: translation of the
      content to the right and down in picture widths per second, zoom (change of the logarithm of
      the scale per second, > 0 is closer) and rotation (radians per second, > 0 is clockwise). 0 at
      frame 0 and across a cut.
    picture_hash: [T] uint64, difference hash of the gray picture without its bars. After
      re-encoding at a usual quality, the hash differs by at most `HASH_DISTANCE` bits (H.264 at a
      CRF of 32 and 2/3 of the size: 2 on average).
    repeated: [T] bool, whether the frame shows the same picture as the frame before, up to the
      encoder's noise: a doubled frame of a moving scene, or any frame of a still scene (see
      `still`). False at frame 0.
    still: [T] bool, whether the frame is in a stretch of at least `still_seconds` in which nothing
      moves: a slide, a frozen stream, a pause.
    bars: (top, bottom, left, right), width in pixels of bars of one color around the picture that
      are constant during the whole video.
    overlay: share of the picture that stands still while the rest moves (logo, clock frame,
      cockpit). 0 when the rest of the picture does not move enough.
  """

  times: np.ndarray
  cut: np.ndarray
  motion: np.ndarray
  global_motion: np.ndarray
  picture_hash: np.ndarray
  repeated: np.ndarray
  still: np.ndarray
  bars: tuple[int, int, int, int]
  overlay: float

  def __len__(self) -> int:
    return len(self.times)

  @property
  def shot(self) -> np.ndarray:
    """[T] int32, number of the shot that each frame belongs to, from 0."""
    return np.cumsum(self.cut, dtype=np.int32)


def hash_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Number of different bits of two arrays of hashes."""
  return np.bitwise_count(
    np.bitwise_xor(np.asarray(a, np.uint64), np.asarray(b, np.uint64))
  ).astype(np.int64)


def _area_weights(
  size: int, parts: int, first: float = 0.0, last: float | None = None
) -> np.ndarray:
  """Weights that average equal parts of a line of pixels, [parts, size] float32.

  Args:
    size: number of pixels of the line.
    parts: number of parts.
    first: where the first part begins, in pixels.
    last: where the last part ends, in pixels; None = at the end of the line.
  """
  edges = np.linspace(first, size if last is None else last, parts + 1)
  left, right = np.arange(size), np.arange(1, size + 1)
  overlap = np.minimum(right, edges[1:, None]) - np.maximum(left, edges[:-1, None])
  return (np.maximum(overlap, 0) * parts / (edges[-1] - edges[0])).astype(np.float32)


def _picture_hashes(small: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
  """Difference hashes, [T] uint64: a bit says whether a cell of 8 x 8 is darker than its right one.

  Args:
    small: [T, S, S] gray levels.
    box: first and last row, first and last column of the picture without its bars, in pixels of the
      small picture.
  """
  cells = (
    _area_weights(_SMALL, 8, *box[:2])
    @ small.astype(np.float32)
    @ _area_weights(_SMALL, 9, *box[2:]).T
  )
  bits = cells[:, :, 1:] - cells[:, :, :-1] > 1.0  # the margin keeps flat cells at 0
  return np.packbits(bits.reshape(len(small), 64), axis=1).view(">u8")[:, 0].astype(np.uint64)


_TO_SMALL = _area_weights(global_motion.SIZE, _SMALL)


class FrameMeasurer:
  """Measures the frames of one camera of an episode, one after the other.

    measurer = FrameMeasurer()
    for seconds, image in frames:
      measurer.add(seconds, image)
    measures = measurer.finish()

  Args:
    still_seconds: see `FrameMeasures.still`.
  """

  def __init__(self, still_seconds: float = STILL_SECONDS):
    self._still_seconds = still_seconds
    self._times: list[float] = []
    # Per frame uint8 [2, S, S]: mean and standard deviation in S x S cells.
    self._small: list[np.ndarray] = []
    self._rows: list[tuple[float, ...]] = []
    self._before: _Picture | None = None
    self._guess = np.zeros(4)
    self._bars, self._early_bars = bars.BarFinder(), bars.BarFinder()
    # Bars of the thumbnail that are known so far. They do not move with the picture.
    self._box = (0, 0, 0, 0)
    self._size = (0, 0)

  def add(self, seconds: float, image: np.ndarray) -> None:
    """Adds one frame.

    Args:
      seconds: its time, later than that of the frame before.
      image: uint8 [H, W, 3], always of the same size.

    Raises:
      ValueError: the time does not increase, or the picture's size changes.
    """
    if self._times and not seconds > self._times[-1]:
      raise ValueError(
        f"frame {len(self._times)} at {seconds} s does not come after the one at "
        f"{self._times[-1]} s"
      )
    self._bars.add(image)
    self._size = image.shape[:2]
    picture = _Picture(image)
    self._early_bars.add_gray(picture.gray.astype(np.uint8))
    count = len(self._times) + 1
    if count >= 8 and count & (count - 1) == 0:  # at 8, 16, 32, ... frames
      top, bottom, left, right = (
        min(side + 1, 28) if side else 0 for side in self._early_bars.find()
      )
      self._box = top, bottom, left, right
    self._rows.append(self._changes(picture))
    self._before = picture
    self._times.append(float(seconds))
    self._small.append(np.clip(np.round(picture.cells), 0, 255).astype(np.uint8))

  def _changes(self, picture: "_Picture") -> tuple[float, ...]:
    """The changes from the frame before to a frame; those of the first frame are 0.

    Returns:
      The four numbers of the motion, agreement and residual of its registration; change, noise and
      largest change of a cell in gray levels; share of changed colors.
    """
    if self._before is None:
      still = global_motion.IDENTICAL
      return (*still.motion, still.agreement, still.residual, 0.0, 0.0, 0.0, 0.0)
    inner, before = picture.inner(self._box), self._before.inner(self._box)
    difference = np.abs(inner.gray - before.gray)
    change = float(difference.mean())
    sample = difference.ravel()[::5]
    noise = float(np.partition(sample, sample.size // 2)[sample.size // 2])
    largest = float(np.abs(picture.cells[0] - self._before.cells[0]).max())
    height, width = (
      (global_motion.SIZE - a - b) / global_motion.SIZE for a, b in (self._box[:2], self._box[2:])
    )
    aspect = self._size[0] * height / (self._size[1] * width)
    registration = global_motion.register(before, inner, aspect, self._guess)
    self._guess = registration.motion
    colors = picture.changed_colors(self._before) if change > shot_cuts.MIN_CHANGE else 0.0
    return (
      *(registration.motion * [width, width, 1, 1]),  # in widths of the picture with bars
      registration.agreement,
      registration.residual * width,
      change,
      noise,
      largest,
      colors,
    )

  def finish(self) -> FrameMeasures:
    """The measures of all frames that were added."""
    times, count = np.array(self._times, np.float64), len(self._times)
    rows = np.array(self._rows, np.float64).reshape(count, 10)
    small, texture = np.moveaxis(
      np.array(self._small, np.uint8).reshape(count, 2, _SMALL, _SMALL), 1, 0
    )
    agreement, residual, change, noise, largest, colors = rows[:, 4:].T
    still, begins = _still(times, small, texture, noise, self._still_seconds)
    repeated = _repeated(change, largest) | (still & ~begins)
    top, bottom, left, right = bars_of_video = self._bars.find()
    height, width = (max(1, side) for side in self._size)
    first_row, last_row = _SMALL * (top / height), _SMALL * (1 - bottom / height)
    first_column, last_column = _SMALL * (left / width), _SMALL * (1 - right / width)
    inner, texture = (
      _area_weights(_SMALL, _SMALL, first_row, last_row)
      @ picture.astype(np.float32)
      @ _area_weights(_SMALL, _SMALL, first_column, last_column).T
      for picture in (small, texture)
    )
    cut = shot_cuts.find(
      shot_cuts.Signals(times, agreement, change, colors, repeated, inner, texture)
    )
    interval = np.diff(times, prepend=np.nan)
    moved = ~cut & (np.arange(count) > 0)
    return FrameMeasures(
      times=times,
      cut=cut,
      motion=np.where(moved, 100 * residual / interval, 0).astype(np.float32),
      global_motion=np.where(moved[:, None], rows[:, :4] / interval[:, None], 0).astype(np.float32),
      picture_hash=_picture_hashes(small, (first_row, last_row, first_column, last_column)),
      repeated=repeated,
      still=still,
      bars=bars_of_video,
      overlay=self._bars.overlay(),
    )


class _Picture:
  """The thumbnail of one frame.

  Attributes:
    gray: gray levels, float32 [SIZE, SIZE].
    cells: mean and standard deviation in S x S cells, [2, S, S].
  """

  def __init__(self, image: np.ndarray):
    size = global_motion.SIZE
    small = image
    if image.shape[:2] != (size, size):
      whole = Image.fromarray(np.ascontiguousarray(image))
      factor = min(image.shape[:2]) // (2 * size)
      if factor > 1:  # `reduce` averages whole blocks, which is faster for large pictures
        whole = whole.reduce(factor)
      small = np.asarray(whole.resize((size, size), Image.Resampling.BOX))
    self._colors = small
    self._inner: dict[tuple[int, int, int, int], global_motion.Thumbnail] = {}
    self.gray = small.astype(np.float32) @ _GRAY
    mean = _TO_SMALL @ self.gray @ _TO_SMALL.T
    square = _TO_SMALL @ (self.gray * self.gray) @ _TO_SMALL.T
    self.cells = np.stack([mean, np.sqrt(np.maximum(square - mean * mean, 0))])

  def inner(self, box: tuple[int, int, int, int]) -> global_motion.Thumbnail:
    """The picture without bars, resized to the size of the thumbnail."""
    if box not in self._inner:
      gray, (top, bottom, left, right), size = self.gray, box, global_motion.SIZE
      if any(box):
        gray = np.ascontiguousarray(gray[top : size - bottom, left : size - right])
        gray = np.asarray(Image.fromarray(gray).resize((size, size), Image.Resampling.BILINEAR))
      self._inner = {box: global_motion.Thumbnail(gray)}
    return self._inner[box]

  @functools.cached_property
  def _histogram(self) -> np.ndarray:
    """Share of the pixels in each of 64 color classes."""
    classes = (self._colors[::2, ::2] >> 6).reshape(-1, 3) @ np.array([16, 4, 1], np.uint8)
    return np.bincount(classes, minlength=64) / len(classes)

  def changed_colors(self, before: "_Picture") -> float:
    """The share of pixels whose color class must change to make the two histograms equal."""
    return float(np.abs(self._histogram - before._histogram).sum() / 2)


def _repeated(change: np.ndarray, largest: np.ndarray) -> np.ndarray:
  """Whether only the encoder changed the picture since the frame before, bool [T].

  Either no cell changed by more than a small fraction of a gray level. Or, in a moving scene, the
  whole picture changed far less than between the frames around it (a doubled frame that was encoded
  again).

  Args:
    change: mean change in gray levels, [T].
    largest: largest change of a cell in gray levels, [T].
  """
  count = len(change)
  repeated = np.zeros(count, bool)
  for t in range(1, count):
    if largest[t] <= _UNCHANGED:
      repeated[t] = True
    elif change[t] < _REPEATED_CHANGE and largest[t] < _REPEATED_LARGEST:
      around = np.concatenate([change[max(1, t - 3) : t], change[t + 1 : t + 4]])
      repeated[t] = len(around) > 1 and change[t] < _REPEATED_SHARE * np.median(
        around[around >= np.median(around)]
      )
  return repeated


def _still(
  times: np.ndarray, small: np.ndarray, texture: np.ndarray, noise: np.ndarray, seconds: float
) -> tuple[np.ndarray, np.ndarray]:
  """Finds still stretches.

  A stretch continues while no cell of the picture differs from the first picture of the stretch, so
  that slow motion adds up. Differences by the camera's noise are allowed, up to the noise in the
  calmest tenth of the frames. Errors of the encoder are allowed too; they are larger where there is
  texture.

  Args:
    times: [T] seconds.
    small: [T, S, S] gray levels of the cells.
    texture: [T, S, S] standard deviation within the cells.
    noise: [T] median change of the pixels in gray levels.
    seconds: shortest stretch.

  Returns:
    bool [T] each: whether the frame is in a still stretch; whether it is the first frame of one.
  """
  count = len(times)
  still, begins = np.zeros(count, bool), np.zeros(count, bool)
  calm = float(np.quantile(noise[1:], 0.1)) if count > 1 else 0.0
  # `calm` is the median of |noise| between two frames. A cell of 16 pixels has a fourth of it.
  allowed = float(np.clip(4.5 * 1.48 * calm / 4, *_STILL_ALLOWED))
  pictures, texture = (
    values.reshape(count, _SMALL * _SMALL).astype(np.int16) for values in (small, texture)
  )
  first, limit = 0, allowed + _STILL_TEXTURE * texture[:1]
  for t in range(1, count + 1):
    if t < count and np.all(np.abs(pictures[t] - pictures[first]) <= limit):
      continue
    if t - first > 1 and times[t - 1] - times[first] >= seconds - 1e-6:
      still[first:t], begins[first] = True, True
    if t < count:
      first, limit = t, allowed + _STILL_TEXTURE * texture[t]
  return still, begins
