"""Converts any source into como_jax shards: parallel, resumable and deterministic.

A unit of work is one shard: `episodes_per_shard` consecutive episodes of the source. The shard and
a sidecar JSON file that describes it are written into a staging folder and moved. A rerun skips
units that have a sidecar. Several processes, on any number of hosts that share the output folder,
take units by leases (`units.folder`); the last one writes the manifest. The bytes of the shards
depend only on the source and the settings, not on the number of processes and workers or on
interruptions. Episodes that cannot be read are listed in a quarantine.
"""

import dataclasses
import itertools
import json
import os
import sys
import time
from typing import Any

import tqdm
import xxhash

from como_jax import errors
from como_jax.data import (
  ingest_manifest,
  ingest_share,
  locks,
  read_options,
  shard_writer,
  shards,
  sources,
  video,
)
from como_jax.data import workers as processes
from como_jax.data.ingest_settings import Settings, StorageOptions
from como_jax.data.sources import parts
from como_jax.units import beam
from como_jax.units import folder as shared

SETTINGS = "settings.json"
LEASE = 60.0  # seconds
# An episode is quarantined when a worker dies at it twice (once may be a kill from outside).
_ATTEMPTS = 2


@dataclasses.dataclass(frozen=True)
class Summary:
  """The result of an ingest: its folder, its manifest, and the duration of this run in seconds."""

  path: str
  manifest: dict[str, Any]
  seconds: float

  def __getattr__(self, name: str) -> Any:
    """Counts of the manifest (episodes, clips, frames) by name."""
    counts = self.__dict__.get("manifest", {}).get("counts", {})
    if name in counts:
      return counts[name]
    raise AttributeError(name)

  @property
  def quarantined(self) -> list[dict[str, str]]:
    """{"name", "reason"} of the episodes that cannot be used."""
    return self.manifest["quarantine"]

  @property
  def notes(self) -> list[dict[str, str]]:
    """{"name", "note"} of each remark about an episode."""
    return self.manifest["notes"]


def _prepare(output: str, settings: Settings, source: sources.Source) -> None:
  """Prepares the output folder.

  Raises `errors.UserError` when it was begun with another source or other settings.
  """
  record = {
    "kind": "como_jax ingest",
    "version": shards.VERSION,
    "source": source.fingerprint(),
    "path": source.info.get("path", ""),
    "description": source.info["description"],
    **json.loads(json.dumps(settings.stored())),
  }
  path = os.path.join(output, SETTINGS)
  if os.path.isfile(path):
    before = shard_writer.read_json(path) or {}
    if before.get("version") != record["version"]:
      raise errors.UserError(
        f"{output} was begun by another version of como_jax (format {before.get('version')}, now "
        f"{shards.VERSION}): choose a new folder or delete it"
      )
    if before.get("source") != record["source"]:
      same = record["path"] and before.get("path") == record["path"]
      raise errors.UserError(
        f"{output} holds shards of "
        + (
          f"{_source_text(before)}, whose files have changed since ({record['description']} now)"
          if same
          else f"another source: of {_source_text(before)}, and not of {_source_text(record)}"
        )
        + ": choose a new folder or delete it"
      )
    different = [
      f"{key} was {before.get(key)!r} and is now {record.get(key)!r}"
      for key in dict.fromkeys([*record, "unit_frames"])
      if before.get(key) != record.get(key) and key != "path"
    ]
    if different:
      raise errors.UserError(
        f"{output} holds shards made with other settings: {'; '.join(different)}. Choose a new "
        "folder or delete it"
      )
  else:
    surplus = [name for name in os.listdir(output) if not name.startswith(".")]
    if surplus:
      raise errors.UserError(
        f"output folder {output} is not empty and was not begun by ingest (it holds "
        f"{sorted(surplus)[0]})"
      )
    shard_writer.write_json(path, record)


def _source_text(record: dict) -> str:
  """Text that names a source, from the record that `_prepare` stores."""
  return f"{record.get('path') or 'a source'} ({record.get('description')})"


