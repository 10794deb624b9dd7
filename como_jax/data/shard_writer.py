"""One unit of ingest: consecutive episodes of a source -> one shard file and its sidecar.

Runs in worker processes. An episode is encoded as a whole before a byte of it reaches the shard, so that one that turns
out to be damaged at its last frame leaves nothing behind.
"""

import collections
import dataclasses
import errno
import itertools
import json
import os
import tempfile
from typing import Any

import xxhash
from array_record.python import array_record_module

from como_jax import errors
from como_jax.data import episode as episodes
from como_jax.data import sources, video
from como_jax.data.sources import shards

_SPOOL = 1 << 28  # bytes of one episode's encoded clips kept in memory before they go to a temporary file


@dataclasses.dataclass(frozen=True)
class Settings:
  """What decides the bytes, see `run`."""

  image_size: int
  resize: str
  codec: str
  quality: int
  clip_frames: int
  clip_overlap: int
  cameras: tuple[str, ...]
  episodes_per_shard: int

  def check(self) -> "Settings":
    """Raises `errors.UserError` for a value out of range."""
    for name, valid in (("resize", ("squash", "crop", "pad")), ("codec", episodes.CODECS)):
      if getattr(self, name) not in valid:
        raise errors.UserError(f"ingest {name} {getattr(self, name)!r}: {errors.nearest(getattr(self, name), valid)}")
    limits = {
      "image_size": (0, 8192),
      "clip_frames": (1, 100_000),
      "clip_overlap": (0, self.clip_frames - 1),
      "episodes_per_shard": (1, 1_000_000),
      "quality": (1, 100) if self.codec == "jpeg" else (0, 51),
    }
    for name, (low, high) in limits.items():
      if not low <= getattr(self, name) <= high:
        raise errors.UserError(f"ingest {name} is {getattr(self, name)}, expected {low} to {high}")
    return self


@dataclasses.dataclass(frozen=True)
class Unit:
  """Episodes first to last (exclusive) of the source for one shard; `bad` and `deaths` remember episodes that killed a
  worker."""

  shard: int
  first: int
  last: int  # exclusive
  bad: dict[int, str]  # episodes that killed a worker
  deaths: dict[int, int]


@dataclasses.dataclass(frozen=True)
class Progress:
  """Reported by workers: the episode at hand, frames written since the last report, whether the episode is finished."""

  episode: int
  frames: int = 0
  done: bool = False


def _clips(raw: episodes.RawEpisode, settings: Settings):
  """Encoded clips of one episode; holds one clip (encoded) and `clip_overlap` raw frames in memory."""
  missing = [name for name in settings.cameras if name not in raw.cameras]
  if missing:
    raise video.Unreadable(f"camera {missing[0]!r} is missing")
  geometry = video.Geometry(settings.image_size, settings.resize)
  recent = collections.deque(maxlen=settings.clip_overlap or 1)
  start = total = held = 0
  encoders = None

  def finish():
    arrays = {}
    for name, array in raw.arrays.items():
      if len(array) < total:
        raise video.Unreadable(f"{total} frames but {len(array)} values of {name!r}")
      arrays[name] = array[start : start + held]
    frames = {name: encoder.finish() for name, encoder in encoders.items()}
    return episodes.Clip(raw.episode, start, raw.fps, raw.task, frames, arrays)

  streams = [raw.cameras[name](geometry) for name in settings.cameras]
  for images in itertools.zip_longest(*streams):
    if any(image is None for image in images):
      raise video.Unreadable(f"the cameras have different numbers of frames (one ends at {total})")
    if encoders is not None and held == settings.clip_frames:
      yield finish()
      encoders, start = None, total - settings.clip_overlap
    if encoders is None:
      encoders = {name: episodes.FrameEncoder(settings.codec, settings.quality) for name in settings.cameras}
      held = 0
      for before in list(recent)[-settings.clip_overlap :] if settings.clip_overlap and total else ():
        held += 1
        for name, image in zip(settings.cameras, before, strict=True):
          encoders[name].add(image)
    recent.append(images)
    for name, image in zip(settings.cameras, images, strict=True):
      encoders[name].add(image)
    total, held = total + 1, held + 1
  if encoders is None:
    raise video.Unreadable("the episode has no frame")
  yield finish()


