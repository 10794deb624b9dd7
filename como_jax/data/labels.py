"""A label set: the latent motion of every frame of a folder of shards, one record of labels for each record of data.

  labels.json                            what it is: model, data, offset, statistics of z, the files with their hashes
  labels-00000.array_record              record r belongs to record r of shard-00000.array_record
  labels-00000.json                      says that the file beside it is finished, and which records were damaged

A record is an `episode.Clip` without frames: "z/<camera>" float32 [T, Z] and "valid/<camera>" uint8 [T]. z[t] is the motion of
frame t -> t + n of the episode, also where t + n lies in the episode's next clip; where there is no frame t + n, or one of the two
cannot be read, z[t] is 0 and valid[t] is 0.

Legend: T frames of a clip, L frames of an episode, Z numbers of one latent motion, n frames between the two of a pair.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from array_record.python import array_record_module

from como_jax import errors
from como_jax.data import episode as episodes
from como_jax.data import shard_writer, sources, statistics
from como_jax.data.sources import shards

MANIFEST = "labels.json"
KIND = "como_jax labels"
VERSION = 1
Motions = dict[str, tuple[np.ndarray, np.ndarray]]  # camera -> (z, valid)


def file_name(shard: int) -> str:
  return f"labels-{shard:05d}.array_record"


def sidecar_path(folder: str, shard: int) -> str:
  """The file whose existence says that a shard's labels are finished."""
  return os.path.join(folder, f"labels-{shard:05d}.json")


def read_manifest(path: str) -> dict[str, Any]:
  """The checked labels.json of a folder. Raises `errors.UserError`."""
  file = os.path.join(path, MANIFEST)
  if not os.path.isfile(file):
    raise errors.UserError(f"{path} is not a finished label set: {MANIFEST} is missing (configs/extract.py writes it)")
  manifest = shard_writer.read_json(file)
  if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
    raise errors.UserError(f"{file} is not the description of a label set: expected kind {KIND!r}")
  if not isinstance(manifest.get("version"), int) or manifest["version"] > VERSION:
    raise errors.UserError(f"{file} has version {manifest.get('version')}, this program reads up to {VERSION}: update como_jax")
  return manifest


class Labels:
  """A finished label set. Safe to share between threads; may travel to worker processes.

  Attributes:
    manifest: labels.json.
    size: Z.
    statistics: of the valid z, every frame counted once.
  """

  def __init__(self, path: str):
    """Raises `errors.UserError` when the folder holds no label set."""
    self.path, self.manifest = path, read_manifest(path)
    try:
      self.size = int(self.manifest["size"])
      self.statistics = statistics.Statistics.from_json(self.manifest["statistics"])
    except (KeyError, TypeError, ValueError) as error:
      raise errors.UserError(f"{os.path.join(path, MANIFEST)} is not the description of a label set ({error!r})") from error
    self._reader = shards.Reader(path, file_name)

  def clip(self, shard: int, record: int) -> Motions:
    """Camera -> (z float32 [T, Z], valid bool [T]) of one record. Raises `video.Unreadable` naming file and record."""
    return _motions(self._reader.clip(shard, record))

  def episode(self, table: shards.Table, rows: Sequence[int]) -> Motions:
    """Camera -> (z [L, Z], valid [L]) of a whole episode, given the rows of its clips in the table of the data."""
    return joined((int(table.start[row]), self.clip(table.shard[row], table.record[row])) for row in in_order(table, rows))


def _motions(clip: episodes.Clip) -> Motions:
  names = [name.removeprefix("z/") for name in clip.arrays if name.startswith("z/")]
  return {name: (clip.arrays[f"z/{name}"], clip.arrays[f"valid/{name}"].astype(bool)) for name in names}


def in_order(table: shards.Table, rows: Sequence[int]) -> list[int]:
  """Rows of one episode by time."""
  return sorted((int(row) for row in rows), key=lambda row: int(table.start[row]))


def joined(parts: Iterable[tuple[int, Motions]]) -> Motions:
  """Labels of an episode from those of its clips (start, motions), in order of time; frames that two clips share appear once."""
  parts = list(parts)
  first, last = parts[0][0], max((start + len(z) for start, motions in parts for z, _ in motions.values()), default=0)
  whole: Motions = {}
  for start, motions in parts:
    for name, (z, valid) in motions.items():
      to, known = whole.setdefault(name, (np.zeros((last - first, z.shape[1]), np.float32), np.zeros(last - first, bool)))
      at = start - first + np.flatnonzero(valid)
      to[at], known[at] = z[valid], True
  return whole


def write_shard(
  folder: str, shard: int, clips: Iterable[episodes.Clip], *, frames: int, facts: Mapping[str, Any], damaged: Sequence[Mapping] = ()
) -> dict[str, Any]:
  """Writes one shard's labels and, when they are in place, the sidecar that says so; returns the sidecar.

  Args:
    folder: the label set.
    shard: number of the data shard.
    clips: one for each of its records, in order.
    frames: of all its records together.
    facts: what the labels hang on, kept in the sidecar (see `finished`).
    damaged: {"record", "camera", "reason"} of the records that could not be read.
  """
  final = os.path.join(folder, file_name(shard))
  temporary = f"{final}.{os.getpid()}.tmp"
  counts = {"records": 0, "frames": int(frames), "valid": 0}
  writer = array_record_module.ArrayRecordWriter(temporary, "group_size:1,uncompressed")
  for clip in clips:
    writer.write(episodes.encode(clip))
    motions = _motions(clip)
    counts["records"] += 1
    counts["valid"] += sum(int(valid.sum()) for _, valid in motions.values())
  writer.close()
  sidecar = {"shard": int(shard), "file": os.path.basename(final), "xxh64": shards.file_hash(temporary), **counts,
             "facts": dict(facts), "damaged": [dict(one) for one in damaged]}
  os.replace(temporary, final)
  shard_writer.write_json(sidecar_path(folder, shard), sidecar)
  return sidecar


