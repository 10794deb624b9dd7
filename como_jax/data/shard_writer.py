"""One unit of ingest: writes consecutive episodes of a source to a shard file with its sidecar.

It runs in worker processes. An episode is fully encoded before it is written to the shard. So an
episode that is damaged at its last frame leaves no bytes in the shard.
"""

import dataclasses
import errno
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import xxhash

from como_jax import errors
from como_jax.data import episode as episodes
from como_jax.data import episode_encoder, number_file, shard_file, shards, sources, video
from como_jax.data.ingest_settings import Settings


@dataclasses.dataclass(frozen=True)
class Unit:
  """The episodes of the source for one shard.

  Attributes:
    shard: number of the shard.
    first: first episode.
    last: last episode, exclusive.
    bad: episode -> reason, of the episodes that killed a worker and are left out.
    deaths: episode -> number of workers that died at it.
  """

  shard: int
  first: int
  last: int
  bad: dict[int, str]
  deaths: dict[int, int]


@dataclasses.dataclass(frozen=True)
class Progress:
  """A message from a worker.

  Attributes:
    episode: that the worker is at.
    frames: number of frames written since the last message.
    done: whether the episode is finished.
  """

  episode: int
  frames: int = 0
  done: bool = False


@dataclasses.dataclass(frozen=True)
class WriteShard:
  """The function that workers run: it writes the shard file of a unit and its sidecar."""

  source: sources.Source
  output: str
  settings: Settings

  def __call__(self, unit: Unit, report: Callable[[Progress], None]) -> dict[str, Any]:
    """Writes a shard; returns its sidecar. `report` is called with `Progress` messages."""
    final = os.path.join(self.output, shards.shard_name(unit.shard))
    temporary = f"{final}.{os.getpid()}.tmp"
    rows, quarantine, notes, writer = [], [], [], None
    counts: dict[str, int] = {}
    for i in range(unit.first, unit.last):
      report(Progress(i))
      name = self.source.names[i]
      try:
        raw, encoded = self._encode(i, unit, report)
      except video.UnreadableError as error:
        quarantine.append({"name": name, "reason": str(error).replace("\n", " ")})
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
      index_facts = writer.close()
      sidecar |= {
        "file": os.path.basename(final),
        "xxh64": shards.file_hash(temporary),
        **index_facts,
      }
      number_file.write(shard_file.ShardFile(temporary, index_facts), number_file.path_of(final))
      os.replace(temporary, final)
    write_json(sidecar_path(self.output, unit.shard), sidecar)
    return sidecar

  def _encode(
    self, i: int, unit: Unit, report: Callable[[Progress], None]
  ) -> tuple[episodes.RawEpisode, episode_encoder.Encoded]:
    """Episode i of the source, read and encoded.

    Raises:
      video.UnreadableError: it cannot be used, whatever the reason: a bad file must not stop the
        other episodes.
      errors.UserError: raised by the source.
      OSError: the disk is full, or too many files are open.
    """
    try:
      if i in unit.bad:
        raise video.UnreadableError(unit.bad[i])
      raw = self.source[i]
      return raw, episode_encoder.encode(
        raw, self.settings, lambda frames: report(Progress(i, frames))
      )
    except (errors.UserError, video.UnreadableError):
      raise
    except Exception as error:
      if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE):
        raise
      raise video.UnreadableError(f"{type(error).__name__}: {error}") from error


def _identity(raw: episodes.RawEpisode) -> dict[str, Any]:
  """Columns of a row that depend only on its episode."""
  # The shift makes the key fit a signed 64-bit column.
  key = xxhash.xxh64_intdigest((raw.group or raw.episode).encode()) >> 1
  return {"episode": raw.episode, "group": raw.group, "split_key": key}


def sidecar_path(output: str, shard: int) -> str:
  """Path of a shard's sidecar: it exists when the shard is finished."""
  return os.path.join(output, f"shard-{shard:05d}.json")


def write_json(path: str, value: Any) -> None:
  """Writes a JSON file atomically."""
  temporary = f"{path}.{os.getpid()}.tmp"
  with open(temporary, "w", encoding="utf-8") as file:
    json.dump(value, file, indent=1, default=_plain)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def _plain(value: Any) -> Any:
  """Converts numpy values to Python values, for JSON."""
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, np.ndarray):
    return value.tolist()
  raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def read_json(path: str) -> Any:
  """Reads a JSON file; None when it is missing or incomplete."""
  try:
    with open(path, encoding="utf-8") as file:
      return json.load(file)
  except (OSError, ValueError):
    return None
