"""Our own shards: ArrayRecord files of clips, a manifest and a table of records."""

import dataclasses
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow.parquet as pq
import xxhash
from array_record.python import array_record_module

from como_jax import errors
from como_jax.data import episode, video

MANIFEST = "manifest.json"
RECORDS = "records.parquet"
KIND = "como_jax shards"
VERSION = 1
_OPEN_FILES = 256  # readers kept open in a process; the usual limit on open files is 1024


def shard_name(shard: int) -> str:
  return f"shard-{shard:05d}.array_record"


def read_manifest(path: str) -> dict:
  """The checked manifest of a folder of shards. Raises `errors.UserError`."""
  file = os.path.join(path, MANIFEST)
  if not os.path.isfile(file):
    raise errors.UserError(
      f"{path} is not a finished folder of como_jax shards: {MANIFEST} is missing (run ingest first)"
    )
  try:
    with open(file, encoding="utf-8") as stream:
      manifest = json.load(stream)
    kind, version = manifest["kind"], manifest["version"]
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UserError(f"{file} is not a manifest of como_jax shards ({error})") from error
  if kind != KIND:
    raise errors.UserError(f"{file} is of kind {kind!r}, expected {KIND!r}")
  if version > VERSION:
    raise errors.UserError(f"{file} has version {version}, this program reads up to {VERSION}: update como_jax")
  return manifest


def file_hash(path: str) -> str:
  """xxh64 of a file."""
  digest = xxhash.xxh64()
  with open(path, "rb") as file:
    while block := file.read(1 << 20):
      digest.update(block)
  return digest.hexdigest()


def verify(path: str) -> list[str]:
  """One line for each shard that is missing or whose hash differs from the manifest."""
  problems = []
  for shard in read_manifest(path)["shards"]:
    file = os.path.join(path, shard["file"])
    if not os.path.isfile(file):
      problems.append(f"{file} is missing")
    elif file_hash(file) != shard["xxh64"]:
      problems.append(f"{file} has changed since it was written (xxh64 differs)")
  return problems


@dataclasses.dataclass(frozen=True)
class Table:
  """records.parquet in numpy, one row a clip: `cameras[r]` are names; `start`, `length` in frames; `fps` per second."""

  shard: np.ndarray
  record: np.ndarray
  episode: np.ndarray
  start: np.ndarray
  length: np.ndarray
  fps: np.ndarray
  task: np.ndarray
  cameras: list[tuple[str, ...]]
  has_action: np.ndarray
  split_key: np.ndarray

  def __len__(self) -> int:
    return len(self.shard)


def read_table(path: str) -> Table:
  """Reads records.parquet. Raises `errors.UserError`."""
  file = os.path.join(path, RECORDS)
  try:
    columns = pq.read_table(file).to_pydict()
    cameras = [tuple(names) for names in columns.pop("cameras")]
    strings = {name: np.asarray(columns.pop(name), dtype=object) for name in ("episode", "task")}
    return Table(cameras=cameras, **strings, **{name: np.asarray(values) for name, values in columns.items()})
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise errors.UserError(f"{file} is not the record table of como_jax shards ({error})") from error


class Reader:
  """Clips by (shard, record). Safe to share between threads; opens its files anew after it travelled to another
  process. `name` gives the file name of a shard."""

  def __init__(self, path: str, name: Callable[[int], str] = shard_name):
    self.__setstate__({"_path": path, "_name": name})

  def __getstate__(self):
    return {"_path": self._path, "_name": self._name}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._files, self._lock = OrderedDict(), threading.Lock()

  def _open(self, shard: int) -> array_record_module.ArrayRecordReader:
    with self._lock:
      if shard not in self._files:
        path = os.path.join(self._path, self._name(shard))
        self._files[shard] = array_record_module.ArrayRecordReader(path, options="readahead_buffer_size:0")
        if len(self._files) > _OPEN_FILES:
          self._files.popitem(last=False)  # closed when the last thread using it lets go
      self._files.move_to_end(shard)
      return self._files[shard]

  def clip(self, shard: int, record: int) -> episode.Clip:
    """One clip. Raises `video.Unreadable` naming the file and the record."""
    where = f"{os.path.join(self._path, self._name(shard))} record {record}"
    try:
      return episode.decode(self._open(shard).read([int(record)])[0])
    except errors.UserError as error:
      raise errors.UserError(f"{where}: {error}") from error
    except (RuntimeError, ValueError, IndexError, OSError, video.Unreadable) as error:
      raise video.Unreadable(f"{where}: {str(error).splitlines()[0] if str(error) else error!r}") from error


class Shards:
  """Shards as a source, to ingest them again at another size, codec or clip length."""

  def __init__(self, path: str):
    self._path, self._reader = path, Reader(path)
    manifest, table = read_manifest(path), read_table(path)
    self._rows: dict[str, list[tuple[int, int, int]]] = {}
    for row in range(len(table)):
      place = (int(table.start[row]), int(table.shard[row]), int(table.record[row]))
      self._rows.setdefault(table.episode[row], []).append(place)
    self.names = tuple(self._rows)
    self.cameras = tuple(manifest["cameras"])
    self.info = {
      "format": "shards",
      "description": f"como_jax shards of {manifest['source']['description']}",
      "action_names": manifest["action"]["names"],
      "state_names": manifest["state"]["names"],
    }

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, i: int) -> episode.RawEpisode:
    rows = sorted(self._rows[self.names[i]])
    pieces: dict[str, list[np.ndarray]] = {}
    end = 0
    for start, shard, record in rows:
      clip = self._reader.clip(shard, record)
      for name, array in clip.arrays.items():
        pieces.setdefault(name, []).append(array[end - start :])
      end = start + len(clip)
    cameras = {name: (lambda geometry, name=name: self._frames(rows, name, geometry)) for name in clip.frames}
    arrays = {name: np.concatenate(parts) for name, parts in pieces.items()}
    return episode.RawEpisode(clip.episode, clip.fps, clip.task, cameras, arrays)

  def fingerprint(self) -> str:
    return episode.fingerprint(self._path, [MANIFEST, RECORDS])

  def _frames(self, rows, camera: str, geometry: video.Geometry) -> Iterator[np.ndarray]:
    end = 0
    for start, shard, record in rows:
      frames = self._reader.clip(shard, record).frames[camera]
      for i in range(end - start, frames.count):
        yield geometry.apply(frames.decode([i], to=geometry.inner(frames.height, frames.width))[0])
      end = start + frames.count