def finished(folder: str, shard: int, *, facts: Mapping[str, Any]) -> dict | None:
  """The sidecar of a shard whose labels are whole, None when they are still to be made.

  Raises:
    errors.UserError: they were made by another model, of other data or in another way; the first difference is named.
  """
  path = sidecar_path(folder, shard)
  sidecar = shard_writer.read_json(path)
  if not isinstance(sidecar, dict) or "facts" not in sidecar:
    return None
  for key, value in facts.items():
    if sidecar["facts"].get(key) != value:
      raise errors.UserError(f"{path}: these labels were made with {key} {sidecar['facts'].get(key)!r}, now it is {value!r}: "
                             "choose another folder, or --overwrite")
  file = os.path.join(folder, sidecar["file"])
  return sidecar if os.path.isfile(file) and shards.file_hash(file) == sidecar["xxh64"] else None


def write_manifest(folder: str, sidecars: Sequence[Mapping], *, table: shards.Table, **facts: Any) -> dict[str, Any]:
  """Writes labels.json from the shards' sidecars in order of shard; statistics come from the files themselves, so they do not depend
  on who wrote them and when.

  Args:
    table: of the data.
    **facts: size, queries, dims, offset_seconds, model, data, cameras.

  Raises:
    errors.UserError: no frame has a label.
  """
  reader, accumulator = shards.Reader(folder, file_name), statistics.Accumulator()
  for sidecar in sidecars:
    rows = np.flatnonzero(table.shard == sidecar["shard"])
    groups: dict[str, list[int]] = {}
    for row in rows[np.argsort(table.record[rows], kind="stable")]:
      groups.setdefault(table.episode[row], []).append(row)
    for rows in groups.values():
      parts = ((int(table.start[row]), _motions(reader.clip(table.shard[row], table.record[row]))) for row in in_order(table, rows))
      for z, valid in joined(parts).values():
        accumulator.add(z[valid])
  found = accumulator.finish()
  if found is None:
    raise errors.UserError(f"{folder}: no frame has a label: every record is damaged")
  manifest = {
    "kind": KIND,
    "version": VERSION,
    **facts,
    "statistics": found.to_json(),
    "shards": [{key: sidecar[key] for key in ("file", "xxh64", "records", "frames")} for sidecar in sidecars],
    "frames": sum(sidecar["frames"] for sidecar in sidecars),
    "valid": sum(sidecar["valid"] for sidecar in sidecars),
    "damaged": [{"shard": sidecar["shard"], **one} for sidecar in sidecars for one in sidecar["damaged"]],
  }
  shard_writer.write_json(os.path.join(folder, MANIFEST), manifest)
  return manifest


def check(path: str, *, data_path: str) -> None:
  """Refuses labels of other data.

  Args:
    path: a label set.
    data_path: shards, or the raw data that shards are made of (a LeRobot data set, a folder of videos).

  Raises:
    errors.UserError: naming both, and what is different.
  """
  manifest = read_manifest(path)
  where = f"labels {path} were extracted from {manifest['data']['path']}"
  raw = sources.detect(data_path) != "shards"
  here = sources.open_source(data_path).fingerprint() if raw else shards.read_manifest(data_path)["source"]["fingerprint"]
  if here != manifest["data"]["fingerprint"]:
    raise errors.UserError(f"{where} (fingerprint {manifest['data']['fingerprint']}), not from {data_path} (fingerprint {here}): "
                           "extract them from this data")
  if raw:
    return
  table = shards.read_table(data_path)
  for shard in np.unique(table.shard):
    rows = table.shard == shard
    mine = int(rows.sum()), int(table.length[rows].sum())
    theirs = next(((one["records"], one["frames"]) for one in manifest["shards"] if one["file"] == file_name(shard)), (0, 0))
    if theirs != mine:
      raise errors.UserError(f"{where}, whose shards are cut into other clips than those of {data_path} ({shards.shard_name(shard)} has "
                             f"{mine[0]} records and {mine[1]} frames, {theirs[0]} and {theirs[1]} are labelled): extract them from these shards")


def verify(path: str) -> list[str]:
  """One line for each file of labels that is missing or whose hash differs from labels.json."""
  problems = []
  for shard in read_manifest(path)["shards"]:
    file = os.path.join(path, shard["file"])
    if not os.path.isfile(file):
      problems.append(f"{file} is missing")
    elif shards.file_hash(file) != shard["xxh64"]:
      problems.append(f"{file} has changed since it was written (xxh64 differs)")
  return problems


def fingerprint(path: str) -> str:
  """Changes when any label does: the hash of labels.json, which holds the hash of every file."""
  read_manifest(path)
  return shards.file_hash(os.path.join(path, MANIFEST))