def _spool_episode(
  source: sources.Source, i: int, settings: Settings, report
) -> tuple[Any, list[int], list[dict], list[str]]:
  """Encodes a whole episode before a byte of it reaches the shard: (file of blobs, their sizes, rows, notes)."""
  raw = source[i]
  if not raw.fps > 0:
    raise video.Unreadable(f"frame rate {raw.fps}")
  spool, sizes, rows = tempfile.SpooledTemporaryFile(max_size=_SPOOL), [], []
  key = xxhash.xxh64_intdigest((raw.group or raw.episode).encode()) >> 1  # fits a signed 64-bit column
  for clip in _clips(raw, settings):
    blob = episodes.encode(clip)
    spool.write(blob)
    sizes.append(len(blob))
    rows.append(
      {
        "episode": clip.episode,
        "start": clip.start,
        "length": len(clip),
        "fps": float(clip.fps),
        "task": clip.task,
        "cameras": list(clip.frames),
        "has_action": "action" in clip.arrays,
        "split_key": key,
        "dims": {name: int(clip.arrays[name].shape[1]) for name in ("action", "state") if name in clip.arrays},
      }
    )
    report(Progress(i, len(clip)))
  spool.seek(0)
  return spool, sizes, rows, list(raw.notes)


@dataclasses.dataclass(frozen=True)
class WriteShard:
  """The function run in workers: one unit -> one shard file and its sidecar."""

  source: sources.Source
  output: str
  settings: Settings

  def __call__(self, unit: Unit, report) -> dict:
    final = os.path.join(self.output, shards.shard_name(unit.shard))
    temporary = f"{final}.{os.getpid()}.tmp"
    rows, quarantine, notes, writer = [], [], [], None
    for i in range(unit.first, unit.last):
      report(Progress(i))
      name = self.source.names[i]
      try:
        if i in unit.bad:
          raise video.Unreadable(unit.bad[i])
        spool, sizes, new, remarks = _spool_episode(self.source, i, self.settings, report)
      except errors.UserError:
        raise
      except Exception as error:  # pylint: disable=broad-exception-caught  (no file may stop the rest)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE):
          raise
        reason = str(error) if isinstance(error, video.Unreadable) else f"{type(error).__name__}: {error}"
        quarantine.append({"name": name, "reason": reason.replace("\n", " ")})
        report(Progress(i, done=True))
        continue
      with spool:
        writer = writer or array_record_module.ArrayRecordWriter(temporary, "group_size:1,uncompressed")
        for size, row in zip(sizes, new, strict=True):
          writer.write(spool.read(size))
          rows.append({**row, "shard": unit.shard, "record": len(rows)})
      notes.extend({"name": name, "note": remark} for remark in remarks)
      report(Progress(i, done=True))
    sidecar = {"shard": unit.shard, "rows": rows, "quarantine": quarantine, "notes": notes, "file": None}
    if writer is not None:
      writer.close()
      sidecar |= {"file": os.path.basename(final), "xxh64": shards.file_hash(temporary)}
      os.replace(temporary, final)
    write_json(sidecar_path(self.output, unit.shard), sidecar)
    return sidecar


def sidecar_path(output: str, shard: int) -> str:
  """The file whose existence says that a shard is finished."""
  return os.path.join(output, f"shard-{shard:05d}.json")


def write_json(path: str, value: Any) -> None:
  """Writes a file at once or not at all."""
  temporary = f"{path}.{os.getpid()}.tmp"
  with open(temporary, "w", encoding="utf-8") as file:
    json.dump(value, file, indent=1)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def read_json(path: str) -> Any:
  """None when the file is missing or torn."""
  try:
    with open(path, encoding="utf-8") as file:
      return json.load(file)
  except (OSError, ValueError):
    return None