@dataclasses.dataclass(frozen=True)
class Work:
  """How an ingest is done; the shards do not depend on it.

  Attributes:
    workers: number of processes; 0 = this process, -1 = one per available core. With 0, a crash of
      a native decoder ends the run.
    progress: whether to show a progress bar.
    lease_seconds: how long the lease of a shard lasts when its process is stopped or lost. Then
      another process that shares the work writes the shard.
    runner: "" = processes with leases, "beam" = Apache Beam.
    runner_flags: options of Beam's pipeline.
  """

  workers: int = -1
  progress: bool = True
  lease_seconds: float = LEASE
  runner: str = ""
  runner_flags: tuple[str, ...] = ()


def run(
  source: str | sources.Source,
  output: str,
  storage: StorageOptions | None = None,
  *,
  format: str = "auto",
  options: sources.SourceOptions | None = None,
  workers: int = -1,
  progress: bool = True,
) -> Summary:
  """Writes a folder of shards, and returns a summary.

  Args:
    source: folder of data, or an opened (picklable) source.
    output: folder to write. If it is unfinished, with the same source and settings, it is resumed,
      and shared with other processes that write it. If it is finished, it is only summarized.
    storage: how frames are stored, and which of them; None = the defaults.
    format: "lerobot", "video_folder", "shards" or "auto".
    options: how to read the source where its files are ambiguous.
    workers: see `Work`.
    progress: see `Work`.

  Raises:
    errors.UserError: an argument is not valid, no episode can be read, or the output folder holds
      something else.
  """
  options = options or sources.SourceOptions()
  if isinstance(source, str):
    source = sources.open_source(source, format=format, options=options)
  settings = (storage or StorageOptions()).settings(source, options)
  return write(source, output, settings, Work(workers, progress))


def write(source: sources.Source, output: str, settings: Settings, work: Work) -> Summary:
  """Writes a folder of shards of an opened source, as `run` does.

  Args:
    source: the source.
    output: folder to write.
    settings: that the shards depend on.
    work: how it is done.

  Raises:
    errors.UserError: no episode can be read, or the output folder holds something else.
  """
  start = time.monotonic()
  locks.refuse_workers()
  os.makedirs(output, exist_ok=True)
  with locks.locked(os.path.join(output, ".lock")):
    _prepare(output, settings, source)
    if settings.unit_frames:
      source = parts.divide(source, settings.unit_frames, os.path.join(output, parts.PLAN))
  path = os.path.join(output, shards.MANIFEST)
  finished, missing = _finished_and_missing(output, source, settings)
  whole = finished + len(missing)
  if finished and work.progress:
    print(
      f"ingest: {finished} of {whole} shards are there already: "
      + ("going on with the others" if missing else "nothing to do"),
      flush=True,
    )
  if missing and os.path.isfile(path):
    os.remove(path)  # it is not that of the shards to come
  with shared.SharedFolder(output, seconds=work.lease_seconds) as folder:
    if missing and work.runner == "beam":
      beam.run(ingest_share.PlaceShard(source, output, settings), missing, work.runner_flags)
    elif missing:
      _write_shards(source, settings, ingest_share.Shards(folder, missing), work)
    manifest = (
      ingest_manifest.with_index(output)
      if not missing and os.path.isfile(path)
      else ingest_share.merge(folder, settings, source, whole)
    )
  return Summary(output, manifest, time.monotonic() - start)


def _finished_and_missing(
  output: str, source: sources.Source, settings: Settings
) -> tuple[int, list[shard_writer.Unit]]:
  """(Number of shards that are there already, units of those that must be written)."""
  frames = source.frames if isinstance(source, parts.Parts) else [0] * len(source)
  firsts = parts.group(frames, settings.episodes_per_shard, settings.unit_frames)
  units = [
    shard_writer.Unit(shard, first, last, {}, {})
    for shard, (first, last) in enumerate(itertools.pairwise([*firsts, len(source)]))
  ]
  for unit in units:
    ingest_share.remove_torn(output, unit.shard)
  missing = [unit for unit in units if not ingest_share.is_done(output, unit.shard)]
  return len(units) - len(missing), missing


