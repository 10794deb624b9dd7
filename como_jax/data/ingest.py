"""Converts any source into como_jax shards: parallel, resumable and deterministic.

A unit of work is one shard: `episodes_per_shard` consecutive episodes of the source. The shard is
written to a temporary file and renamed. Then a sidecar JSON file that describes it is written. A
rerun skips units that have a sidecar. The bytes of the shards depend only on the source and the
settings, not on the number of workers or on interruptions. Episodes that cannot be read are listed
in a quarantine.
"""

import collections
import contextlib
import dataclasses
import fcntl
import glob
import json
import multiprocessing
import os
import sys
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import tqdm
import xxhash

from como_jax import errors
from como_jax.data import (
  duplicate_clips,
  episode_encoder,
  read_options,
  shard_file,
  shard_writer,
  shards,
  sources,
  summaries,
  video,
)
from como_jax.data import workers as processes

SETTINGS = "settings.json"
QUARANTINE = "quarantine.json"
QUALITY = {"jpeg": 95, "h264": 18}  # JPEG quality; H.264 constant rate factor
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


@contextlib.contextmanager
def locked(path: str, *, wait: bool):
  """Context manager that holds a lock file. The system releases it when the process dies.

  Raises:
    errors.UserError: another process holds it, and `wait` is False or that process waits for us.
  """
  with open(path, "w", encoding="utf-8") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      if not wait:
        raise errors.UserError(f"another ingest is writing to {os.path.dirname(path)}") from error
      # This process is a worker of the holder and runs the holder's script again.
      if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise errors.UserError(
          "a script that converts data needs 'if __name__ == \"__main__\":' around what it does: "
          "worker processes import it"
        ) from error
      print(
        f"data: another process converts this data and holds {path}; waiting for it", flush=True
      )
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def _prepare(output: str, settings: episode_encoder.Settings, source: sources.Source) -> None:
  """Prepares the output folder and removes old temporary files.

  Raises `errors.UserError` when it was begun with another source or other settings.
  """
  record = {
    "kind": "como_jax ingest",
    "version": shards.VERSION,
    "source": source.fingerprint(),
    "path": source.info.get("path", ""),
    "description": source.info["description"],
    **json.loads(json.dumps(dataclasses.asdict(settings))),
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
      f"{key} was {before.get(key)!r} and is now {record[key]!r}"
      for key in record
      if before.get(key) != record[key] and key != "path"
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
  for stale in glob.glob(os.path.join(glob.escape(output), "*.tmp")):
    os.remove(stale)


def _source_text(record: dict) -> str:
  """Text that names a source, from the record that `_prepare` stores."""
  return f"{record.get('path') or 'a source'} ({record.get('description')})"


def _finish(
  output: str, settings: episode_encoder.Settings, source: sources.Source, sidecars: list[dict]
) -> dict:
  """Writes records.parquet, quarantine.json and finally the manifest; returns the manifest."""
  rows = [row for sidecar in sidecars for row in sidecar["rows"]]
  quarantine = [item for sidecar in sidecars for item in sidecar["quarantine"]]
  notes = [item for sidecar in sidecars for item in sidecar["notes"]]
  shard_writer.write_json(os.path.join(output, QUARANTINE), quarantine)
  if not rows:
    for sidecar in sidecars:  # so that a rerun tries again
      os.remove(shard_writer.sidecar_path(output, sidecar["shard"]))
    reasons = "; ".join(f"{item['name']}: {item['reason']}" for item in quarantine[:3])
    raise errors.UserError(f"none of the {len(quarantine)} episodes could be read ({reasons})")
  files = [
    {
      key: sidecar[key]
      for key in ("shard", "file", "xxh64", "index_offset", "index_size", "index_xxh64")
    }
    | {"clips": len(sidecar["rows"])}
    for sidecar in sidecars
    if sidecar["file"]
  ]
  frames = collections.Counter()
  for sidecar in sidecars:
    frames.update(sidecar["frames"])
  notes += duplicate_clips.mark(output, files, rows)
  if settings.filters.get("drop_duplicates"):
    dropped = sum(row["length"] for row in rows if row["duplicate"])
    frames.update({"kept": -dropped, "duplicate": dropped} if dropped else {})
    rows = [row for row in rows if not row["duplicate"]]
  columns = {
    field.name: pa.array([row[field.name] for row in rows], field.type) for field in shards.SCHEMA
  }
  table = os.path.join(output, shards.RECORDS)
  pq.write_table(pa.table(columns, shards.SCHEMA), f"{table}.tmp", write_page_checksum=True)
  os.replace(f"{table}.tmp", table)
  manifest = {
    "version": shards.VERSION,
    "kind": shards.KIND,
    "source": {
      "description": source.info["description"],
      "format": source.info["format"],
      "robot_type": source.info.get("robot_type"),
      "fingerprint": source.fingerprint(),
    },
    **dataclasses.asdict(settings),
    "cameras": list(settings.cameras),
    "cameras_not_stored": [name for name in source.cameras if name not in settings.cameras],
    **{
      name: _array_facts(output, files, rows, name, source.info.get(f"{name}_names"))
      for name in ("action", "state")
    },
    "counts": {
      "episodes": len({row["episode"] for row in rows}),
      "clips": len(rows),
      "frames": sum(row["length"] for row in rows),
      "quarantined": len(quarantine),
    },
    "frames": dict(frames),
    "shards": files,
    "quarantine": quarantine,
    "skipped": source.skipped,
    "notes": notes,
  }
  shard_writer.write_json(os.path.join(output, shards.MANIFEST), manifest)
  return manifest


def _array_facts(
  output: str, files: list[dict], rows: list[dict], name: str, names: list[str] | None
) -> dict:
  """Facts for the manifest about one array (action or state): {"size", "names", "statistics"}.

  The size is a list when clips differ (then without statistics), None when no clip has the array.
  """
  sizes = sorted({row["dims"][name] for row in rows if name in row["dims"]})
  facts = {
    "size": sizes[0] if len(sizes) == 1 else (sizes or None),
    "names": names,
    "statistics": None,
  }
  if len(sizes) == 1:
    pieces, counts = [], []
    for file in files:
      opened = shard_file.ShardFile(os.path.join(output, file["file"]), file)
      if name in opened.arrays:
        # Copies, because a view would keep the shard open.
        pieces += [piece.copy() for piece in opened.statistics(name)]
        counts += [int(n) for n in opened.index["length"][opened.index[f"array_width/{name}"] != 0]]
    facts["statistics"] = summaries.merge(pieces, counts).to_json()
  return facts


def run(
  source: str | sources.Source,
  output: str,
  *,
  format: str = "auto",
  options: sources.SourceOptions | None = None,
  image_size: int = 0,
  resize: str = "squash",
  codec: str = "jpeg",
  quality: int | None = None,
  clip_frames: int = 128,
  cameras: tuple[str, ...] = (),
  episodes_per_shard: int = 64,
  measure: str = "auto",
  filters: dict[str, Any] | None = None,
  workers: int = -1,
  progress: bool = True,
) -> Summary:
  """Writes a folder of shards, and returns a summary.

  Args:
    source: folder of data, or an opened (picklable) source.
    output: folder to write. If it is unfinished, with the same source and settings, it is resumed.
      If it is finished, it is only summarized.
    format: "lerobot", "video_folder", "shards" or "auto".
    options: how to read the source where its files are ambiguous.
    image_size: side in pixels of the stored square frames; 0 keeps the source's size.
    resize: "squash", "crop" or "pad", see `video.Geometry`.
    codec: "jpeg" (each frame is coded alone: the fastest random access) or "h264" (ten frames are
      coded together: about ten times smaller, slower random access).
    quality: JPEG quality 1 to 100 (default 95), or for h264 the constant rate factor 0 to 51, lower
      is better (default 18).
    clip_frames: largest number of frames in a clip. Windows may span clips.
    cameras: names of the cameras to keep; empty = all.
    episodes_per_shard: number of episodes of the source in a shard file.
    measure: whether to measure cuts, motion, camera motion, still frames and repeated frames:
      "auto" (yes for videos, no for robot recordings), "on", "off".
    filters: fields of `frame_filters.FilterOptions`, which frames to leave out; None = none.
    workers: number of processes; 0 = this process, -1 = one per available core. With 0, a crash of
      a native decoder ends the run.
    progress: whether to show a progress bar.


  Raises:
    errors.UserError: an argument is not valid, no episode can be read, or the output folder holds
      something else.
  """
  begin = time.monotonic()
  options = options or sources.SourceOptions()
  source = (
    sources.open_source(source, format=format, options=options)
    if isinstance(source, str)
    else source
  )
  for name in cameras:
    if name not in source.cameras:
      raise errors.UserError(
        f"camera {name!r} is not in the data set: {errors.nearest(name, source.cameras)}"
      )
  settings = episode_encoder.Settings(
    image_size,
    resize,
    codec,
    QUALITY.get(codec, 0) if quality is None else quality,
    clip_frames,
    tuple(cameras) or tuple(source.cameras),
    episodes_per_shard,
    dataclasses.asdict(options),
    measure,
    dict(filters or {}),
  ).check()
  os.makedirs(output, exist_ok=True)
  with locked(os.path.join(output, ".lock"), wait=False):
    _prepare(output, settings, source)
    sidecars, units = {}, []
    for shard, first in enumerate(range(0, len(source), episodes_per_shard)):
      sidecar = shard_writer.read_json(shard_writer.sidecar_path(output, shard))
      if sidecar and (not sidecar["file"] or os.path.isfile(os.path.join(output, sidecar["file"]))):
        sidecars[shard] = sidecar
      else:
        units.append(
          shard_writer.Unit(shard, first, min(first + episodes_per_shard, len(source)), {}, {})
        )
    if sidecars and progress:
      whole = len(sidecars) + len(units)
      print(
        f"ingest: {len(sidecars)} of {whole} shards are there already: "
        + ("going on with the others" if units else "nothing to do"),
        flush=True,
      )
    sidecars |= _write_shards(source, output, settings, units, workers=workers, progress=progress)
    manifest = (
      shards.read_manifest(output)
      if not units and os.path.isfile(os.path.join(output, shards.MANIFEST))
      else _finish(output, settings, source, [sidecars[shard] for shard in sorted(sidecars)])
    )
  return Summary(output, manifest, time.monotonic() - begin)


def _write_shards(
  source,
  output: str,
  settings: episode_encoder.Settings,
  units: list[shard_writer.Unit],
  *,
  workers: int,
  progress: bool,
) -> dict[int, dict]:
  """Writes the shards that are missing; returns number of the shard -> its sidecar."""
  sidecars: dict[int, dict] = {}
  count = read_options.cores() if workers < 0 else workers
  done = len(source) - sum(unit.last - unit.first for unit in units)
  interval = 0.2 if sys.stderr.isatty() else 10.0  # seconds; few lines in a log file
  with tqdm.tqdm(
    total=len(source),
    initial=done,
    unit="episode",
    desc="ingest",
    disable=not progress,
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

    function = shard_writer.WriteShard(source, output, settings)
    for sidecar in processes.run(
      function, units, workers=min(count, len(units)), on_progress=on_progress, on_death=_blame
    ):
      sidecars[sidecar["shard"]] = sidecar
  return sidecars


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
  *,
  image_size: int,
  cache_dir: str,
  options: sources.SourceOptions | None = None,
  **settings: Any,
) -> str:
  """Returns a folder of shards for any data path: the path itself, or a converted copy of the data.

  The data is ingested once, into the cache. The `remarks` about it are printed at every call.

  Args:
    path: shards (of any image size: frames are resized when loaded), a LeRobot data set or a folder
      of videos.
    image_size: stored size if the data has to be ingested.
    cache_dir: parent of the new folder, which is named by a hash of the source and the settings.
      Several processes may call this function at the same time.
    options: how to read the source.
    **settings: other arguments of `run`.
  """
  format = settings.pop("format", "auto")
  format = sources.detect(path) if format == "auto" else format
  if format == "shards":
    shards.read_manifest(path)
    return path
  options = options or sources.SourceOptions()
  source = sources.open_source(path, format=format, options=options)
  hashed = {key: value for key, value in settings.items() if key not in ("workers", "progress")}
  hashed |= {"options": dataclasses.asdict(options), "version": shards.VERSION}
  key = xxhash.xxh64_hexdigest(
    json.dumps([source.fingerprint(), image_size, hashed, video.DECODING], sort_keys=True).encode()
  )
  os.makedirs(cache_dir, exist_ok=True)
  output = os.path.join(cache_dir, key)
  with locked(os.path.join(cache_dir, f"{key}.lock"), wait=True):
    if not os.path.isfile(os.path.join(output, shards.MANIFEST)):
      print(
        f"data: {path} ({source.info['description']}) is converted once into {output}", flush=True
      )
      summary = run(source, output, image_size=image_size, options=options, **settings)
      print(
        f"data: {summary.episodes} episodes, {summary.frames} frames in {summary.seconds:.1f} s",
        flush=True,
      )
  for line in remarks(shards.read_manifest(output)):
    print(f"data: {line}", flush=True)
  return output


def remarks(manifest: dict, *, max_lines: int = 20) -> list[str]:
  """Lines for the log: episodes and files that are not used, with the reasons, and notes.

  Args:
    manifest: of the folder. It holds the complete lists.
    max_lines: largest number of lines of each kind; one more line gives the number of the others.
  """
  lines = []
  kinds = (
    ("quarantined", manifest["quarantine"], "reason"),
    ("not used", manifest["skipped"], "reason"),
    ("note", manifest["notes"], "note"),
  )
  for kind, entries, key in kinds:
    lines += [f"{kind}: {entry['name']}: {entry[key]}" for entry in entries[:max_lines]]
    if len(entries) > max_lines:
      lines.append(f"{kind}: {len(entries) - max_lines} more, all in {shards.MANIFEST}")
  dropped = {reason: count for reason, count in manifest["frames"].items() if reason != "kept"}
  if dropped:
    lines.append(
      f"frames: {manifest['frames'].get('kept', 0)} kept, left out: "
      + ", ".join(f"{n} {reason}" for reason, n in dropped.items())
    )
  if manifest["cameras_not_stored"]:
    lines.append(
      "cameras that the source has and that are not stored: "
      f"{', '.join(manifest['cameras_not_stored'])}"
    )
  return lines
