"""Which samples of a stream make which batch: options that training and evaluation share."""

import dataclasses

from como_jax import errors


@dataclasses.dataclass(frozen=True)
class Split:
  """A part of the episodes, see `index.split`.

  Attributes:
    name: "train", "validation" or "all".
    validation_fraction: share of the episodes set aside.
  """

  name: str = "train"
  validation_fraction: float = 0.1


@dataclasses.dataclass(frozen=True)
class ProcessSlice:
  """One process's part of every batch: the `index`-th of `count` equal ones."""

  index: int = 0
  count: int = 1

  def rows(self, batch_size: int) -> int:
    """Rows of this process.

    Raises:
      ValueError: no such process.
      errors.UserError: the batch does not divide by the number of processes.
    """
    if batch_size < 1 or batch_size % self.count:
      raise errors.UserError(
        f"batch_size {batch_size} does not divide by the number of processes, {self.count}"
      )
    if not 0 <= self.index < self.count:
      raise ValueError(f"process {self.index} of {self.count}")
    return batch_size // self.count


@dataclasses.dataclass(frozen=True)
class Batching:
  """How samples become batches.

  Attributes:
    batch_size: global; a process gets its part of every batch.
    seed: of order and augmentation.
    start_step: number of batches already used.
    process: which part of each batch.
    shuffle_shards: shards whose samples are shuffled together, see `block_order`; 0 = all samples
      of a data set.
  """

  batch_size: int
  seed: int = 0
  start_step: int = 0
  process: ProcessSlice = ProcessSlice()
  shuffle_shards: int = 0

  @property
  def local_rows(self) -> int:
    """Rows of a batch that this process loads, see `ProcessSlice.rows`."""
    return self.process.rows(self.batch_size)
