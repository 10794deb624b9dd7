"""A label set: the latent motion of every frame of a folder of shards.

  labels.json
      the manifest: model, data, offset, counts, statistics of z, the files with their checksums
  records.parquet
      the table of the clips, a copy of the data's table: episodes, times, instructions
  labels-00000.labels
      clip c belongs to clip c of shard-00000.shard; a shard file (`data.shard_file`) without frames
  labels-00000.json
      the sidecar: says that labels-00000.labels is finished, and which frames could not be read
  labels-00000.checksums
      those of blocks of labels, for the index (`data.number_file`); older label sets lack it

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
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash

from como_jax import errors
from como_jax.data import reader, shard_writer, shards, sources, statistics, video

MANIFEST = "labels.json"
KIND = "como_jax labels"
VERSION = 2


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
  if manifest.get("checksum") != checksum(manifest):
    raise errors.UserError(
      f"{file} has changed since it was written (its checksum differs): extract the labels again"
    )
  return manifest


def checksum(manifest: Mapping[str, Any]) -> str:
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
      self._files = reader.ShardFiles(path, self.manifest["shards"])  # with facts of whole clips
      self._rows_of = reader.open_shards(path, self.manifest)
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

    Raises `video.UnreadableError` naming file and clip.
    """
    file, motions = self._rows_of[shard], {}
    for camera in cameras or self.cameras:
      z = file.array(int(clip), f"z/{camera}")
      if z is not None:
        valid = required(file, clip, f"valid/{camera}").astype(bool)
        motions[camera] = Motion(z, valid, required(file, clip, f"difference/{camera}"))
    return motions

  def valid(self, shard: int, clip: int, camera: str) -> np.ndarray:
    """Bool [T] of a clip: the `valid` of its `Motion`. Raises `video.UnreadableError`."""
    file, name = self._files[shard], f"valid/{camera}"
    return (
      file.frame_fact(clip, name)
      if f"frame/{name}" in file.index
      else required(file, clip, name).astype(bool)
    )

  def z(self, shard: int, clip: int, camera: str) -> np.ndarray:
    """float32 [T, Z] of a clip: the `z` of its `Motion`. Raises `video.UnreadableError`."""
    return required(self._rows_of[shard], clip, f"z/{camera}")

  def length(self, shard: int, clip: int) -> int:
    """T, number of frames of a clip. Raises `video.UnreadableError`."""
    return self._rows_of[shard].length(int(clip))

  def frames(
    self, shard: int, clip: int, camera: str, numbers: Sequence[int]
  ) -> tuple[np.ndarray, np.ndarray]:
    """Labels of n frames of a clip; only the rows from the first to the last one are read.

    Args:
      shard: number of the shard.
      clip: number of the clip.
      camera: a labeled camera.
      numbers: of the frames within the clip, [n].

    Returns:
      (z float32 [n, Z], valid bool [n]).

    Raises:
      video.UnreadableError: they are damaged, or the clip has none. The message names the file.
    """
    file, first = self._rows_of[shard], min(numbers)
    z, valid = (
      _found(file, clip, name, file.array_rows(int(clip), name, first, max(numbers) + 1))
      for name in (f"z/{camera}", f"valid/{camera}")
    )
    at = np.asarray(numbers, np.int64) - first
    return z[at], valid[at].astype(bool)

  def moments(self, shard: int, clip: int, camera: str) -> np.ndarray | None:
    """`statistics.moments` of the valid z of a clip, None when the file does not have them.

    Raises `video.UnreadableError`.
    """
    column = self._files[shard].index.get(f"statistics/z/{camera}")
    return None if column is None else column[:, clip * self.size : (clip + 1) * self.size]

  def episode(self, name: str) -> dict[str, TimedMotion]:
    """Times and labels of all stored frames of an episode, by camera, in order of time.

    Raises:
      errors.UserError: there is no episode of this name.
      video.UnreadableError: its labels are damaged.
    """
    if name not in self._rows:
      raise errors.UserError(
        f"{self.path}: episode {name!r} does not exist: {errors.nearest(name, self._rows)}"
      )
    rows = sorted(self._rows[name], key=lambda row: int(self.table.start[row]))
    seconds = self._seconds(rows)
    clips = [self.clip(int(self.table.shard[row]), int(self.table.clip[row])) for row in rows]
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
      [self.table.start[row] + np.arange(int(self.table.length[row])) for row in rows]
    )

  def _seconds(self, rows: Sequence[int]) -> np.ndarray:
    table = self.table
    varying = np.array([row for row in rows if not table.uniform[row]], np.int64)
    explicit = table.explicit_times(varying) if len(varying) else {}
    return np.concatenate(
      [
        explicit[row]
        if row in explicit
        else table.times(row).seconds_at(np.arange(int(table.length[row])))
        for row in rows
      ]
    )


def required(file: reader.Shard, clip: int, name: str) -> np.ndarray:
  """An array of a clip. Raises `video.UnreadableError` when the clip does not have it."""
  return _found(file, clip, name, file.array(clip, name))


def _found(file: reader.Shard, clip: int, name: str, array: np.ndarray | None) -> np.ndarray:
  if array is None:
    raise video.UnreadableError(f"{file.path} clip {clip} has no array {name!r}")
  return array


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
    # The rate, which some formats need, is not a part of the fingerprint.
    sources.open_source(data_path, options=sources.SourceOptions(frame_rate=1.0)).fingerprint()
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
