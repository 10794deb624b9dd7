"""An order of samples that shuffles shards, then the samples of a few shards together.

A reader that follows it works on few shards at a time, so that a cache can hold them, or a store
sends them in large pieces. Like a whole shuffle it gives every sample once an epoch, and the place
of a sample depends only on the seed and its number in the order.

Legend: n shards, in the order of the samples.
"""

import functools
from typing import Any

import numpy as np


def shard_ends(windows: Any) -> np.ndarray:
  """Where the windows of each shard end, the running count, int64 [n].

  Args:
    windows: `index.Windows` or `policy_index.Examples`. A segment of several shards counts as
      a part of the first one.
  """
  segments = windows.segments
  shard = segments.table.shard[segments.first_row[windows.segment]]
  last = np.concatenate([np.flatnonzero(np.diff(shard)), [len(shard) - 1]])
  return np.asarray(windows.end)[last].astype(np.int64)


class BlockOrder:
  """Endless: place in the order -> number of the sample. Safe to share between threads."""

  def __init__(self, ends: np.ndarray, shards: int, seed: int):
    """Sets up an order.

    Args:
      ends: running count of samples at the end of each shard, [n].
      shards: how many are shuffled together.
      seed: of the order.
    """
    self.__setstate__((np.asarray(ends, np.int64), shards, seed))

  def __getstate__(self):
    return self._ends, self._shards, self._seed

  def __setstate__(self, state):
    self._ends, self._shards, self._seed = state
    self._counts = np.diff(self._ends, prepend=0)
    # the last epoch and block are used when a new one begins
    self._epoch = functools.lru_cache(2)(self._shuffle_shards)
    self._block = functools.lru_cache(2)(self._shuffle_block)

  def __call__(self, i: int) -> int:
    """The number of the sample at a place."""
    epoch, at = divmod(int(i), int(self._ends[-1]))
    _, block_ends = self._epoch(epoch)
    block = int(np.searchsorted(block_ends, at, side="right"))
    samples = self._block(epoch, block)
    return int(samples[at - int(block_ends[block]) + len(samples)])

  def _shuffle_shards(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """(shards in their order [n], running count of samples at the end of each block)."""
    order = np.random.default_rng([self._seed, epoch]).permutation(len(self._ends))
    last = np.minimum(np.arange(self._shards, len(order) + self._shards, self._shards), len(order))
    return order, np.cumsum(self._counts[order])[last - 1]

  def _shuffle_block(self, epoch: int, block: int) -> np.ndarray:
    """The samples of a block in their order."""
    order, _ = self._epoch(epoch)
    chosen = order[block * self._shards : (block + 1) * self._shards]
    samples = np.concatenate(
      [np.arange(self._ends[i] - self._counts[i], self._ends[i]) for i in chosen]
    )
    np.random.default_rng([self._seed, epoch, block]).shuffle(samples)
    return samples.astype(np.uint32) if self._ends[-1] < 2**32 else samples
