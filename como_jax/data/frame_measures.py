"""What every frame of a video shows, measured while it is read: shot cuts, motion, the camera's
motion, repeated and still pictures, black bars.

`FrameMeasurer` takes the frames of one camera one by one and keeps about a kilobyte of each (an
hour at 30 frames a second is 100 MB), because cuts, dissolves and still stretches are decided by
what comes before and after. All of it is measured on a thumbnail of 64 x 64 pixels; the bars alone
on the pixels of the picture.

What counts as a cut:
  - a hard cut: most of the textured cells of the picture stop to agree with the picture before,
    after the camera's motion is taken out, while they agreed just before and after it (so neither a
    whip pan nor shaking nor a flicker is one), or the colors change far more than just before and
    after. Where the pictures stand, the next slide is a cut although it may have much of the one
    before;
  - a dissolve (up to 2 seconds) between two pictures that stand about still: one cut at its middle.
    Over moving pictures it may be missed;
  - a fade to one color (black, white) and out of it into another picture: one cut in the middle of
    the color. A fade at the beginning or the end of a video is none;
  - not a flash: up to 3 frames that are brighter, or of one color, after which the picture before
    comes back;
  - not a jump cut in front of an unmoved background: most of the picture agrees.
"""

import dataclasses
import functools

import numpy as np
from PIL import Image

from como_jax.data import bars, global_motion, shot_cuts

