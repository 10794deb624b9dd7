"""CPU time and memory that a data set of a million clips needs before the first batch.

  python benchmarks/clip_index.py [--clips 1000000] [--labeled 10000] [--steps policy ...] [--out]

The index table is complete (120,000 episodes of 8 or 9 clips, each episode with its own
instruction). No shard is opened, because all data for the start are in one table. Each step runs in
its own process; memory is the peak of the process, minus its peak after the imports. A policy
learns from actions (robot) or from labels. The statistics of its latent motion read the labels of
every clip, so that step has real labels, of fewer clips. With --irregular, the times of that share
of the clips are not uniform.
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
from benchmarks import common
from como_jax import data
from como_jax.data import (
  index,
  label_file,
  labels,
  motion_mixture,
  normalization,
  pipeline,
  policy_layout,
  policy_mixture,
  shards,
  statistics,
)
from como_jax.data.batching import Batching
from como_jax.data.policy_index import PolicySet
from como_jax.data.read_options import ReadOptions

LABELS = "labels"
PER_SHARD = 533  # clips
LABELED = "latent statistics"  # the step that reads labels


def write(folder: str, clips: int, cameras: int, irregular: float = 0.0) -> None:
  """Writes the index of a folder of shards, without shards, and labels of the first shard."""
  rng = np.random.default_rng(0)
  episodes = max(1, clips * 12 // 100)
  lengths = np.full(episodes, clips // episodes)
  lengths[: clips - lengths.sum()] += 1
  episode = np.repeat(np.arange(episodes), lengths)
  start = (np.arange(clips) - np.repeat(np.cumsum(lengths) - lengths, lengths)) * 128
  columns = {
    "shard": np.arange(clips) // PER_SHARD,
    "clip": np.arange(clips) % PER_SHARD,
    "episode": [f"videos/{i:07d}.mp4" for i in episode],
    "start": start,
    "length": np.full(clips, 128),
    "first": start / 30.0,
    "interval": np.full(clips, 1 / 30),
    "seconds": _seconds(start, irregular),
    "shot": np.zeros(clips),
    "task": [f"caption number {i}" for i in episode],
    "group": [""] * clips,
    "has_action": np.ones(clips, bool),
    "has_state": np.zeros(clips, bool),
    "split_key": rng.integers(0, 2**62, episodes)[episode],
    "motion": rng.random(clips),
    "global_motion": rng.random(clips),
    "still": np.zeros(clips),
    "repeated": np.zeros(clips),
    "duplicate": np.zeros(clips, bool),
  }
  table = pa.table(
    {field.name: pa.array(columns[field.name], field.type) for field in shards.SCHEMA},
    shards.SCHEMA,
  )
  pq.write_table(table, os.path.join(folder, shards.RECORDS), write_page_checksum=True)
  size = {"size": None, "names": None, "statistics": None}
  manifest = {
    "version": shards.VERSION,
    "kind": shards.KIND,
    "source": {"description": "made", "format": "made", "fingerprint": "made"},
    "cameras": [f"camera {i}" for i in range(cameras)],
    "image_size": 224,
    "codec": "jpeg",
    "action": size | {"size": 7},
    "state": size,
    "counts": {"episodes": episodes, "clips": clips, "frames": clips * 128, "quarantined": 0},
    "shards": [
      {
        "shard": i,
        "file": shards.shard_name(i),
        "index_offset": 0,
        "index_size": 0,
        "index_xxh64": "0",
        "xxh64": "0",
        "clips": PER_SHARD,
      }
      for i in range(-(-clips // PER_SHARD))
    ],
    "quarantine": [],
    "skipped": [],
    "notes": [],
    "frames": {},
    "cameras_not_stored": [],
  }
  with open(os.path.join(folder, shards.MANIFEST), "w", encoding="utf-8") as file:
    json.dump(manifest, file)
  write_labels(folder, table["length"].to_numpy()[:PER_SHARD])


def _seconds(start: np.ndarray, irregular: float) -> pa.Array:
  """The column `seconds`: null, except for a share of the clips."""
  if not irregular:
    return pa.nulls(len(start), pa.list_(pa.float64()))
  rng = np.random.default_rng(1)
  varies = rng.random(len(start)) < irregular
  ends = np.concatenate([[0], np.cumsum(varies * 128)])
  frames = (start[varies, None] + np.arange(128)).ravel()
  return pa.ListArray.from_arrays(
    pa.array(ends, pa.int32()), pa.array((frames + 0.2 * (frames % 2)) / 30), mask=pa.array(~varies)
  )


def write_labels(folder: str, lengths: np.ndarray, shards_: int = 1) -> None:
  """Writes labels of the first shards of a folder, Z = 32."""
  path, rng = os.path.join(folder, LABELS), np.random.default_rng(0)
  os.makedirs(path, exist_ok=True)
  sidecars = []
  for part in range(shards_):
    clips = []
    for length in lengths:
      z = rng.normal(size=(length, 32)).astype(np.float32)
      clips.append(
        (
          0,
          {
            "camera 0": labels.Motion(
              z, np.arange(length) < length - 1, np.full(length, 0.5, np.float32)
            )
          },
        )
      )
    sidecars.append(label_file.write_shard(path, part, clips, facts={}))
  label_file.write_manifest(
    path,
    sidecars,
    data_shards=folder,
    size=32,
    queries=1,
    dims=32,
    offset_seconds=0.5,
    cameras=["camera 0"],
    model={"path": "made", "fingerprint": "made"},
    data={"path": folder, "fingerprint": "made"},
  )


def _dataset(folder: str) -> data.DataSet:
  return data.DataSet(folder, offset_seconds=0.5)


def read_table(folder):
  """Step: reads the index table."""
  return shards.read_table(folder)


def windows(folder):
  """Step: lists the windows of the training."""
  return index.windows(shards.read_table(folder), frames=2, offset_seconds=0.5)


def open_sets(folder):
  """Step: opens the data set for the training of a motion model."""
  return motion_mixture.MotionMixture([_dataset(folder)]).windows("train", frames=2)


def describe(folder):
  """Step: describes the data set."""
  return motion_mixture.MotionMixture([_dataset(folder)]).describe()


def motion_start(folder):
  """Step: the start of a training run: check, validation windows, batches."""
  mixture = motion_mixture.MotionMixture([_dataset(folder)])
  mixture.windows("train", frames=2)
  mixture.describe()
  validation = mixture.windows("validation", frames=3)
  batches = mixture.batches(pipeline.Layout(224), Batching(16), ReadOptions(threads=0))
  return validation, batches


def _robot(folder):
  return PolicySet(folder, robot="arm")


def _video(folder):
  return PolicySet(folder, labels=os.path.join(folder, LABELS))


def policy_examples_of(policy_set):
  """Step: lists the examples of a policy."""
  return policy_mixture.PolicyMixture([policy_set]).split("train")


def policy_start(policy_set):
  """Step: the start of a policy run, without statistics: describe, validation, batches."""
  mixture = policy_mixture.PolicyMixture([policy_set])
  mixture.describe()
  zeros = statistics.Statistics(1, *(np.zeros(32) for _ in range(6)))
  layout = policy_layout.Layout(
    normalization=normalization.MixtureStatistics({"arm": {"action": zeros}}, zeros).normalization(
      "standard"
    ),
    robots={"arm": (7, 0)},
    num_cameras=1,
    history=1,
    step_seconds=0.0,
    action_horizon=8,
    reduce="mean",
    motion_horizon=2,
    latent_size=32,
    image_size=224,
    language=dict.fromkeys(
      shards.read_table(policy_set.path).tasks, (np.zeros((1, 8), np.float32), np.ones(1, bool))
    ),
  )
  read_options = ReadOptions(threads=0)
  validation = mixture.evaluation_examples(layout, Batching(16), read_options, max_examples=1000)
  return validation, mixture.batches(layout, Batching(16), read_options)


def latent_statistics(folder):
  """Step: computes the statistics of the latent motion."""
  return policy_mixture.PolicyMixture([_video(folder)]).statistics()


STEPS = {
  "read_table": read_table,
  "read_table and windows": windows,
  "open_sets": open_sets,
  "describe": describe,
  "motion start": motion_start,
  "policy examples, robot": lambda folder: policy_examples_of(_robot(folder)),
  "policy start, robot": lambda folder: policy_start(_robot(folder)),
  "policy examples, labels": lambda folder: policy_examples_of(_video(folder)),
  "policy start, labels": lambda folder: policy_start(_video(folder)),
  LABELED: latent_statistics,
}


def _peak() -> float:
  """Peak memory of this process in MiB; getrusage would include the parent's."""
  with open("/proc/self/status", encoding="utf-8") as file:
    return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def _measured(name: str, folder: str, pipe) -> None:
  """Runs one step; sends (CPU seconds, MiB, description of the result)."""
  before, cpu = _peak(), time.process_time()
  result = STEPS[name](folder)
  cpu = time.process_time() - cpu
  text = ""
  if name == "read_table and windows":
    text = f"{len(result):,} windows"
  if name == "open_sets":
    text = f"{len(pickle.dumps(result)) / 2**20:.0f} MiB are pickled for each data worker"
  if name.startswith("policy examples"):
    text = f"{len(result[0].windows):,} examples"
  if name == LABELED:
    text = f"{result.latent.count:,} labels"
  pipe.send((cpu, _peak() - before, text))