def _write_shards(
  source: sources.Source, settings: Settings, units: ingest_share.Shards, work: Work
) -> None:
  """Writes the shards that are missing and that no other process writes."""
  count = read_options.cores() if work.workers < 0 else work.workers
  done = len(source) - sum(unit.last - unit.first for unit in units.missing)
  interval = 0.2 if sys.stderr.isatty() else 10.0  # seconds; few lines in a log file
  with tqdm.tqdm(
    total=len(source),
    initial=done,
    unit="episode",
    desc="ingest",
    disable=not work.progress,
    mininterval=interval,
  ) as bar:
    frames, started, finished = 0, time.monotonic(), set()

    def on_progress(message: shard_writer.Progress):
      nonlocal frames
      frames += message.frames
      if message.done and message.episode not in finished:
        finished.add(message.episode)
        bar.update()
      bar.set_postfix_str(
        f"{frames / max(time.monotonic() - started, 1e-3):.0f} frames/s", refresh=False
      )

    for sidecar in processes.run(
      ingest_share.StageShard(source, units.folder.staging, settings),
      units,
      workers=min(count, len(units)),
      on_progress=on_progress,
      on_death=_blame,
      poll=units.folder.poll,
    ):
      if sidecar is not None:
        units.publish(sidecar)


def _blame(
  unit: shard_writer.Unit, progress: shard_writer.Progress | None, exitcode: int
) -> shard_writer.Unit:
  """Returns the unit to try again after its worker died.

  The episode at which it died is left out when `_ATTEMPTS` workers have died at it.
  """
  episode = unit.first if progress is None else progress.episode
  if progress is not None and progress.done:
    episode = min(episode + 1, unit.last - 1)
  deaths = {**unit.deaths, episode: unit.deaths.get(episode, 0) + 1}
  if sum(deaths.values()) > _ATTEMPTS * (unit.last - unit.first) + _ATTEMPTS:
    raise RuntimeError(
      f"worker processes keep dying (last exit code {exitcode}): is the machine out of memory?"
    )
  bad = dict(unit.bad)
  if deaths[episode] >= _ATTEMPTS:
    bad[episode] = f"reading it ends the worker process (exit code {exitcode})"
  return dataclasses.replace(unit, bad=bad, deaths=deaths)


def ensure_shards(
  path: str,
  storage: StorageOptions,
  *,
  cache_dir: str,
  format: str = "auto",
  options: sources.SourceOptions | None = None,
  workers: int = -1,
  progress: bool = True,
) -> str:
  """Returns a folder of shards for any data path: the path itself, or a converted copy of the data.

  The data is ingested once, into the cache. The remarks about it are printed at every call.

  Args:
    path: shards (of any image size: frames are resized when loaded), a LeRobot data set or a folder
      of videos.
    storage: how frames are stored if the data has to be ingested.
    cache_dir: parent of the new folder, which is named by a hash of the source and the settings.
      Several processes may call this function at the same time.
    format: as for `run`.
    options: how to read the source.
    workers: as for `run`.
    progress: as for `run`.
  """
  format = sources.detect(path) if format == "auto" else format
  if format == "shards":
    shards.read_manifest(path)
    return path
  options = options or sources.SourceOptions()
  source = sources.open_source(path, format=format, options=options)
  hashed = storage.given() | {"options": options.stored(), "version": shards.VERSION}
  identity = [source.fingerprint(), storage.image_size, hashed, video.DECODING]
  key = xxhash.xxh64_hexdigest(json.dumps(identity, sort_keys=True).encode())
  os.makedirs(cache_dir, exist_ok=True)
  output = os.path.join(cache_dir, key)
  lock = os.path.join(cache_dir, f"{key}.lock")
  with locks.locked(
    lock, message=f"data: another process converts this data and holds {lock}; waiting for it"
  ):
    if not os.path.isfile(os.path.join(output, shards.MANIFEST)):
      print(
        f"data: {path} ({source.info['description']}) is converted once into {output}", flush=True
      )
      summary = run(source, output, storage, options=options, workers=workers, progress=progress)
      print(
        f"data: {summary.episodes} episodes, {summary.frames} frames in {summary.seconds:.1f} s",
        flush=True,
      )
  for line in ingest_manifest.remarks(shards.read_manifest(output)):
    print(f"data: {line}", flush=True)
  return output
