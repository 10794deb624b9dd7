"""A label set: the latent motion of every frame of a folder of shards.

  labels.json
      the manifest: model, data, offset, counts, statistics of z, the files with their checksums
  records.parquet
      the table of the clips, a copy of the data's table: episodes, times, instructions
  labels-00000.labels
      clip c belongs to clip c of shard-00000.shard; a shard file (`data.shard_file`) without frames
  labels-00000.json
      the sidecar: says that labels-00000.labels is finished, and which frames could not be read

Each clip has these arrays for each labeled camera: "z/<camera>" float32 [T, Z], "valid/<camera>"
uint8 [T] and "difference/<camera>" float32 [T]. z[t] is the motion from frame t to its partner: the
frame nearest to `offset_seconds` later (`data.times`), possibly in the next clip. difference[t] is
the true time between the two in seconds. All three are 0 where there is no partner, or where one of
the two frames cannot be read. The index of a file also has "frame/valid/<camera>", a copy of
"valid/<camera>", and "statistics/z/<camera>", the `statistics.moments` of the valid z of each clip
(0 where there is none). Files of older versions of this program have neither.

To read one (seconds float64 [L], z float32 [L, Z], valid bool [L], difference float32 [L]):

>>> motions = Labels("runs/labels")
>>> for camera, (seconds, z, valid, difference) in motions.episode("robot.mp4").items():
...   print(camera, z.shape, valid.sum())
camera (63, 32) 57

Legend: T frames of a clip, L frames of an episode, Z numbers of one latent motion.
"""

import functools
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash

from como_jax import errors
from como_jax.data import reader, shard_file, shard_writer, shards, sources, statistics

MANIFEST = "labels.json"
KIND = "como_jax labels"
VERSION = 2
_COUNTS = ("frames", "valid", "left_out", "at_end", "unreadable")


class Motion(NamedTuple):
  """Labels of T frames: z float32 [T, Z], valid bool [T], difference float32 [T] in seconds."""

  z: np.ndarray
  valid: np.ndarray
  difference: np.ndarray


class TimedMotion(NamedTuple):
  """Times (seconds, float64 [L]) and labels of all L frames of an episode, for one camera."""

  seconds: np.ndarray
  z: np.ndarray
  valid: np.ndarray
  difference: np.ndarray


Motions = dict[str, Motion]  # by camera


def file_name(shard: int) -> str:
  """Name of the file with the labels of a shard."""
  return f"labels-{shard:05d}.labels"


def sidecar_path(folder: str, shard: int) -> str:
  """Path of a shard's sidecar: it exists when the shard's labels are finished."""
  return os.path.join(folder, f"labels-{shard:05d}.json")


def read_manifest(path: str) -> dict[str, Any]:
  """Reads and checks the labels.json of a folder. Raises `errors.UserError`."""
  file = os.path.join(path, MANIFEST)
  if not os.path.isfile(file):
    raise errors.UserError(
      f"{path} is not a finished label set: {MANIFEST} is missing (configs/extract.py writes it)"
    )
  manifest = shard_writer.read_json(file)
  if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
    raise errors.UserError(f"{file} is not the description of a label set: expected kind {KIND!r}")
  version = manifest.get("version")
  if not isinstance(version, int) or version > VERSION:
    raise errors.UserError(
      f"{file} has version {version}, this program reads version {VERSION}: update como_jax"
    )
  if version < VERSION:
    raise errors.UserError(
      f"{file} has version {version}, this program reads version {VERSION}: extract them again "
      "(configs/extract.py)"
    )
  if manifest.get("checksum") != _checksum(manifest):
    raise errors.UserError(
      f"{file} has changed since it was written (its checksum differs): extract the labels again"
    )
  return manifest


def _checksum(manifest: Mapping[str, Any]) -> str:
  """Hash of everything in labels.json except the checksum itself.

  It finds edited statistics, which would silently change what a policy learns.
  """
  rest = {key: value for key, value in manifest.items() if key != "checksum"}
  return xxhash.xxh64_hexdigest(json.dumps(rest, sort_keys=True).encode())


