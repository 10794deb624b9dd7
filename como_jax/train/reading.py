"""Which part of a training batch this process reads, and how."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from como_jax.data import read_options, shards
from como_jax.data.batching import Batching, ProcessSlice
from como_jax.parallel import distributed


def cores() -> int:
  """CPU cores for this process, where others of the run have the same ones its part.

  Of several, all must ask for the first time together.
  """
  return max(1, read_options.cores() // distributed.count_colocated(read_options.core_set_id()))


def local_rows(batch_size: int) -> int:
  """Rows of a training batch that this process loads."""
  return max(1, batch_size // jax.process_count())


def batching(config: Any, step: int = 0) -> Batching:
  """This process's part of the training batches of a config, from a step on."""
  process = ProcessSlice(jax.process_index(), jax.process_count())
  shards_together = config.data.shuffle_shards
  return Batching(config.train.batch_size, config.seed, step, process, shards_together)


def choose(
  section: Any, paths: Sequence[str], batch: Mapping[str, jax.ShapeDtypeStruct]
) -> read_options.ReadOptions:
  """How folders of shards are read.

  Args:
    section: `data` of a config.
    paths: folders of shards.
    batch: shapes of this process's batches.

  Raises:
    errors.UserError: a number below -1.
  """
  return read_options.choose(
    workers=section.workers,
    threads=section.threads,
    prefetch=section.prefetch,
    cores=cores(),
    accelerators=0 if jax.default_backend() == "cpu" else jax.local_device_count(),
    codecs={shards.read_manifest(path)["codec"] for path in paths},
    room=read_options.shared_room(sum(spec.size * spec.dtype.itemsize for spec in batch.values())),
  )


def in_order(section: Any) -> read_options.ReadOptions:
  """How a fixed list of examples is read: by threads of this process."""
  return read_options.ReadOptions(threads=read_options.reading_threads(section.threads))
