"""Labeled data sets, and what is read of an exported one."""

import json
import os
import pathlib

import numpy as np
from pyarrow import parquet

from como_jax.data import label_file, labels, shards

SIZE = 3


def label(data, folder, *, source="", stride=2, cameras=None, scale=1.0):
  """z[t] = (t, number of the episode, number of the camera) * scale, the difference is t / 100; t
  counts from the episode's begin.
  """
  os.makedirs(folder)
  table, sidecars = shards.read_table(data), []
  segments = shards.segments(table)
  names = cameras or list(table.cameras)
  ends = {
    row: int(segments.start[s] + segments.count[s])
    for s in range(len(segments))
    for row in segments.rows(s)
  }
  for shard in np.unique(table.shard):
    rows, clips = np.flatnonzero(table.shard == shard), []
    for row in rows[np.argsort(table.clip[rows])]:
      t = table.start[row] + np.arange(table.length[row])
      valid = t + stride < ends[row]
      number = sorted(table.episodes).index(table.episodes[table.episode[row]])
      difference = (np.where(valid, t, 0) / 100).astype(np.float32)
      motions = {}
      for i, name in enumerate(names):
        z = np.stack([t, np.full(len(t), number), np.full(len(t), i)], 1) * valid[:, None] * scale
        motions[name] = labels.Motion(z.astype(np.float32), valid, difference)
      clips.append((table.start[row], motions))
    sidecars.append(label_file.write_shard(str(folder), shard, clips, facts={}))
  data_facts = {
    "path": source,
    "fingerprint": shards.read_manifest(data)["source"]["fingerprint"],
    "image_size": 0,
  }
  label_file.write_manifest(
    str(folder),
    sidecars,
    data_shards=data,
    size=SIZE,
    queries=1,
    dims=SIZE,
    offset_seconds=0.2,
    cameras=names,
    model={"path": "m", "fingerprint": "aaaa"},
    data=data_facts,
  )
  return str(folder)


def read(root):
  """(data table, episodes table, info, stats) of a data set with one file of each."""
  root = pathlib.Path(root)
  return (
    parquet.read_table(next((root / "data").rglob("*.parquet"))),
    parquet.read_table(next((root / "meta/episodes").rglob("*.parquet"))),
    *(json.loads((root / "meta" / name).read_text()) for name in ("info.json", "stats.json")),
  )
