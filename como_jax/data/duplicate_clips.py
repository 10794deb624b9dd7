"""Marks the clips of a new folder of shards that an earlier episode shows too, from what was
measured of their frames.
"""

import collections

import numpy as np

from como_jax.data import duplicates, reader

_SHARE = 0.5  # of a clip's frames


def mark(output: str, files: list[dict], rows: list[dict]) -> list[dict[str, str]]:
  """Sets "duplicate" in the rows of such clips.

  Args:
    output: folder of the shards.
    files: entries of its shards, see `shards.read_manifest`.
    rows: of its table; their episodes are compared in this order, by their first camera. Clips that
      were not measured are left alone.

  Returns:
    {"name", "note"}: an episode and what it repeats.
  """
  opened = reader.ShardCache(output, files)  # not all shards of a large folder may be open at once
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
  for mine in episodes.values():
    seconds, hashes, motion = [], [], []
    for i in mine:
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
    parts.append(mine)
  found, notes, named = duplicates.find(signatures), [], list(episodes)
  for one in found:
    times = signatures[one.episode].times
    notes.append(
      {
        "name": named[one.episode],
        "note": f"from {_text(times[one.first])} to {_text(times[one.last - 1])} s it shows what "
        f"{named[one.of]} shows from {_text(times[one.first] - one.offset)} s on",
      }
    )
  of_episode = collections.defaultdict(list)
  for one in found:
    of_episode[one.episode].append(one)
  for number, mine in of_episode.items():
    alike, at = duplicates.mask(mine, number, len(signatures[number].times)), 0
    for i in parts[number]:
      rows[i]["duplicate"] = bool(alike[at : at + rows[i]["length"]].mean() >= _SHARE)
      at += rows[i]["length"]
  return notes


def _text(seconds: float) -> str:
  return f"{round(float(seconds), 2) + 0.0:.2f}"  # no "-0.00"
