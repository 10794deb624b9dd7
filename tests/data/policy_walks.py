"""Policy data with labels, and walks over its batches; a frame's gray level is its number."""

import dataclasses
import os

import numpy as np

from como_jax.data import index, label_file, labels, normalization, policy_index, shards, statistics
from como_jax.data.policy_index import PolicySet
from tests.data import flat, makers

LENGTHS = (12, 9, 15, 7)
TASKS = {
  f"task {i}": (np.full((2, 3), i + 1, np.float32), np.array([True, i == 0])) for i in range(2)
}


def unit(size):
  """Statistics that change nothing."""
  zero, one = np.zeros(size), np.ones(size)
  return statistics.Statistics(10, zero, one, -one, one, -one, one)


def normalizer(**sizes):
  sizes = sizes or {"arm": (3, 2)}
  return normalization.MixtureStatistics(
    {name: {"action": unit(a), "state": unit(s)} for name, (a, s) in sizes.items()}, unit(2)
  ).normalization("standard")


def label(data_path, path, *, offset=0.2, cameras=None, model="aaaa"):
  """A label set of some shards: z[t] = (frame of the episode, camera number)."""
  manifest = shards.read_manifest(data_path)
  segments, read = makers.segments(data_path)
  table, clips = segments.table, {}
  for s in range(len(segments)):
    times, frames = read.times(s), np.arange(segments.length(s))
    partners, valid = times.partners(frames, offset)
    difference = np.where(valid, times.seconds_at(partners) - times.seconds_at(frames), 0)
    for row in segments.rows(s):
      part = slice(
        segments.first_frame(s, row), segments.first_frame(s, row) + int(table.length[row])
      )
      motions = {}
      for name in cameras or table.cameras:
        camera = np.full(len(frames), table.cameras.index(name))
        numbers = np.stack([segments.start[s] + frames, camera], 1)
        motions[name] = labels.Motion(
          np.where(valid[:, None], numbers, 0)[part], valid[part], difference[part]
        )
      clips[segments.clip_location(row)] = (int(table.start[row]), motions)
  os.makedirs(path)
  sidecars = [
    label_file.write_shard(
      str(path), shard, [clips[place] for place in sorted(clips) if place[0] == shard], facts={}
    )
    for shard in sorted({place[0] for place in clips})
  ]
  label_file.write_manifest(
    str(path),
    sidecars,
    data_shards=data_path,
    size=2,
    queries=1,
    dims=2,
    offset_seconds=offset,
    cameras=list(cameras or table.cameras),
    model={"path": f"model {model}", "fingerprint": model, "config": {}},
    data={
      "path": data_path,
      "fingerprint": manifest["source"]["fingerprint"],
      "image_size": manifest["image_size"],
    },
  )
  return str(path)


SIZES = dict(
  cameras=1,
  history=1,
  step_seconds=0.0,
  action_horizon=3,
  reduce="mean",
  motion_horizon=2,
  latent_size=2,
  image_size=16,
  language=TASKS,
  robots={"arm": (3, 2)},
  validation_fraction=0.0,
)


def arm(path, **settings):
  return PolicySet(path, robot="arm", **settings)


def walk(sets, **settings):
  """All examples in order."""
  settings = (
    {"batch_size": 7, "split": "all", "threads": 0, "normalization": normalizer()}
    | SIZES
    | settings
  )
  found = flat.policy_windows(sets, **settings)
  with found.batches() as batches:
    parts = list(batches)
  rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
  assert rows["valid"].sum() == found.size
  rows = {key: value[rows["valid"]] for key, value in rows.items()}
  return rows | {"name": np.array([int(found.episodes[i][-1]) for i in rows["episode"]])}


def take(sets, count, **settings):
  settings = {"batch_size": 8, "threads": 0, "normalization": normalizer()} | SIZES | settings
  with flat.policy(sets, **settings) as batches:
    return [next(batches) for _ in range(count)]


class Grouped(makers.Synthetic):
  """Pairs of episodes show one motion."""

  def __getitem__(self, i):
    return dataclasses.replace(super().__getitem__(i), group=f"motion {i // 2}")


def names(one, fraction, split="train"):
  table = shards.read_table(one.path)
  kept = index.select(table, split, fraction)
  keep = policy_index.select(table, kept, split=split, episodes=one.episodes, tasks=one.tasks)
  return list(
    dict.fromkeys(int(table.episodes[number].split("_")[1]) for number in table.episode[keep])
  )
