"""Which data a run was trained on: a resumed run must meet the same, byte for byte as far as sizes
and fingerprints show it.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import xxhash

from como_jax import errors, weights
from como_jax.train import atomic

FILE = "data.json"
VERSION = 1
ACCEPT = "--config.train.accept_changed_data=True"


def record(config, folders: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
  """A description of each data set of a training config, as JSON.

  Args:
    config: with the section `data`: its paths are those a message names.
    folders: (folder of shards, folder of labels or "") of each data set, in the config's order.

  Returns:
    For each: path as given, source (fingerprint of what the shards were made from), manifest and
    labels (checksums), shards (their names and sizes, as a checksum), counts (episodes, clips,
    frames).
  """
  paths = [str(dict(entry).get("path", "")) for entry in config.data.mixture] or [config.data.path]
  found = []
  for path, (folder, labels) in zip(paths, folders, strict=True):
    manifest_file = pathlib.Path(folder, "manifest.json")
    manifest = weights.read_json(manifest_file)
    sizes = [
      [one["file"], _size(manifest_file.with_name(one["file"]))] for one in manifest["shards"]
    ]
    found.append(
      {
        "path": path,
        "source": manifest["source"]["fingerprint"],
        "manifest": weights.digest(manifest_file),
        "shards": xxhash.xxh3_64_hexdigest(json.dumps(sizes).encode()),
        "labels": weights.digest(pathlib.Path(labels, "labels.json")) if labels else "",
        "counts": manifest["counts"],
      }
    )
  return found


def _size(path: pathlib.Path) -> int:
  return path.stat().st_size if path.is_file() else -1


def check(workdir: pathlib.Path, now: list[dict[str, Any]], *, accept: bool) -> list[str]:
  """Compares the data of a resumed run with those it began with; lines to print about accepted
  changes.

  Raises:
    errors.UserError: a data set has changed and `accept` is off; it names the path and what is
      different.
  """
  if not (workdir / FILE).is_file():  # begun before this was recorded
    return []
  before = weights.read_json(workdir / FILE)
  if before.get("version", VERSION) > VERSION:
    raise errors.UserError(
      f"{workdir / FILE} has version {before['version']}, this program reads up to {VERSION}: "
      "update como_jax"
    )
  lines = [
    line
    for was, is_now in zip(before["sets"], now, strict=False)
    if (line := _difference(was, is_now))
  ]
  if lines and not accept:
    raise errors.UserError(
      f"--resume: the data are not those {workdir} was started with: {'; '.join(lines)}; put "
      f"them back, or give {ACCEPT}"
    )
  return [f"resume: {line}: accepted" for line in lines]


def write(workdir: pathlib.Path, now: list[dict[str, Any]]) -> None:
  """Records the data of a run."""
  atomic.write(workdir / FILE, json.dumps({"version": VERSION, "sets": now}, indent=2))


def _difference(was: dict[str, Any], now: dict[str, Any]) -> str:
  what = {
    "source": "the source's files",
    "manifest": "the manifest of the shards",
    "shards": "the shard files",
    "labels": "the labels",
  }
  changed = [words for key, words in what.items() if was.get(key) != now[key]]
  if not changed:
    return ""
  counts = " and ".join(
    ", ".join(f"{one['counts'].get(key, '?')} {key}" for key in ("episodes", "frames")) + f" {when}"
    for one, when in ((was, "before"), (now, "now"))
  )
  return f"{now['path']}: {', '.join(changed)} changed ({counts})"
