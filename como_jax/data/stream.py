"""Streams of samples as batches: shuffled without end, or in order once.

A stream has a position and reads in threads and worker processes; a damaged sample is replaced.
`pipeline` says in which order it is composed.
"""

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import shared_memory
from typing import Any

import grain
import numpy as np
from absl import flags
from grain import multiprocessing

from como_jax import errors
from como_jax.data import block_order, video
from como_jax.data.batching import Batching
from como_jax.data.read_options import SHARED, ReadOptions

_ENDLESS = 2**48  # samples; more than any run draws
_REPLACEMENTS = 16  # windows tried in place of a damaged one
_MAX_CORRUPT_FRACTION = 0.01  # share of damaged reads above which a process gives up ...
_MIN_CORRUPT_COUNT = 20  # ... once it has met so many
_RESTARTS = 3  # of data workers that died ...
_RESTART_SECONDS = 3600.0  # ... within so many seconds
_LARGE = 2**16  # bytes of an array that is worth a file of its own


class CorruptionMonitor:
  """Counts damaged reads of a process and stops when they are many.

  Counters start anew in each worker.
  """

  def __init__(self):
    self._reads = self._damaged = 0

  def read(self) -> None:
    """Counts a record that is read."""
    self._reads += 1

  def record_failure(self, error: Exception) -> None:
    """Counts a damaged record, with a warning.

    Raises:
      errors.UserError: too many are damaged.
    """
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


def read(opened: Any, i: int, monitor: CorruptionMonitor, load: Callable[[Any], Any]) -> Any:
  """Reads window i; where one of its frames is damaged, another window instead.

  Which one follows from i by a hash, the same in every process.

  Args:
    opened: anything with `label`, `windows` (sized) and `locate(i)`.
    i: number of the window.
    monitor: counts reads and failures.
    load: what `locate(i)` gives -> the result.

  Raises:
    errors.UserError: too many records are damaged.
  """
  first = None
  for attempt in range(_REPLACEMENTS):
    try:
      monitor.read()
      return load(opened.locate(i))
    except video.UnreadableError as error:
      first = first or error
      monitor.record_failure(error)
      i = int(np.random.default_rng([i, attempt]).integers(len(opened.windows)))
  raise errors.UserError(
    f"{opened.label}: {_REPLACEMENTS} windows in a row are damaged, the first: {first}"
  )


def _capture_rng_state(
  element: Any, rng: np.random.Generator
) -> tuple[Any, type[np.random.BitGenerator], Mapping[str, Any]]:
  """The element, and the kind and state of its generator, which Grain uses again."""
  return element, type(rng.bit_generator), rng.bit_generator.state


@dataclasses.dataclass
class _WithDatasetId:
  dataset: int

  def __call__(self, i: int) -> tuple[int, int]:
    return self.dataset, i


@dataclasses.dataclass
class LocalElements:
  """Local sample number -> that process's element of the endless global stream."""

  stream: Any
  batching: Batching

  def __call__(self, i: int) -> Any:
    """The element of local sample i."""
    rows = self.batching.local_rows
    step, row = divmod(int(i), rows)
    first = (self.batching.start_step + step) * self.batching.batch_size
    return self.stream[first + self.batching.process.index * rows + row]


@dataclasses.dataclass
class _BatchLoader:
  """Local batch number -> that batch."""

  elements: LocalElements
  make_batch: Callable[[list], dict[str, np.ndarray]]

  def __call__(self, i: int) -> dict[str, np.ndarray]:
    rows = self.elements.batching.local_rows
    return self.make_batch([self.elements(i * rows + row) for row in range(rows)])


def _to_shared_memory(batch: dict[str, Any]) -> dict[str, Any]:
  """In a worker: its large arrays in shared memory, as Grain hands them over.

  Grain would copy them into a fresh mapping, whose pages the
  kernel provides one by one as they are touched: twice the CPU time of a system call that writes
  them.

  Raises:
    errors.UserError: there is no room.
  """
  return {
    name: _share(value)
    if isinstance(value, np.ndarray) and value.nbytes >= _LARGE and value.flags.c_contiguous
    else value
    for name, value in batch.items()
  }