class Labels:
  """A finished label set. Safe to share between threads; may be pickled.

  Attributes:
    manifest: content of labels.json.
    size: Z.
    cameras: names of the cameras that have labels.
    statistics: statistics of the valid z of all frames.
  """

  def __init__(self, path: str):
    """Opens the label set in a folder. Raises `errors.UserError` when there is none."""
    self.path, self.manifest = path, read_manifest(path)
    try:
      self.size = int(self.manifest["size"])
      self.cameras = tuple(self.manifest["cameras"])
      self.statistics = statistics.Statistics.from_json(self.manifest["statistics"])
      self._files = reader.ShardCache(path, self.manifest["shards"])
    except (KeyError, TypeError, ValueError) as error:
      raise errors.UserError(
        f"{os.path.join(path, MANIFEST)} is not the description of a label set ({error!r})"
      ) from error

  def __getstate__(self):
    return {key: value for key, value in self.__dict__.items() if key not in ("table", "_rows")}

  @functools.cached_property
  def table(self) -> shards.Table:
    """The clips of the data."""
    return shards.read_table(self.path, cameras=tuple(self.manifest["data"]["cameras"]))

  @property
  def episodes(self) -> tuple[str, ...]:
    """Names of all episodes of the data."""
    return tuple(self._rows)

  @functools.cached_property
  def _rows(self) -> dict[str, np.ndarray]:
    """Rows of the table by name of the episode."""
    episode_ids, first = np.unique(self.table.episode, return_index=True)
    return {
      self.table.episodes[episode_id]: rows
      for episode_id, rows in
      # The table is sorted by episode.
      zip(episode_ids, np.split(np.arange(len(self.table)), first[1:]), strict=True)
    }

  def clip(self, shard: int, clip: int, cameras: Sequence[str] = ()) -> Motions:
    """Labels of the T frames of a clip by camera; () = all labeled cameras.

    Raises `video.Unreadable` naming file and clip.
    """
    file, motions = self._files[shard], {}
    for camera in cameras or self.cameras:
      z, valid, difference = (
        file.array(int(clip), f"{name}/{camera}") for name in ("z", "valid", "difference")
      )
      if z is not None:
        motions[camera] = Motion(z, valid.astype(bool), difference)
    return motions

  def valid(self, shard: int, clip: int, camera: str) -> np.ndarray:
    """Bool [T] of a clip: the `valid` of its `Motion`. Raises `video.Unreadable`."""
    file, name = self._files[shard], f"valid/{camera}"
    return (
      file.frame_fact(clip, name)
      if f"frame/{name}" in file.index
      else file.array(clip, name).astype(bool)
    )

  def z(self, shard: int, clip: int, camera: str) -> np.ndarray:
    """float32 [T, Z] of a clip: the `z` of its `Motion`. Raises `video.Unreadable`."""
    return self._files[shard].array(clip, f"z/{camera}")

  def moments(self, shard: int, clip: int, camera: str) -> np.ndarray | None:
    """`statistics.moments` of the valid z of a clip, None when the file does not have them.

    Raises `video.Unreadable`.
    """
    column = self._files[shard].index.get(f"statistics/z/{camera}")
    return None if column is None else column[:, clip * self.size : (clip + 1) * self.size]

  def episode(self, name: str) -> dict[str, TimedMotion]:
    """Times and labels of all stored frames of an episode, by camera, in order of time.

    Raises:
      errors.UserError: there is no episode of this name.
      video.Unreadable: its labels are damaged.
    """
    if name not in self._rows:
      raise errors.UserError(
        f"{self.path}: episode {name!r} does not exist: {errors.nearest(name, self._rows)}"
      )
    rows = sorted(self._rows[name], key=lambda row: int(self.table.start[row]))
    seconds = self._seconds(rows)
    clips = [self.clip(self.table.shard[row], self.table.clip[row]) for row in rows]
    return {
      camera: TimedMotion(
        seconds,
        *(np.concatenate(parts) for parts in zip(*(clip[camera] for clip in clips), strict=True)),
      )
      for camera in self.cameras
      if all(camera in clip for clip in clips)
    }

  def frame_numbers(self, name: str) -> np.ndarray:
    """Frame numbers within the episode, int64 [L]; frames that the data left out are missing."""
    rows = sorted(self._rows[name], key=lambda row: int(self.table.start[row]))
    return np.concatenate(
      [self.table.start[row] + np.arange(self.table.length[row]) for row in rows]
    )

  def _seconds(self, rows: Sequence[int]) -> np.ndarray:
    table = self.table
    varying = np.array([row for row in rows if not table.uniform[row]], np.int64)
    explicit = table.explicit_times(varying) if len(varying) else {}
    return np.concatenate(
      [
        explicit[row] if row in explicit else table.times(row).at(np.arange(table.length[row]))
        for row in rows
      ]
    )


def write_shard(
  folder: str,
  shard: int,
  clips: Iterable[tuple[int, Motions]],
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
  final = os.path.join(folder, file_name(shard))
  temporary = f"{final}.{os.getpid()}.tmp"
  counts, labeled = dict.fromkeys(("clips", "frames", "valid"), 0), 0
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
      counts["valid"] += int(motion.valid.sum())
      labeled += len(motion.valid)
    length = len(next(iter(motions.values())).valid)
    writer.add(shard_file.Clip(int(start), length, {}, arrays, frame_facts, moments))
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
    "facts": dict(facts),
    "damaged": [dict(clip) for clip in damaged],
  }
  os.replace(temporary, final)
  shard_writer.write_json(sidecar_path(folder, shard), sidecar)
  return sidecar


