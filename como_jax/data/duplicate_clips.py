"""Marks the clips of a new folder of shards that an earlier episode shows too.

The clips are compared by the values that were measured for their frames.
"""

import collections

import numpy as np

from como_jax.data import duplicates, reader

_SHARE = 0.5  # a clip is a duplicate when at least this share of its frames is


def mark(output: str, files: list[dict], rows: list[dict]) -> list[dict[str, str]]:
  """Sets "duplicate" in the rows of clips that an earlier episode shows too.

  Args:
    output: folder of the shards.
    files: entries of its shards, see `shards.read_manifest`.
    rows: of its table. Episodes are compared in this order, by their first camera. Rows of clips
      that were not measured are not changed.

  Returns:
    {"name", "note"}: an episode, and the part of the earlier episode that it repeats.
  """
  opened = reader.ShardFiles(output, files)  # limits the number of open files
  names = {
    file["shard"]: [
      name for name in opened[file["shard"]].index if name.startswith("frame/picture_hash/")
    ]
    for file in files
  }
  episodes: dict[str, list[int]] = {}
  for i, row in enumerate(rows):
    if names[row["shard"]]:
      episodes.setdefault(row["episode"], []).append(i)
  signatures, parts = [], []
  for indices in episodes.values():
    seconds, hashes, motion = [], [], []
    for i in indices:
      row, file = rows[i], opened[rows[i]["shard"]]
      camera = names[row["shard"]][0].removeprefix("frame/picture_hash/")
      seconds.append(
        row["seconds"]
        if row["seconds"] is not None
        else row["first"] + np.arange(row["length"]) * row["interval"]
      )
      hashes.append(file.frame_fact(row["clip"], f"picture_hash/{camera}"))
      motion.append(file.frame_fact(row["clip"], f"motion/{camera}"))
    signatures.append(
      duplicates.Signature(np.concatenate(seconds), np.concatenate(hashes), np.concatenate(motion))
    )
    parts.append(indices)
  stretches, notes, names_of_episodes = duplicates.find(signatures), [], list(episodes)
  for part in stretches:
    times = signatures[part.episode].times
    notes.append(
      {
        "name": names_of_episodes[part.episode],
        "note": f"from {_text(times[part.first])} to {_text(times[part.last - 1])} s it shows what "
        f"{names_of_episodes[part.original]} shows from "
        f"{_text(times[part.first] - part.offset)} s on",
      }
    )
  of_episode = collections.defaultdict(list)
  for part in stretches:
    of_episode[part.episode].append(part)
  for number, own_stretches in of_episode.items():
    repeated = duplicates.mask(own_stretches, number, len(signatures[number].times))
    start = 0
    for i in parts[number]:
      end = start + rows[i]["length"]
      rows[i]["duplicate"] = bool(repeated[start:end].mean() >= _SHARE)
      start = end
  return notes


def _text(seconds: float) -> str:
  return f"{round(float(seconds), 2) + 0.0:.2f}"  # no "-0.00"
