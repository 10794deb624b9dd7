"""How well data.shuffle_shards mixes: batches of a block order next to those of a whole shuffle.

  python benchmarks/block_shuffle.py [--out]

1,894 shards of 66 episodes of 912 windows each, as of a million clips. Every shard has a number of
its own, and every episode too (normal, as what a shard or an episode shows). The variance of a
batch's mean of these numbers, as a multiple of what independent draws give, is 1 where a batch
looks like the whole data set, and larger where it looks like the few shards that it comes from.
"""

import argparse
import pathlib
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from benchmarks import common
from como_jax.data import block_order

SHARDS, EPISODES, WINDOWS = 1894, 66, 912


def quality(shards: int, *, batch: int, batches: int) -> tuple[str, ...]:
  """The cells of a row; `shards` 0 = independent draws from all samples."""
  rng = np.random.default_rng(0)
  size = EPISODES * WINDOWS
  started = time.process_time()
  if shards:
    order = block_order.BlockOrder(np.arange(1, SHARDS + 1) * size, shards, 0)
    # batches far from each other, each from a block of its own
    firsts = np.linspace(0, SHARDS * size - batch, batches).astype(np.int64)
    samples = np.array([[order(first + i) for i in range(batch)] for first in firsts])
  else:
    samples = rng.integers(0, SHARDS * size, (batches, batch))
  seconds = time.process_time() - started
  shard, episode = samples // size, samples // WINDOWS
  of_shard, of_episode = rng.normal(size=SHARDS), rng.normal(size=SHARDS * EPISODES)
  ratios = [values.mean(1).var() * batch for values in (of_shard[shard], of_episode[episode])]
  distinct = [np.mean([len(np.unique(row)) for row in numbers]) for numbers in (shard, episode)]
  name = f"{shards} shards" if shards else "all samples"
  return (
    name,
    *(f"{value:.0f}" for value in distinct),
    *(f"{value:.2f}" for value in ratios),
    f"{seconds:.1f}",
  )


def main() -> None:
  """Measures the rows and prints the page."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--batch", type=int, default=256)
  parser.add_argument("--batches", type=int, default=40)
  common.add_options(parser, rounds=None)
  options = parser.parse_args()
  columns = (
    "shuffled together",
    "shards in a batch",
    "episodes in a batch",
    "variance, number of the shard",
    "variance, number of the episode",
    "CPU s",
  )
  rows = [
    quality(shards, batch=options.batch, batches=options.batches) for shards in (1, 8, 64, 128, 0)
  ]
  setting = f"{options.batches} batches of {options.batch} samples."
  common.finish(
    "block-shuffle",
    "Shuffling a few shards at a time",
    [setting, common.table(columns, rows)],
    options,
  )


if __name__ == "__main__":
  main()
