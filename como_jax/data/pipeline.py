"""Training batches of motion models and encoders, from windows of frames.

The order is index -> shuffle -> repeat -> mix -> slice by process -> load and augment -> batch, see
`stream`. The position is the step: sample number g (= step * global batch + row in the batch) is a
pure function of (data sets, seed, g), so batches do not depend on the number of processes or
workers, nor on where a run was interrupted. Of the R rows of a global batch, process p of P (from
0) loads p*R/P to (p+1)*R/P - 1.

Words: an episode is a recording; a clip is a stored stretch of one; a segment is a stretch of an
episode without a gap in time, of one clip or several; a window is K frames of one segment, the
offset apart. A window never passes the end of its segment, and so of its episode: the index lists
only those that fit.

Legend: B batch, K frames of a window, H W image.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from como_jax import data, errors
from como_jax.data import block_order, index, reader, shards, stream, times, transforms
from como_jax.data.batching import Batching, Split
from como_jax.data.read_options import ReadOptions
from como_jax.data.times import FrameTimes

KINDS = ("motion", "mae")


@dataclasses.dataclass(frozen=True)
class OpenedWindows:
  """The windows of one split of a data set. It is pickled for worker processes.

  Attributes:
    dataset: the entry of the mixture.
    reader: reads frames and numbers of its segments.
    windows: index of the windows of the split.
    cameras: names of all cameras of the data set; ids are places in it.
  """

  dataset: data.DataSet
  reader: reader.SegmentReader
  windows: index.Windows
  cameras: tuple[str, ...]

  @property
  def label(self) -> str:
    """Name of the data set, for messages."""
    return self.dataset.label

  @property
  def table(self) -> shards.Table:
    """Clips of the data set."""
    return self.windows.segments.table

  def locate(self, i: int) -> "WindowLocation":
    """Where window i lies. Raises `video.UnreadableError`: its times are damaged."""
    window = self.windows[i]
    frame_times = self.reader.times(window.segment)
    return WindowLocation(
      self.reader,
      window.segment,
      self.cameras[window.camera],
      window.t,
      frame_times,
      frame_times.window(window.t, self.windows.offset, self.windows.frames),
      self.windows.offset,
    )


@dataclasses.dataclass(frozen=True)
class WindowLocation:
  """Where one window lies.

  Attributes:
    reader: of the segments.
    segment: index of its segment.
    camera: its name.
    t: first frame, within the segment.
    times: of all frames of the segment.
    frames: of the window, within the segment, int [K].
    offset: seconds that should lie between two frames.
  """

  reader: reader.SegmentReader
  segment: int
  camera: str
  t: int
  times: FrameTimes
  frames: np.ndarray
  offset: float

  @property
  def seconds(self) -> np.ndarray:
    """The true time between neighbors, float32 [K-1]."""
    return np.diff(self.times.seconds_at(self.frames)).astype(np.float32)


def open_windows(
  dataset: data.DataSet, table: shards.Table, *, frames: int, split: Split
) -> OpenedWindows:
  """Lists the windows of one split of a data set, none of which passes the end of its segment.

  Args:
    dataset: the entry of the mixture.
    table: of its clips.
    frames: K.
    split: which episodes.

  Raises:
    errors.UserError: no episode in the split, or no window that fits.
  """
  windows = index.windows(
    table,
    frames=frames,
    offset_seconds=dataset.offset_seconds,
    clip_mask=index.select(table, split.name, split.validation_fraction),
    cameras=tuple(dataset.cameras),
    name=f"{dataset.label} ({split.name})",
  )
  segments = reader.SegmentReader(dataset.path, windows.segments)
  return OpenedWindows(dataset, segments, windows, table.cameras)


def draw_jitter(location: WindowLocation, rng: np.random.Generator) -> list[int]:
  """Draws, for each of the K-1 pairs (t, t+n), a frame t+n+d.

  The frame lies at most a fifth of the offset n before or after t+n, see `times.draw_jittered`. The
  pair (t, t+n+d) is the positive example of Tcl.
  """
  return [
    times.draw_jittered(location.times, int(first), int(second), location.offset, rng)
    for first, second in zip(location.frames[:-1], location.frames[1:], strict=True)
  ]


@dataclasses.dataclass
class _LoadTraining:
  """Loads the windows of a batch and augments them.

  Where a frame of a window is damaged, `stream.read` loads another window instead. A hash of
  the window's number chooses it. `monitor` counts such windows; too many of them end the run.

  A frame that needs no resizing is decoded into the batch and augmented there, others into memory
  that is used again. This saves copies, which would take a third of the time of decoding at 224 px.
  """

  sets: list[OpenedWindows]
  frames: int
  jitter: bool
  is_mae: bool  # single frames
  augment: tuple[Callable, ...]
  size: int
  monitor: stream.CorruptionMonitor = dataclasses.field(default_factory=stream.CorruptionMonitor)

  def batch(self, rows: Sequence[tuple[tuple[int, int], type, dict]]) -> dict[str, np.ndarray]:
    """The arrays of `batches`.

    Args:
      rows: of each sample ((data set, window number), class and state of its bit generator).
    """
    lengths = {"frames": self.frames, **({"jittered": self.frames - 1} if self.jitter else {})}
    out = {
      name: np.empty((len(rows), length, self.size, self.size, 3), np.uint8)
      for name, length in lengths.items()
    }
    seconds = np.zeros((len(rows), self.frames - 1), np.float32)
    scratch: dict[tuple[int, ...], np.ndarray] = {}  # by shape
    chain = (*self.augment, transforms.Resize(self.size))
    bit_generator = rows[0][1]
    rng = np.random.Generator(bit_generator(0))  # every row sets its state
    to = transforms.resized_to(chain)
    for i, ((dataset, window), _, state) in enumerate(rows):
      rng.bit_generator.state = state
      row = {name: value[i] for name, value in out.items()}

      def load(location, row=row, i=i):  # called again with another window where a frame is damaged
        seconds[i] = location.seconds
        numbers = [*location.frames, *(draw_jitter(location, rng) if self.jitter else [])]
        # `by`: a JPEG may be decoded at 1/by of its size
        size, by = location.reader.frame_size(location.segment, location.camera, numbers, to=to)
        shape = (len(numbers), math.ceil(size[0] / by), math.ceil(size[1] / by), 3)
        if shape[1:3] == (self.size, self.size):
          location.reader.read_into(
            location.segment,
            location.camera,
            numbers,
            [image for images in row.values() for image in images],
            by=by,
          )
          return row
        if shape not in scratch:
          scratch[shape] = np.empty(shape, np.uint8)
        location.reader.read_into(
          location.segment, location.camera, numbers, list(scratch[shape]), by=by
        )
        return {
          "frames": scratch[shape][: self.frames],
          **({"jittered": scratch[shape][self.frames :]} if self.jitter else {}),
        }

      sample = stream.read(self.sets[dataset], window, self.monitor, load)
      transforms.apply(chain, sample, rng, row)
    return {"frames": out["frames"][:, 0]} if self.is_mae else {**out, "seconds": seconds}


@dataclasses.dataclass(frozen=True)
class Layout:
  """What a motion batch holds.

  Attributes:
    image_size: H = W.
    kind: "motion" (windows) or "mae" (single frames).
    frames: K, for "motion".
    jitter: also give the jittered frames, for "motion".
    augment: transforms (see `transforms.build`), applied before the resize to `image_size`.
  """

  image_size: int
  kind: str = "motion"
  frames: int = 2
  jitter: bool = False
  augment: tuple[Callable, ...] = ()

  @property
  def window_frames(self) -> int:
    """Frames per window."""
    return self.frames if self.kind == "motion" else 1

  def check(self) -> None:
    """Raises `errors.UserError`."""
    if self.kind not in KINDS:
      raise errors.UserError(
        f"unknown kind of batches {self.kind!r}: {errors.nearest(self.kind, KINDS)}"
      )
    if self.kind == "motion" and self.frames < 2:
      raise errors.UserError(f"motion batches need at least 2 frames, got {self.frames}")


def batches(
  sets: Sequence[OpenedWindows],
  layout: Layout,
  batching: Batching,
  read_options: ReadOptions = ReadOptions(),
) -> stream.Batches:
  """Endless shuffled training batches.

  Args:
    sets: the windows to draw from, each data set with its weight.
    layout: what a batch holds.
    batching: batch size, order and part of this process.
    read_options: processes and threads that load.

  Returns:
    Batches of {"frames": uint8 [B, K, H, W, 3], "seconds": float32 [B, K-1] (the true time between
    neighbors), "jittered": uint8 [B, K-1, H, W, 3]} or, for "mae", {"frames": uint8 [B, H, W, 3]}.

  Raises:
    errors.UserError: options that do not fit.
  """
  layout.check()
  motion = layout.kind == "motion"
  load = _LoadTraining(
    list(sets),
    layout.window_frames,
    layout.jitter and motion,
    not motion,
    tuple(layout.augment),
    layout.image_size,
  )
  ends = [block_order.shard_ends(opened.windows) for opened in sets]
  weights = [opened.dataset.weight for opened in sets]
  return stream.infinite_batches(ends, weights, load, batching, read_options)
