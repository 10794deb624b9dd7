"""Writes a label set: the file of each shard with its sidecar, and finally the manifest.

The format is described in `labels`.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors, storage
from como_jax.data import (
  frame_index,
  index_writer,
  labels,
  number_file,
  shard_file,
  shard_writer,
  shards,
  statistics,
  summaries,
)

_EXACT = 200_000  # rows, as many as `statistics.Accumulator` keeps for exact quantiles
_COUNTS = ("frames", "valid", "left_out", "at_end", "unreadable")


def write_shard(
  folder: str,
  shard: int,
  clips: Iterable[tuple[int, labels.Motions]],
  *,
  facts: Mapping[str, Any],
  left_out: int = 0,
  at_end: int = 0,
  damaged: Sequence[Mapping] = (),
) -> dict[str, Any]:
  """Writes the labels of one shard, then its sidecar; returns the sidecar.

  Args:
    folder: the label set.
    shard: number of the data shard.
    clips: for each of its clips, in order: (first frame as a number within the episode, labels).
      All clips have the same cameras.
    facts: what the labels depend on, stored in the sidecar (see `finished`).
    left_out: see `sequences.Pairs`; the sum over all cameras.
    at_end: see `sequences.Pairs`; the sum over all cameras.
    damaged: {"clip", "camera", "frames", "reason"} of each clip with frames that could not be read.
  """
  final = os.path.join(folder, labels.file_name(shard))
  temporary = f"{final}.{os.getpid()}.tmp"
  counts, labeled, rows = dict.fromkeys(("clips", "frames", "valid"), 0), 0, []
  checksums: dict[str, list[int]] = {}
  writer = shard_file.Writer(temporary)
  for start, motions in clips:
    arrays, frame_facts, moments = {}, {}, {}
    for camera, motion in motions.items():
      z, valid = motion.z.astype(np.float32), motion.valid.astype(bool)
      arrays |= {
        f"z/{camera}": z,
        f"valid/{camera}": valid.astype(np.uint8),
        f"difference/{camera}": motion.difference.astype(np.float32),
      }
      frame_facts[f"valid/{camera}"] = valid
      moments[f"z/{camera}"] = (
        statistics.moments(z[valid]) if valid.any() else np.zeros((4, z.shape[1]))
      )
      rows.append(z[valid])
      counts["valid"] += int(motion.valid.sum())
      labeled += len(motion.valid)
    length = len(next(iter(motions.values())).valid)
    writer.add(shard_file.Clip(int(start), length, {}, arrays, frame_facts, moments))
    for name, array in arrays.items():
      checksums.setdefault(name, []).extend(number_file.checksums(array))
    counts["clips"] += 1
    counts["frames"] += length
  index_facts = writer.close()
  counts |= {"left_out": int(left_out), "at_end": int(at_end)}
  counts["unreadable"] = labeled - counts["valid"] - counts["left_out"] - counts["at_end"]
  sidecar = {
    "shard": int(shard),
    "file": os.path.basename(final),
    "xxh64": shards.file_hash(temporary),
    **index_facts,
    **counts,
    "statistics": summaries.summarize(np.concatenate(rows)).tolist() if counts["valid"] else None,
    "facts": dict(facts),
    "damaged": [dict(clip) for clip in damaged],
  }
  number_file.write_checksums(
    final, f"{final}.{os.getpid()}.checksums.tmp", checksums, index_xxh64=index_facts["index_xxh64"]
  )
  os.replace(temporary, final)
  shard_writer.write_json(labels.sidecar_path(folder, shard), sidecar)
  return sidecar


def finished(folder: str, shard: int, *, facts: Mapping[str, Any]) -> dict | None:
  """The sidecar of a shard whose labels are complete, None when they must still be made.

  The file's size and footer are checked, and not its content: `labels.verify` does that.

  Raises:
    errors.UserError: they were made with other `facts` (model, data or settings), as passed to
      `write_shard`. The message names the first difference.
  """
  path = labels.sidecar_path(folder, shard)
  sidecar = shard_writer.read_json(path)
  if not isinstance(sidecar, dict) or "facts" not in sidecar:
    return None
  for key, value in facts.items():
    if sidecar["facts"].get(key) != value:
      raise errors.UserError(
        f"{path}: these labels were made with {key} {sidecar['facts'].get(key)!r}, now it is "
        f"{value!r}: choose another folder, or --overwrite"
      )
  file = os.path.join(folder, sidecar["file"])
  return sidecar if shard_file.is_whole(file, sidecar) else None


def files(shard: int) -> list[str]:
  """Names of the files that `write_shard` writes; the sidecar, which says they are there, last."""
  file = labels.file_name(shard)
  return [number_file.checksums_path(file), file, labels.sidecar_path("", shard)]


# What `write_manifest` writes, in order.
FILES = (shards.RECORDS, frame_index.FILE, labels.MANIFEST)


def write_manifest(
  folder: str,
  sidecars: Sequence[Mapping],
  *,
  data_shards: str,
  data: Mapping[str, Any],
  into: str | None = None,
  **facts: Any,
) -> dict[str, Any]:
  """Writes records.parquet, the index and labels.json; returns the content of labels.json.

  The statistics do not depend on who wrote the labels or when.

  Args:
    folder: the label set.
    sidecars: of all shards, in order of shard.
    data_shards: folder of the shards that were labeled.
    data: path and fingerprint of the data.
    into: folder of these files; None = the label set.
    **facts: size, queries, dims, offset_seconds, model, cameras.

  Raises:
    errors.UserError: no frame has a label.
  """
  into = into or folder
  z_statistics = _statistics(folder, sidecars, facts["cameras"])
  if z_statistics is None:
    raise errors.UserError(f"{folder}: no frame has a label: every clip is damaged")
  records = os.path.join(into, shards.RECORDS)
  with (
    storage.open_copy(storage.join(data_shards, shards.RECORDS)) as file,
    open(f"{records}.tmp", "wb") as copy,
  ):
    shutil.copyfileobj(file, copy)
  os.replace(f"{records}.tmp", records)
  keys = ("shard", "file", "xxh64", "index_offset", "index_size", "index_xxh64", "clips", "frames")
  entries = [{key: sidecar[key] for key in keys} for sidecar in sidecars]
  manifest = {
    "kind": labels.KIND,
    "version": labels.VERSION,
    **facts,
    "data": {
      **data,
      "cameras": shards.read_manifest(data_shards)["cameras"],
      "layout": labels.layout(shards.read_table(data_shards)),
    },
    "statistics": z_statistics.to_json(),
    "records_xxh64": shards.file_hash(records),
    "shards": entries,
    **{key: sum(sidecar[key] for sidecar in sidecars) for key in _COUNTS},
    "damaged": [
      {"shard": sidecar["shard"], **entry} for sidecar in sidecars for entry in sidecar["damaged"]
    ],
  }
  index_writer.write(folder, entries, into=into, own_numbers=False)
  manifest["checksum"] = labels.checksum(json.loads(json.dumps(manifest)))
  shard_writer.write_json(os.path.join(into, labels.MANIFEST), manifest)
  return manifest


def _statistics(
  folder: str, sidecars: Sequence[Mapping], cameras: Sequence[str]
) -> statistics.Statistics | None:
  """Statistics of the valid z of all shards; None when there is none.

  Up to `_EXACT` of them are read again, and all numbers are exact. More of them would take hours:
  the statistics of the sidecars are merged (`summaries.merge`), and the two quantiles are close.
  """
  counted = [sidecar for sidecar in sidecars if sidecar["valid"]]
  known = [sidecar.get("statistics") for sidecar in counted]
  if sum(sidecar["valid"] for sidecar in counted) > _EXACT and all(known):
    return summaries.merge(
      [np.array(one) for one in known], [sidecar["valid"] for sidecar in counted]
    )
  accumulator = statistics.Accumulator()
  for sidecar in sidecars:
    file = shard_file.ShardFile(os.path.join(folder, sidecar["file"]), sidecar)
    for clip in range(len(file)):
      for camera in cameras:
        valid = labels.required(file, clip, f"valid/{camera}").astype(bool)
        accumulator.add(labels.required(file, clip, f"z/{camera}")[valid])
  return accumulator.finish()
