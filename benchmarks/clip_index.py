"""What a data set of a million clips costs before the first batch: seconds of CPU time and memory.

  python benchmarks/clip_index.py [--clips 1000000] [--out]

The table is a true one (120,000 episodes of 8 or 9 clips, every episode with an instruction of its own); no shard is opened, which is the
point: what is needed at the start lies in one table. Each step runs in a process of its own; memory is the peak of the process, less what
it holds after its imports.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import pickle
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from benchmarks import common  # noqa: E402
from como_jax import data  # noqa: E402
from como_jax.data import index, pipeline, shards  # noqa: E402


def write(folder: str, clips: int, cameras: int) -> None:
  """A folder of shards without the shards."""
  rng = np.random.default_rng(0)
  episodes = max(1, clips * 12 // 100)
  lengths = np.full(episodes, clips // episodes)
  lengths[: clips - lengths.sum()] += 1
  episode = np.repeat(np.arange(episodes), lengths)
  start = (np.arange(clips) - np.repeat(np.cumsum(lengths) - lengths, lengths)) * 128
  per_shard = 533
  columns = {
    "shard": np.arange(clips) // per_shard, "clip": np.arange(clips) % per_shard, "episode": [f"videos/{i:07d}.mp4" for i in episode],
    "start": start, "length": np.full(clips, 128), "first": start / 30.0, "interval": np.full(clips, 1 / 30),
    "seconds": pa.nulls(clips, pa.list_(pa.float64())), "shot": np.zeros(clips), "task": [f"caption number {i}" for i in episode],
    "group": [""] * clips, "has_action": np.zeros(clips, bool), "has_state": np.zeros(clips, bool),
    "split_key": rng.integers(0, 2**62, episodes)[episode], "motion": rng.random(clips), "global_motion": rng.random(clips),
    "still": np.zeros(clips), "repeated": np.zeros(clips), "duplicate": np.zeros(clips, bool),
  }
  table = pa.table({field.name: pa.array(columns[field.name], field.type) for field in shards.SCHEMA}, shards.SCHEMA)
  pq.write_table(table, os.path.join(folder, shards.RECORDS), write_page_checksum=True)
  size = {"size": None, "names": None, "statistics": None}
  manifest = {
    "version": shards.VERSION, "kind": shards.KIND, "source": {"description": "made", "format": "made", "fingerprint": "made"},
    "cameras": [f"camera {i}" for i in range(cameras)], "image_size": 224, "codec": "jpeg", "action": size, "state": size,
    "counts": {"episodes": episodes, "clips": clips, "frames": clips * 128, "quarantined": 0},
    "shards": [{"shard": i, "file": shards.shard_name(i), "index_offset": 0, "index_size": 0, "index_xxh64": "0", "xxh64": "0", "clips": per_shard}
               for i in range(-(-clips // per_shard))], "quarantine": [], "skipped": [], "notes": [], "frames": {}, "cameras_not_stored": []}
  with open(os.path.join(folder, shards.MANIFEST), "w", encoding="utf-8") as file:
    json.dump(manifest, file)


def _dataset(folder: str) -> data.DataSet:
  return data.DataSet(folder, offset_seconds=0.5)


def read_table(folder):
  return shards.read_table(folder)


def windows(folder):
  return index.windows(shards.read_table(folder), frames=2, offset_seconds=0.5)


def open_sets(folder):
  return pipeline.open_sets([_dataset(folder)], frames=2, split="train", validation_fraction=0.1)[0]


def describe(folder):
  return data.describe(_dataset(folder))


def motion_start(folder):
  """What a training run does: check, validation windows, batches."""
  open_sets(folder)
  describe(folder)
  validation = pipeline.open_sets([_dataset(folder)], frames=3, split="validation", validation_fraction=0.1)
  return validation, pipeline.build([_dataset(folder)], batch_size=16, image_size=224, threads=0)


STEPS = {"read_table": read_table, "read_table and windows": windows, "open_sets": open_sets, "describe": describe, "motion start": motion_start}


def _peak() -> float:
  """MiB; of this process alone, which getrusage mixes with that of its parent."""
  with open("/proc/self/status", encoding="utf-8") as file:
    return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def _measured(name: str, folder: str, result) -> None:
  before, cpu = _peak(), time.process_time()
  kept = STEPS[name](folder)
  cpu = time.process_time() - cpu
  text = ""
  if name == "read_table and windows":
    text = f"{len(kept):,} windows"
  if name == "open_sets":
    text = f"{len(pickle.dumps(kept)) / 2**20:.0f} MiB are pickled for each data worker"
  result.send((cpu, _peak() - before, text))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--clips", type=int, default=1_000_000)
  common.add_options(parser, rounds=None)
  options = parser.parse_args()
  context, rows = multiprocessing.get_context("spawn"), []
  for cameras in (1, 3):
    with tempfile.TemporaryDirectory() as folder:
      write(folder, options.clips, cameras)
      for name in STEPS:
        receive, send = context.Pipe()
        process = context.Process(target=_measured, args=(name, folder, send))
        process.start()
        cpu, peak, text = receive.recv()
        process.join()
        rows.append((f"{name}, {cameras} camera{'s' if cameras > 1 else ''}", f"{cpu:.1f}", f"{peak:.0f}", text))
  setting = f"{options.clips:,} clips of {max(1, options.clips * 12 // 100):,} episodes; a new process for each row."
  common.finish("clip-index", "A million clips before the first batch", [setting, common.table(("", "CPU s", "peak MiB", ""), rows)], options)


if __name__ == "__main__":
  main()