def main() -> None:
  """Measures the steps and prints the page."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--clips", type=int, default=1_000_000)
  parser.add_argument(
    "--labeled", type=int, default=10_000, help="clips with true labels, for their statistics"
  )
  parser.add_argument("--irregular", type=float, default=0.0, help="share of the clips")
  parser.add_argument("--cameras", type=int, nargs="*", default=[1, 3])
  parser.add_argument(
    "--steps", nargs="*", default=[""], help="beginnings of the names of the steps to run"
  )
  common.add_options(parser, rounds=None)
  options = parser.parse_args()
  context, rows = multiprocessing.get_context("spawn"), []
  for cameras in options.cameras:
    for labeled in (False, True):
      names = [
        name
        for name in STEPS
        if name.startswith(tuple(options.steps)) and (name == LABELED) == labeled
      ]
      if not names or labeled and cameras > 1:
        continue
      with tempfile.TemporaryDirectory() as folder:
        write(folder, options.labeled if labeled else options.clips, cameras, options.irregular)
        if labeled:
          table = shards.read_table(folder)
          write_labels(folder, table.length[:PER_SHARD], -(-len(table) // PER_SHARD))
        for name in names:
          receive, send = context.Pipe()
          process = context.Process(target=_measured, args=(name, folder, send))
          process.start()
          cpu, peak, text = receive.recv()
          process.join()
          clips = f", {options.labeled:,} clips" if labeled else ""
          rows.append(
            (
              f"{name}{clips}, {cameras} camera{'s' if cameras > 1 else ''}",
              f"{cpu:.1f}",
              f"{peak:.0f}",
              text,
            )
          )
          print(*rows[-1], flush=True)
  setting = (
    f"{options.clips:,} clips of {max(1, options.clips * 12 // 100):,} episodes; a new process "
    "for each row."
  )
  if options.irregular:
    setting += f" The times of {options.irregular:.0%} of them are not uniform."
  common.finish(
    "clip-index",
    "A million clips before the first batch",
    [setting, common.table(("", "CPU s", "peak MiB", ""), rows)],
    options,
  )


if __name__ == "__main__":
  main()