def _share(array: np.ndarray) -> Any:
  memory = shared_memory.SharedMemory(create=True, size=array.nbytes)
  file = SHARED / memory.name.lstrip("/")
  if not file.exists():  # not Linux: Grain's way
    memory.close()
    memory.unlink()
    return array
  try:
    with open(file, "r+b", buffering=0) as stream:
      rest = memoryview(array.data).cast("B")
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
  """Iterator over batches with a position and `close()`.

  Batches are dicts of numpy arrays that own their memory.

  A worker process that is killed from outside is replaced: the pipeline is built again at the
  current step. The fourth death within an hour raises.
  """

  def __init__(
    self,
    make_dataset: Callable[[int], grain.MapDataset],
    *,
    step: int,
    workers: int,
    threads: int,
    prefetch: int,
  ):
    self._make_dataset, self.step = make_dataset, step
    self._workers, self._threads, self._prefetch = workers, min(threads, max(prefetch, 1)), prefetch
    self._restarts: list[float] = []  # times of the last ones
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
    stream = self._make_dataset(self.step).to_iter_dataset(read)
    if self._workers > 0:
      stream = stream.map(_to_shared_memory).mp_prefetch(
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
        if "terminated unexpectedly" not in str(error) or not self._may_restart():
          raise
        warnings.warn(
          f"a data worker died and is replaced at step {self.step} ({len(self._restarts)} of "
          f"{_RESTARTS} in an hour): {error}",
          stacklevel=2,
        )
        self.close()
        self._iterator = self._open()
    self.step += 1
    if self._workers > 0:  # the arrays live in shared memory that the workers use again
      batch = {name: np.array(value) for name, value in batch.items()}
    return batch

  def _may_restart(self) -> bool:
    """Whether a worker may be replaced now, which is then counted."""
    now = time.monotonic()
    self._restarts = [then for then in self._restarts if now - then < _RESTART_SECONDS]
    if len(self._restarts) >= _RESTARTS:
      return False
    self._restarts.append(now)
    return True

  def close(self) -> None:
    """Ends workers and threads; safe to call twice."""
    if hasattr(self._iterator, "close"):
      self._iterator.close()

  def __enter__(self) -> "Batches":
    return self

  def __exit__(self, *unused) -> None:
    self.close()


def infinite_batches(
  ends: Sequence[np.ndarray],
  weights: Sequence[float],
  load: Any,
  batching: Batching,
  read_options: ReadOptions,
) -> Batches:
  """Shuffle, repeat, mix, load, slice by process, batch.

  Args:
    ends: of each data set, the running count of samples at the end of each shard.
    weights: share of each data set.
    load: ((data set, number of the sample in it), generator) -> sample; or an object whose `batch`
      makes a batch of a list of those.
    batching: batch size, order and part of this process.
    read_options: processes and threads that load.
  """
  local = batching.local_rows
  seeds = np.random.SeedSequence(batching.seed).generate_state(len(ends) + 1, np.uint32)
  orders = [
    _order(of_set, int(seeds[i]), batching.shuffle_shards).map(_WithDatasetId(i))
    for i, of_set in enumerate(ends)
  ]
  mixed = grain.MapDataset.mix(orders, list(weights)) if len(orders) > 1 else orders[0]
  batched = hasattr(load, "batch")
  stream = mixed.seed(int(seeds[-1])).random_map(_capture_rng_state if batched else load)

  def make_dataset(step: int) -> grain.MapDataset:
    # The generator of an element depends on its global number, so slicing by process comes after
    # the random map.
    elements = LocalElements(stream, dataclasses.replace(batching, start_step=step))
    if batched:
      return grain.MapDataset.range(_ENDLESS // local).map(_BatchLoader(elements, load.batch))
    return grain.MapDataset.range(_ENDLESS).map(elements).batch(local)

  return Batches(
    make_dataset,
    step=batching.start_step,
    workers=read_options.workers,
    threads=read_options.threads,
    prefetch=read_options.prefetch,
  )


def _order(ends: np.ndarray, seed: int, shuffle_shards: int) -> grain.MapDataset:
  """The numbers of a data set's samples, shuffled without end."""
  if not shuffle_shards:
    return grain.MapDataset.range(int(ends[-1])).seed(seed).shuffle().repeat()
  return grain.MapDataset.range(_ENDLESS).map(block_order.BlockOrder(ends, shuffle_shards, seed))


def sequential_batches(
  load: Callable[[int], dict[str, Any]],
  num_batches: int,
  batching: Batching,
  read_options: ReadOptions,
) -> Batches:
  """Batches of fixed rows in order, once.

  Args:
    load: row number -> sample; numbers beyond the last give padding.
    num_batches: how many.
    batching: batch size and part of this process.
    read_options: processes and threads that load.
  """
  local, numbers = batching.local_rows, range(num_batches * batching.batch_size)

  def make_dataset(step: int) -> grain.MapDataset:
    elements = LocalElements(numbers, dataclasses.replace(batching, start_step=step))
    return grain.MapDataset.range((num_batches - step) * local).map(elements).map(load).batch(local)

  return Batches(
    make_dataset, step=0, workers=read_options.workers, threads=read_options.threads, prefetch=2
  )
