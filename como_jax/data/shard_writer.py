"""One unit of ingest: consecutive episodes of a source -> one shard file and its sidecar.

Runs in worker processes. An episode is encoded as a whole before a byte of it reaches the shard, so
that one that turns out to be damaged at its last frame leaves nothing behind.
"""

import dataclasses
import errno
import json
import os
from typing import Any

import numpy as np
import xxhash

from como_jax import errors
from como_jax.data import episode_encoder, shard_file, shards, sources, video


@dataclasses.dataclass(frozen=True)
class Unit:
  """Episodes first to last (exclusive) of the source for one shard; `bad` and `deaths` remember
  episodes that killed a worker.
  """

  shard: int
  first: int
  last: int  # exclusive
  bad: dict[int, str]  # episodes that killed a worker
  deaths: dict[int, int]


@dataclasses.dataclass(frozen=True)
class Progress:
  """Reported by workers: the episode at hand, frames written since the last report, whether the
  episode is finished.
  """

  episode: int
  frames: int = 0
  done: bool = False


@dataclasses.dataclass(frozen=True)
class WriteShard:
  """The function run in workers: one unit -> one shard file and its sidecar."""

  source: sources.Source
  output: str
  settings: episode_encoder.Settings

  def __call__(self, unit: Unit, report) -> dict:
    final = os.path.join(self.output, shards.shard_name(unit.shard))
    temporary = f"{final}.{os.getpid()}.tmp"
    rows, quarantine, notes, writer = [], [], [], None
    counts: dict[str, int] = {}
    for i in range(unit.first, unit.last):
      report(Progress(i))
      name = self.source.names[i]
      try:
        if i in unit.bad:
          raise video.Unreadable(unit.bad[i])
        raw = self.source[i]
        encoded = episode_encoder.encode(
          raw, self.settings, lambda frames, i=i: report(Progress(i, frames))
        )
      except errors.UserError:
        raise
      except Exception as error:  # no file may stop the rest
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE):
          raise
        reason = (
          str(error) if isinstance(error, video.Unreadable) else f"{type(error).__name__}: {error}"
        )
        quarantine.append({"name": name, "reason": reason.replace("\n", " ")})
        report(Progress(i, done=True))
        continue
      with encoded:
        writer = writer or shard_file.Writer(temporary)
        for clip, row in encoded.clips():
          writer.add(clip)
          rows.append({**row, **_identity(raw), "shard": unit.shard, "clip": len(rows)})
      for reason, frames in encoded.counts.items():
        counts[reason] = counts.get(reason, 0) + frames
      notes.extend(
        {"name": name, "note": note} for note in dict.fromkeys([*raw.notes, *encoded.notes])
      )
      report(Progress(i, done=True))
    sidecar = {
      "shard": unit.shard,
      "rows": rows,
      "quarantine": quarantine,
      "notes": notes,
      "frames": counts,
      "file": None,
    }
    if writer is not None:
      place = writer.close()
      sidecar |= {"file": os.path.basename(final), "xxh64": shards.file_hash(temporary), **place}
      os.replace(temporary, final)
    write_json(sidecar_path(self.output, unit.shard), sidecar)
    return sidecar


def _identity(raw) -> dict[str, Any]:
  """Columns of a row that are those of its episode."""
  # fits a signed 64-bit column
  key = xxhash.xxh64_intdigest((raw.group or raw.episode).encode()) >> 1
  return {"episode": raw.episode, "group": raw.group, "split_key": key}


def sidecar_path(output: str, shard: int) -> str:
  """The file whose existence says that a shard is finished."""
  return os.path.join(output, f"shard-{shard:05d}.json")


def write_json(path: str, value: Any) -> None:
  """Writes a file at once or not at all."""
  temporary = f"{path}.{os.getpid()}.tmp"
  with open(temporary, "w", encoding="utf-8") as file:
    json.dump(value, file, indent=1, default=_plain)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def _plain(value: Any) -> Any:
  """Numpy's numbers as JSON ones."""
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, np.ndarray):
    return value.tolist()
  raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def read_json(path: str) -> Any:
  """None when the file is missing or torn."""
  try:
    with open(path, encoding="utf-8") as file:
      return json.load(file)
  except (OSError, ValueError):
    return None