def finished(folder: str, shard: int, *, facts: Mapping[str, Any]) -> dict | None:
  """The sidecar of a shard whose labels are complete, None when they must still be made.

  Raises:
    errors.UserError: they were made with other `facts` (model, data or settings), as passed to
      `write_shard`. The message names the first difference.
  """
  path = sidecar_path(folder, shard)
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
  return sidecar if os.path.isfile(file) and shards.file_hash(file) == sidecar["xxh64"] else None


def write_manifest(
  folder: str,
  sidecars: Sequence[Mapping],
  *,
  data_shards: str,
  data: Mapping[str, Any],
  **facts: Any,
) -> dict[str, Any]:
  """Writes records.parquet and labels.json; returns the content of labels.json.

  The statistics are computed from the label files, so they do not depend on who wrote them or when.

  Args:
    folder: the label set.
    sidecars: of all shards, in order of shard.
    data_shards: folder of the shards that were labeled.
    data: path and fingerprint of the data.
    **facts: size, queries, dims, offset_seconds, model, cameras.

  Raises:
    errors.UserError: no frame has a label.
  """
  accumulator = statistics.Accumulator()
  for sidecar in sidecars:
    file = shard_file.ShardFile(os.path.join(folder, sidecar["file"]), sidecar)
    for clip in range(len(file)):
      for camera in facts["cameras"]:
        accumulator.add(
          file.array(clip, f"z/{camera}")[file.array(clip, f"valid/{camera}").astype(bool)]
        )
  z_statistics = accumulator.finish()
  if z_statistics is None:
    raise errors.UserError(f"{folder}: no frame has a label: every clip is damaged")
  records = os.path.join(folder, shards.RECORDS)
  shutil.copyfile(os.path.join(data_shards, shards.RECORDS), f"{records}.tmp")
  os.replace(f"{records}.tmp", records)
  keys = ("shard", "file", "xxh64", "index_offset", "index_size", "index_xxh64", "clips", "frames")
  manifest = {
    "kind": KIND,
    "version": VERSION,
    **facts,
    "data": {
      **data,
      "cameras": shards.read_manifest(data_shards)["cameras"],
      "layout": layout(shards.read_table(data_shards)),
    },
    "statistics": z_statistics.to_json(),
    "records_xxh64": shards.file_hash(records),
    "shards": [{key: sidecar[key] for key in keys} for sidecar in sidecars],
    **{key: sum(sidecar[key] for sidecar in sidecars) for key in _COUNTS},
    "damaged": [
      {"shard": sidecar["shard"], **entry} for sidecar in sidecars for entry in sidecar["damaged"]
    ],
  }
  manifest["checksum"] = _checksum(json.loads(json.dumps(manifest)))
  shard_writer.write_json(os.path.join(folder, MANIFEST), manifest)
  return manifest


def layout(table: shards.Table) -> str:
  """Hash of how a data set is divided into shards and clips."""
  columns = np.stack([table.shard, table.clip, table.start, table.length], 1).astype("<i8")
  return xxhash.xxh64_hexdigest(columns[np.lexsort((columns[:, 1], columns[:, 0]))].tobytes())


def check(path: str, *, data_path: str) -> None:
  """Checks that labels belong to a data set.

  Args:
    path: a label set.
    data_path: shards, or the raw data that the shards are made from (a LeRobot data set, a folder
      of videos).

  Raises:
    errors.UserError: the labels are of other data. The message names both, and the difference.
  """
  manifest = read_manifest(path)
  where = f"labels {path} were extracted from {manifest['data']['path']}"
  raw = sources.detect(data_path) != "shards"
  data_fingerprint = (
    sources.open_source(data_path).fingerprint()
    if raw
    else shards.read_manifest(data_path)["source"]["fingerprint"]
  )
  if data_fingerprint != manifest["data"]["fingerprint"]:
    raise errors.UserError(
      f"{where} (fingerprint {manifest['data']['fingerprint']}), not from {data_path} "
      f"(fingerprint {data_fingerprint}): extract them from this data"
    )
  if not raw and layout(shards.read_table(data_path)) != manifest["data"]["layout"]:
    raise errors.UserError(
      f"{where}, whose shards are cut into other clips than those of {data_path}: extract them "
      "from these shards"
    )


def verify(path: str) -> list[str]:
  """One line for each file of a label set that is missing, or has another hash than listed."""
  problems, manifest = [], read_manifest(path)
  for name, xxh64 in [
    (shards.RECORDS, manifest["records_xxh64"]),
    *((shard["file"], shard["xxh64"]) for shard in manifest["shards"]),
  ]:
    file = os.path.join(path, name)
    if not os.path.isfile(file):
      problems.append(f"{file} is missing")
    elif shards.file_hash(file) != xxh64:
      problems.append(f"{file} has changed since it was written (xxh64 differs)")
  return problems


def fingerprint(path: str) -> str:
  """Hash of labels.json. It changes with any label: labels.json has the hash of every file."""
  read_manifest(path)
  return shards.file_hash(os.path.join(path, MANIFEST))
