"""The one composition of the data: index -> shuffle -> repeat -> mix -> load and augment -> slice
by process -> batch.

The position is the step: sample number g (= step * global batch + place in the batch) is a pure
function of (data sets, seed, g), so batches do not depend on the number of processes or workers,
nor on where a run was interrupted. Process p of P takes the p-th contiguous part of every global
batch.

Legend: B batch, K frames of a window, H W image.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import shared_memory
from typing import Any

import grain
import numpy as np
from absl import flags
from grain import multiprocessing

from como_jax import data, errors
from como_jax.data import index, read_options, reader, shards, times, transforms, video
from como_jax.data.times import FrameTimes

KINDS = ("motion", "mae")
_ENDLESS = 2**48  # samples; more than any run draws
_REPLACEMENTS = 16  # windows tried in place of a damaged one
_MAX_CORRUPT_FRACTION = 0.01  # share of damaged reads above which a process gives up ...
_MIN_CORRUPT_COUNT = 20  # ... once it has met so many
_RESTARTS = 3
_LARGE = 2**16  # bytes of an array that is worth a file of its own


@dataclasses.dataclass(frozen=True)
class Opened:
  """A data set ready to be drawn from. It is pickled for worker processes."""

  label: str
  reader: reader.SegmentReader
  windows: index.Windows
  cameras: tuple[str, ...]

  def load(self, i: int) -> "Place":
    """Where window i lies. Raises `video.Unreadable`: its times are damaged."""
    window = self.windows[i]
    times = self.reader.times(window.segment)
    return Place(
      self.reader,
      window.segment,
      self.cameras[window.camera],
      window.t,
      times,
      times.window(window.t, self.windows.offset, self.windows.frames),
      self.windows.offset,
    )


@dataclasses.dataclass(frozen=True)
class Place:
  """One window: its segment and camera, the segment's times, first frame and frames within the
  segment, and the wanted seconds between them.
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
    return np.diff(self.times.at(self.frames)).astype(np.float32)


def open_sets(
  datasets: Sequence[data.DataSet], *, frames: int, split: str, validation_fraction: float
) -> tuple[list[Opened], list[shards.Table]]:
  """Opens the data sets and enumerates the windows of one split. Raises `errors.UserError`."""
  if not datasets:
    raise errors.UserError("no data set is given")
  opened, tables = [], []
  for dataset in datasets:
    table = shards.read_table(dataset.path)
    keep = index.select(table, split, validation_fraction)
    windows = index.windows(
      table,
      frames=frames,
      offset_seconds=dataset.offset_seconds,
      keep=keep,
      cameras=tuple(dataset.cameras),
      name=f"{dataset.label} ({split})",
    )
    opened.append(
      Opened(
        dataset.label, reader.SegmentReader(dataset.path, windows.segments), windows, table.cameras
      )
    )
    tables.append(table)
  return opened, tables


def draw_jitter(place: Place, rng: np.random.Generator) -> list[int]:
  """For each of the K-1 pairs a frame beside the second one, see `times.draw_jittered`."""
  return [
    times.draw_jittered(place.times, int(first), int(second), place.offset, rng)
    for first, second in zip(place.frames[:-1], place.frames[1:], strict=True)
  ]


class CorruptionMonitor:
  """Counts damaged reads of a process and stops when they are many.

  Counters start anew in each worker.
  """

  def __init__(self):
    self._reads = self._damaged = 0

  def read(self) -> None:
    self._reads += 1

  def record_failure(self, error: Exception) -> None:
    self._damaged += 1
    warnings.warn(
      f"a damaged record is replaced by another window ({self._damaged} of {self._reads} reads "
      f"so far): {error}",
      stacklevel=2,
    )
    if self._damaged >= _MIN_CORRUPT_COUNT and self._damaged > _MAX_CORRUPT_FRACTION * self._reads:
      raise errors.UserError(
        f"{self._damaged} of {self._reads} records are damaged, the last: {error}"
      )


