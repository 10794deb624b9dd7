"""The data of cold_reads.py: a folder of shards with a true table of so many clips.

One shard is real. The other shards are hard links to its files, so a million clips take the room of
one shard, and of an index and a table that are complete.
"""

import argparse
import json
import os
import pathlib
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from benchmarks import input_pipeline_data
from como_jax.data import frame_codec, index_writer, number_file, shard_file, shards, video

CAMERA, SIZE, LENGTH = "camera", 224, 128  # pixels, frames of a clip
OF_EPISODE = 8  # clips
QUALITY = {"jpeg": 75, "h264": 18}


def make(folder: str, codec: str, *, clips: int, per_shard: int, real: int, index: bool) -> None:
  """Makes the folder.

  Args:
    folder: to make.
    codec: "jpeg" or "h264".
    clips: in all; rounded up to whole shards.
    per_shard: clips of a shard, a multiple of 8.
    real: clips with different pictures; they are repeated in the shard.
    index: whether to write the index of all frames, as ingest does.
  """
  os.makedirs(folder)
  first = os.path.join(folder, shards.shard_name(0))
  entry = _write_shard(first, codec, per_shard, real)
  number_file.write(shard_file.ShardFile(first, entry), number_file.path_of(first))
  count = -(-clips // per_shard)
  entries = []
  for shard in range(count):
    path = os.path.join(folder, shards.shard_name(shard))
    if shard:
      os.link(first, path)
      os.link(number_file.path_of(first), number_file.path_of(path))
    entries.append({**entry, "shard": shard, "file": os.path.basename(path), "clips": per_shard})
  _write_table(folder, count, per_shard)
  with open(os.path.join(folder, shards.MANIFEST), "w", encoding="utf-8") as file:
    json.dump(_manifest(entries, codec, count * per_shard), file)
  if index:
    index_writer.write(folder, entries)


def _write_shard(path: str, codec: str, clips: int, real: int) -> dict[str, Any]:
  source = input_pipeline_data.Synthetic(real, SIZE, LENGTH, (CAMERA,))
  encoded = []
  for i in range(real):
    encoder = frame_codec.FrameEncoder(codec, QUALITY[codec])
    for _, image in source[i].cameras[CAMERA](video.Geometry(0)):
      encoder.add(image)
    encoded.append(encoder.finish())
  rng, writer = np.random.default_rng(0), shard_file.Writer(path)
  for clip in range(clips):
    arrays = {
      name: rng.normal(size=(LENGTH, width)).astype(np.float32)
      for name, width in (("action", 7), ("state", 8))
    }
    start = clip % OF_EPISODE * LENGTH
    writer.add(shard_file.Clip(start, LENGTH, {CAMERA: encoded[clip % real]}, arrays))
  return {**writer.close(), "xxh64": "not used"}


def _write_table(folder: str, count: int, per_shard: int) -> None:
  clips = count * per_shard
  number, episode = np.arange(clips), np.arange(clips) // OF_EPISODE
  start = number % OF_EPISODE * LENGTH
  texts = [f"videos/{i:07d}.mp4" for i in range(clips // OF_EPISODE)]
  tasks = [f"task {i % 100}" for i in range(clips // OF_EPISODE)]
  keys = np.random.default_rng(0).integers(0, 2**62, len(texts))
  columns = {
    "shard": number // per_shard,
    "clip": number % per_shard,
    "episode": [texts[i] for i in episode],
    "start": start,
    "length": np.full(clips, LENGTH),
    "first": start / 30.0,
    "interval": np.full(clips, 1 / 30),
    "seconds": pa.nulls(clips, pa.list_(pa.float64())),
    "task": [tasks[i] for i in episode],
    "group": [""] * clips,
    "has_action": np.ones(clips, bool),
    "has_state": np.ones(clips, bool),
    "split_key": keys[episode],
    "duplicate": np.zeros(clips, bool),
  }
  zeros = np.zeros(clips)
  table = pa.table(
    {field.name: pa.array(columns.get(field.name, zeros), field.type) for field in shards.SCHEMA},
    shards.SCHEMA,
  )
  pq.write_table(table, os.path.join(folder, shards.RECORDS), write_page_checksum=True)


def _manifest(entries: list[dict[str, Any]], codec: str, clips: int) -> dict[str, Any]:
  numbers = {"names": None, "statistics": None}
  counts = {"episodes": clips // OF_EPISODE, "clips": clips, "frames": clips * LENGTH}
  return {
    "version": shards.VERSION,
    "kind": shards.KIND,
    "source": {"description": "made", "format": "made", "fingerprint": "made"},
    "cameras": [CAMERA],
    "image_size": SIZE,
    "codec": codec,
    "action": numbers | {"size": 7},
    "state": numbers | {"size": 8},
    "counts": counts | {"quarantined": 0},
    "shards": entries,
    "quarantine": [],
    "skipped": [],
    "notes": [],
    "frames": {},
    "cameras_not_stored": [],
  }


def main() -> None:
  """Makes a folder from the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("folder")
  parser.add_argument("--codec", default="jpeg", choices=sorted(shard_file.CODECS))
  parser.add_argument("--clips", type=int, default=1_000_000)
  parser.add_argument("--per-shard", type=int, default=528)
  parser.add_argument("--real", type=int, default=24)
  options = parser.parse_args()
  make(
    options.folder,
    options.codec,
    clips=options.clips,
    per_shard=options.per_shard,
    real=options.real,
    index=True,
  )


if __name__ == "__main__":
  main()