STILL_SECONDS = 1.0  # a stretch without any motion that is at least this long is still
# bits by which the hashes of one picture differ at most after re-encoding at usual quality
HASH_DISTANCE = 6
_SMALL = 16  # side of the tiny pictures kept of every frame
# gray levels at any of the SMALL x SMALL places, below which a frame repeats the one before
_UNCHANGED = 0.5
# For a doubled frame that was encoded again: gray levels in the mean, at any of the places; share
# of the change around.
_REPEATED_CHANGE, _REPEATED_LARGEST, _REPEATED_SHARE = 1.5, 3.0, 0.2
_STILL_ALLOWED = (2.0, 6.0)  # gray levels at any of the places, from no noise to much
_STILL_TEXTURE = 0.12  # more of them for each level of standard deviation within a place
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True)
class FrameMeasures:
  """Measures of the T frames of one camera.

  Attributes:
    times: [T] float64, seconds, as given.
    cut: [T] bool, a shot cut lies between frame t - 1 and frame t; false at 0.
    motion: [T] float32, how fast things move besides the whole picture, from t - 1 to t: the mean
      over the picture of the speed that is left after the global motion is taken out, in per cent
      of the picture's width per second. 0 at frame 0 and across a cut. Movements above 4 % of the
      width between two frames are measured too small.
    global_motion: [T, 4] float32, motion of the whole picture from t - 1 to t: the content's
      translation to the right and down in picture widths per second, zoom (change of the logarithm
      of the scale per second, > 0 is closer) and rotation (radians per second, > 0 is clockwise). 0
      at frame 0 and across a cut.
    picture_hash: [T] uint64, difference hash of the gray picture without its bars: the same picture
      encoded again at a usual quality differs by at most `HASH_DISTANCE` bits (H.264 at a CRF of 32
      and 2/3 of the size: 2 on average).
    repeated: [T] bool, the frame shows the same picture as the one before it, up to the encoder's
      noise: a doubled frame of a moving scene, or any frame of a still one (see `still`). False at
      0.
    still: [T] bool, the frame lies in a stretch of at least `still_seconds` in which nothing moves:
      a slide, a frozen stream, a pause.
    bars: (top, bottom, left, right), pixels of constant bars of one color around the picture during
      the whole video.
    overlay: share of the picture that stands still in a video whose picture moves everywhere else
      (logo, clock frame, cockpit); 0 where the rest of the picture does not move enough to tell.
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
  """[parts, size] float32: means over `parts` equal pieces of the pixels first .. last of a
  line.
  """
  edges = np.linspace(first, size if last is None else last, parts + 1)
  left, right = np.arange(size), np.arange(1, size + 1)
  overlap = np.minimum(right, edges[1:, None]) - np.maximum(left, edges[:-1, None])
  return (np.maximum(overlap, 0) * parts / (edges[-1] - edges[0])).astype(np.float32)


def _picture_hashes(small: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
  """[T] uint64: is each of 8 x 8 places darker than its right neighbor?

  Args:
    small: [T, S, S] gray levels.
    box: first and last row, first and last column of the picture without its bars, in pixels of the
      small picture.
  """
  places = (
    _area_weights(_SMALL, 8, *box[:2])
    @ small.astype(np.float32)
    @ _area_weights(_SMALL, 9, *box[2:]).T
  )
  bits = places[:, :, 1:] - places[:, :, :-1] > 1.0  # the margin keeps flat places at 0
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
    # [2, S, S] uint8 of each frame: mean and standard deviation in S x S places
    self._small: list[np.ndarray] = []
    self._rows: list[tuple[float, ...]] = []
    self._before: _Picture | None = None
    self._guess = np.zeros(4)
    self._bars, self._early_bars = bars.BarFinder(), bars.BarFinder()
    # bars of the thumbnail as far as they are known, which do not move with the picture
    self._box = (0, 0, 0, 0)
    self._size = (0, 0)

  def add(self, seconds: float, image: np.ndarray) -> None:
    """One frame, uint8 [H, W, 3], of the same size every time, and its time, later than the one
    before.

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
      self._box = tuple(min(side + 1, 28) if side else 0 for side in self._early_bars.find())
    inner = picture.inner(self._box)
    change = noise = colors = largest = 0.0
    found = global_motion.IDENTICAL
    if self._before is not None:
      before = self._before.inner(self._box)
      difference = np.abs(inner.gray - before.gray)
      change = float(difference.mean())
      sample = difference.ravel()[::5]
      noise = float(np.partition(sample, sample.size // 2)[sample.size // 2])
      largest = float(np.abs(picture.places[0] - self._before.places[0]).max())
      height, width = (
        (global_motion.SIZE - a - b) / global_motion.SIZE for a, b in (self._box[:2], self._box[2:])
      )
      aspect = image.shape[0] * height / (image.shape[1] * width)
      found = global_motion.register(before, inner, aspect, self._guess)
      self._guess = found.motion
      # In widths of the whole picture.
      found = dataclasses.replace(
        found, motion=found.motion * [width, width, 1, 1], residual=found.residual * width
      )
      if change > shot_cuts.MIN_CHANGE:
        colors = picture.changed_colors(self._before)
    self._before = picture
    self._times.append(float(seconds))
    self._small.append(np.clip(np.round(picture.places), 0, 255).astype(np.uint8))
    self._rows.append(
      (*found.motion, found.agreement, found.residual, change, noise, largest, colors)
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
    top, bottom, left, right = found_bars = self._bars.find()
    height, width = (max(1, side) for side in self._size)
    box = tuple(
      _SMALL * share
      for share in (top / height, 1 - bottom / height, left / width, 1 - right / width)
    )
    inner, texture = (
      _area_weights(_SMALL, _SMALL, *box[:2])
      @ one.astype(np.float32)
      @ _area_weights(_SMALL, _SMALL, *box[2:]).T
      for one in (small, texture)
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
      picture_hash=_picture_hashes(small, box),
      repeated=repeated,
      still=still,
      bars=found_bars,
      overlay=self._bars.overlay(),
    )


class _Picture:
  """One frame's thumbnail."""

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
    self.places = np.stack([mean, np.sqrt(np.maximum(square - mean * mean, 0))])

  def inner(self, box: tuple[int, int, int, int]) -> global_motion.Thumbnail:
    """The picture without bars, at the size of the whole one."""
    if box not in self._inner:
      gray, (top, bottom, left, right), size = self.gray, box, global_motion.SIZE
      if any(box):
        gray = np.ascontiguousarray(gray[top : size - bottom, left : size - right])
        gray = np.asarray(Image.fromarray(gray).resize((size, size), Image.Resampling.BILINEAR))
      self._inner = {box: global_motion.Thumbnail(gray)}
    return self._inner[box]

  @functools.cached_property
  def _histogram(self) -> np.ndarray:
    """Shares of 64 classes of color."""
    classes = (self._colors[::2, ::2] >> 6).reshape(-1, 3) @ np.array([16, 4, 1], np.uint8)
    return np.bincount(classes, minlength=64) / len(classes)

  def changed_colors(self, before: "_Picture") -> float:
    """Share of the pixels that must change their class of color to make one picture's histogram the
    other's.
    """
    return float(np.abs(self._histogram - before._histogram).sum() / 2)


def _repeated(change: np.ndarray, largest: np.ndarray) -> np.ndarray:
  """[T] bool: nothing but the encoder changed the picture.

  Either no place changed by more than a small fraction of a gray level; or, in a moving scene, the
  whole picture changed by far less than between the frames around (a doubled frame that was encoded
  again).
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
  """[T] bool each: the frame is part of a still stretch; it is the first one of a stretch.

  A stretch goes on while no place of the picture differs from the stretch's first picture, so that
  slow motion adds up. The noise of a camera is allowed for, as large as in the calmest tenth of the
  frames, and an encoder's errors, which are larger where there is texture.
  """
  count = len(times)
  still, begins = np.zeros(count, bool), np.zeros(count, bool)
  calm = float(np.quantile(noise[1:], 0.1)) if count > 1 else 0.0
  # `calm` is the median of |noise| between two frames; a place of 16 pixels has a fourth of it.
  allowed = float(np.clip(4.5 * 1.48 * calm / 4, *_STILL_ALLOWED))
  pictures, texture = (
    one.reshape(count, _SMALL * _SMALL).astype(np.int16) for one in (small, texture)
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