def read(opened: Any, i: int, damage: CorruptionMonitor, use: Callable[[Any], Any]) -> Any:
  """`use` of window i; when one of its frames is damaged, of a window that follows from i by a
  hash, the same in every process. `opened` is anything with `label`, `windows` (sized) and
  `load(i)`, the argument of `use`.
  """
  first = None
  for attempt in range(_REPLACEMENTS):
    try:
      damage.read()
      return use(opened.load(i))
    except video.Unreadable as error:
      first = first or error
      damage.record_failure(error)
      i = int(np.random.default_rng([i, attempt]).integers(len(opened.windows)))
  raise errors.UserError(
    f"{opened.label}: {_REPLACEMENTS} windows in a row are damaged, the first: {first}"
  )


@dataclasses.dataclass
class _LoadTraining:
  """[(data set, window number), kind and state of the generator] -> batch.

  A frame that needs no resizing is decoded into the batch and
  augmented there, others into memory that is used again: at 224 px the copies that this saves took
  a third as long as decoding.
  """

  sets: list[Opened]
  frames: int
  jitter: bool
  single: bool
  augment: tuple[Callable, ...]
  size: int
  damage: CorruptionMonitor = dataclasses.field(default_factory=CorruptionMonitor)

  def batch(self, rows: Sequence[tuple[tuple[int, int], type, dict]]) -> dict[str, np.ndarray]:
    lengths = {"frames": self.frames, **({"jittered": self.frames - 1} if self.jitter else {})}
    out = {
      name: np.empty((len(rows), length, self.size, self.size, 3), np.uint8)
      for name, length in lengths.items()
    }
    seconds = np.zeros((len(rows), self.frames - 1), np.float32)
    scratch: dict[tuple[int, ...], np.ndarray] = {}  # by shape
    chain, rng = (*self.augment, transforms.Resize(self.size)), np.random.Generator(rows[0][1](0))
    to = transforms.resized_to(chain)
    for number, (key, _, state) in enumerate(rows):
      rng.bit_generator.state = state
      row = {name: value[number] for name, value in out.items()}

      def use(place, row=row, number=number):
        seconds[number] = place.seconds
        numbers = [*place.frames, *(draw_jitter(place, rng) if self.jitter else [])]
        size, by = place.reader.frame_size(place.segment, place.camera, numbers, to=to)
        shape = (len(numbers), -(-size[0] // by), -(-size[1] // by), 3)
        if shape[1:3] == (self.size, self.size):
          place.reader.read_into(
            place.segment,
            place.camera,
            numbers,
            [image for images in row.values() for image in images],
            by=by,
          )
          return row
        if shape not in scratch:
          scratch[shape] = np.empty(shape, np.uint8)
        place.reader.read_into(place.segment, place.camera, numbers, list(scratch[shape]), by=by)
        return {
          "frames": scratch[shape][: self.frames],
          **({"jittered": scratch[shape][self.frames :]} if self.jitter else {}),
        }

      sample = read(self.sets[key[0]], key[1], self.damage, use)
      transforms.apply(chain, sample, rng, row)
    return {"frames": out["frames"][:, 0]} if self.single else {**out, "seconds": seconds}


def _capture_rng_state(
  place: Any, rng: np.random.Generator
) -> tuple[Any, np.random.BitGenerator, dict]:
  """The element, and the state of its generator, which Grain uses again."""
  return place, type(rng.bit_generator), rng.bit_generator.state


@dataclasses.dataclass
class _WithDatasetId:
  dataset: int

  def __call__(self, i: int) -> tuple[int, int]:
    return self.dataset, i


@dataclasses.dataclass
class ProcessSlice:
  """Local sample number -> that process's element of the endless global stream."""

  stream: Any
  start: int
  batch: int
  local: int
  process: int

  def __call__(self, i: int) -> Any:
    step, place = divmod(int(i), self.local)
    return self.stream[self.start + step * self.batch + self.process * self.local + place]


@dataclasses.dataclass
class _BatchLoader:
  """Local batch number -> that batch."""

  part: ProcessSlice
  make: Callable[[list], dict[str, np.ndarray]]

  def __call__(self, i: int) -> dict[str, np.ndarray]:
    return self.make([self.part(i * self.part.local + place) for place in range(self.part.local)])


def _hand_over(batch: dict[str, Any]) -> dict[str, Any]:
  """In a worker: its large arrays in shared memory, as Grain hands them over.

  Grain would copy them into a fresh mapping, whose pages the
  kernel provides one by one as they are touched: twice the CPU time of a system call that writes
  them.

  Raises:
    errors.UserError: there is no room.
  """
  return {
    name: _written(value)
    if isinstance(value, np.ndarray) and value.nbytes >= _LARGE and value.flags.c_contiguous
    else value
    for name, value in batch.items()
  }


def _written(array: np.ndarray) -> Any:
  memory = shared_memory.SharedMemory(create=True, size=array.nbytes)
  file = read_options.SHARED / memory.name.lstrip("/")
  if not file.exists():  # not Linux: Grain's way
    memory.close()
    memory.unlink()
    return array
  try:
    with open(file, "r+b", buffering=0) as stream:
      rest = memoryview(array).cast("B")
      while rest:
        rest = rest[stream.write(rest) :]
  except OSError as error:
    memory.unlink()
    raise errors.UserError(
      f"{file.parent}: no room for {array.nbytes} bytes of a batch ({error.strerror}): lower "
      "config.data.workers or config.data.prefetch"
    ) from error
  finally:
    memory.close()
  return multiprocessing.SharedMemoryArrayMetadata(
    name=memory.name, shape=array.shape, dtype=array.dtype
  )


class Batches:
  """Iterator over batches (dicts of numpy arrays that own their memory) with a position and
  `close()`.

  A worker process that is killed from outside is replaced: the pipeline is built again at the
  current step.
  """

  def __init__(
    self,
    make: Callable[[int], grain.MapDataset],
    *,
    step: int,
    workers: int,
    threads: int,
    prefetch: int,
  ):
    self._make, self.step = make, step
    self._workers, self._threads, self._prefetch = workers, min(threads, max(prefetch, 1)), prefetch
    self._restarts = 0
    if workers > 0 and not flags.FLAGS.is_parsed():
      # Grain's workers read absl flags and fail when nobody has parsed them
      flags.FLAGS.mark_as_parsed()
    self._iterator = self._open()

  def _open(self):
    # A worker's own batches wait in its shared memory, so its threads need no further ones waiting.
    ahead = self._threads if self._workers else self._prefetch
    read = grain.ReadOptions(
      num_threads=self._threads, prefetch_buffer_size=ahead if self._threads else 0
    )
    stream = self._make(self.step).to_iter_dataset(read)
    if self._workers > 0:
      stream = stream.map(_hand_over).mp_prefetch(
        grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=max(1, self._prefetch))
      )
    return iter(stream)

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    while True:
      try:
        batch = next(self._iterator)
        break
      except StopIteration:
        self.close()
        raise
      except RuntimeError as error:
        if "terminated unexpectedly" not in str(error) or self._restarts >= _RESTARTS:
          raise
        self._restarts += 1
        warnings.warn(
          f"a data worker died and is replaced at step {self.step} ({self._restarts} of "
          f"{_RESTARTS}): {error}",
          stacklevel=2,
        )
        self.close()
        self._iterator = self._open()
    self.step += 1
    if self._workers > 0:  # the arrays live in shared memory that the workers use again
      batch = {name: np.array(value) for name, value in batch.items()}
    return batch

  def close(self) -> None:
    """Ends workers and threads; safe to call twice."""
    if hasattr(self._iterator, "close"):
      self._iterator.close()

  def __enter__(self) -> "Batches":
    return self

  def __exit__(self, *unused) -> None:
    self.close()


def local_batch(batch_size: int, process_index: int, process_count: int) -> int:
  """Rows of a global batch that a process gets.

  Raises `errors.UserError` when they do not divide.
  """
  if batch_size < 1 or batch_size % process_count:
    raise errors.UserError(
      f"batch_size {batch_size} does not divide by the number of processes, {process_count}"
    )
  if not 0 <= process_index < process_count:
    raise ValueError(f"process {process_index} of {process_count}")
  return batch_size // process_count


def build(
  datasets: Sequence[data.DataSet],
  *,
  batch_size: int,
  image_size: int,
  kind: str = "motion",
  frames: int = 2,
  jitter: bool = False,
  augment: Sequence[Callable] = (),
  split: str = "train",
  validation_fraction: float = 0.1,
  seed: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  start_step: int = 0,
  workers: int = 0,
  threads: int = 4,
  prefetch: int = 4,
) -> Batches:
  """Endless shuffled training batches.

  Args:
    datasets: the mixture; `weight` is each one's share of the samples.
    batch_size: global; this process gets batch_size / process_count rows of every batch.
    image_size: H = W of the result.
    kind: "motion" (windows) or "mae" (single frames).
    frames: K, for "motion".
    jitter: also give the jittered frames, for "motion".
    augment: transforms (see `transforms.build`), applied before the resize to `image_size`.
    split: "train", "validation" or "all".
    validation_fraction: share of the episodes set aside, see `index.split`.
    seed: of order and augmentation.
    process_index, process_count: which part of each batch.
    start_step: number of batches already used.
    workers: processes that load; 0 = only threads of this one.
    threads: reading threads in each process; 0 = none.
    prefetch: batches prepared ahead (for each worker).

  Returns:
    Batches of {"frames": uint8 [B, K, H, W, 3], "seconds": float32 [B, K-1] (the true time between
    neighbors), "jittered": uint8 [B, K-1, H, W, 3]} or, for "mae", {"frames": uint8 [B, H, W, 3]}.
  """
  if kind not in KINDS:
    raise errors.UserError(f"unknown kind of batches {kind!r}: {errors.nearest(kind, KINDS)}")
  if kind == "motion" and frames < 2:
    raise errors.UserError(f"motion batches need at least 2 frames, got {frames}")
  for dataset in datasets:
    if not dataset.weight > 0:
      raise errors.UserError(
        f"data set {dataset.label}: weight is {dataset.weight}, expected more than 0"
      )
  local_batch(batch_size, process_index, process_count)  # checked before the data sets are opened
  motion = kind == "motion"
  frames = frames if motion else 1
  opened, _ = open_sets(
    datasets, frames=frames, split=split, validation_fraction=validation_fraction
  )
  load = _LoadTraining(opened, frames, jitter and motion, not motion, tuple(augment), image_size)
  return infinite_batches(
    [len(one.windows) for one in opened],
    [dataset.weight for dataset in datasets],
    load,
    batch_size=batch_size,
    seed=seed,
    process_index=process_index,
    process_count=process_count,
    start_step=start_step,
    workers=workers,
    threads=threads,
    prefetch=prefetch,
  )


def infinite_batches(
  sizes: Sequence[int],
  weights: Sequence[float],
  load: Any,
  *,
  batch_size: int,
  seed: int,
  process_index: int,
  process_count: int,
  start_step: int,
  workers: int,
  threads: int,
  prefetch: int,
) -> Batches:
  """Shuffle, repeat, mix, load, slice by process, batch.

  Args:
    sizes: number of samples of each data set.
    weights: share of each data set.
    load: ((data set, number of the sample in it), generator) -> sample; or an object whose `batch`
    makes a batch of a list of those. The others are those of `build`.
  """
  local = local_batch(batch_size, process_index, process_count)
  orders, seeds = [], np.random.SeedSequence(seed).generate_state(len(sizes) + 1, np.uint32)
  for i, size in enumerate(sizes):
    orders.append(
      grain.MapDataset.range(size).seed(int(seeds[i])).shuffle().repeat().map(_WithDatasetId(i))
    )
  mixed = grain.MapDataset.mix(orders, list(weights)) if len(orders) > 1 else orders[0]
  batched = hasattr(load, "batch")
  stream = mixed.seed(int(seeds[-1])).random_map(_capture_rng_state if batched else load)

  def make(step: int) -> grain.MapDataset:
    # The rng of an element hangs on its global number, so slicing by process comes after the random
    # map.
    part = ProcessSlice(stream, step * batch_size, batch_size, local, process_index)
    if batched:
      return grain.MapDataset.range(_ENDLESS // local).map(_BatchLoader(part, load.batch))
    return grain.MapDataset.range(_ENDLESS).map(part).batch(local)

  return Batches(make, step=start_step, workers=workers, threads=threads, prefetch=prefetch)
