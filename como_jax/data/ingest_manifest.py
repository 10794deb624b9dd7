"""The manifest of a folder of shards: written when all shards are there, and its remarks."""

import collections
import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from como_jax import errors
from como_jax.data import (
  duplicate_clips,
  frame_index,
  index_writer,
  shard_file,
  shard_writer,
  shards,
  sources,
  summaries,
)
from como_jax.data.ingest_settings import Settings

QUARANTINE = "quarantine.json"


# What `write` writes, in order.
FILES = (QUARANTINE, shards.RECORDS, frame_index.FILE, shards.MANIFEST)


def write(
  output: str,
  settings: Settings,
  source: sources.Source,
  sidecars: Sequence[dict[str, Any]],
  *,
  into: str | None = None,
) -> dict[str, Any]:
  """Writes records.parquet, quarantine.json and finally the manifest; returns the manifest.

  Args:
    output: folder of the shards.
    settings: of the ingest.
    source: that was read.
    sidecars: of all shards, in order.
    into: folder of these files; None = that of the shards.

  Raises:
    errors.UserError: no episode could be read. Only the quarantine is written, beside the shards.
  """
  into = into or output
  rows = [row for sidecar in sidecars for row in sidecar["rows"]]
  quarantine = [item for sidecar in sidecars for item in sidecar["quarantine"]]
  notes = [item for sidecar in sidecars for item in sidecar["notes"]]
  shard_writer.write_json(os.path.join(into if rows else output, QUARANTINE), quarantine)
  if not rows:
    for sidecar in sidecars:  # so that a rerun tries again
      os.remove(shard_writer.sidecar_path(output, sidecar["shard"]))
    reasons = "; ".join(f"{item['name']}: {item['reason']}" for item in quarantine[:3])
    raise errors.UserError(f"none of the {len(quarantine)} episodes could be read ({reasons})")
  files = [_entry(sidecar) for sidecar in sidecars if sidecar["file"]]
  frames = collections.Counter()
  for sidecar in sidecars:
    frames.update(sidecar["frames"])
  notes += duplicate_clips.mark(output, files, rows)
  if settings.filters.get("drop_duplicates"):
    dropped = sum(row["length"] for row in rows if row["duplicate"])
    frames.update({"kept": -dropped, "duplicate": dropped} if dropped else {})
    rows = [row for row in rows if not row["duplicate"]]
  _write_records(os.path.join(into, shards.RECORDS), rows)
  manifest = {
    "version": shards.VERSION,
    "kind": shards.KIND,
    "source": {
      "description": source.info["description"],
      "format": source.info["format"],
      "robot_type": source.info.get("robot_type"),
      "fingerprint": source.fingerprint(),
    },
    **settings.stored(),
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
  index_writer.write(output, files, into=into)
  shard_writer.write_json(os.path.join(into, shards.MANIFEST), manifest)
  return manifest


def with_index(output: str) -> dict[str, Any]:
  """The manifest of a finished folder; its index of frames is made where there is none."""
  manifest = shards.read_manifest(output)
  try:
    if frame_index.open_index(output, manifest["shards"]) is not None:
      return manifest
  except errors.UserError:
    pass  # it is made again
  index_writer.write(output, manifest["shards"])
  return manifest


def _entry(sidecar: dict[str, Any]) -> dict[str, Any]:
  """The entry of a shard file in the manifest."""
  keys = ("shard", "file", "xxh64", "index_offset", "index_size", "index_xxh64")
  return {key: sidecar[key] for key in keys} | {"clips": len(sidecar["rows"])}


def _write_records(path: str, rows: Sequence[dict[str, Any]]) -> None:
  """Writes the table of clips atomically."""
  columns = {
    field.name: pa.array([row[field.name] for row in rows], field.type) for field in shards.SCHEMA
  }
  pq.write_table(pa.table(columns, shards.SCHEMA), f"{path}.tmp", write_page_checksum=True)
  os.replace(f"{path}.tmp", path)


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
