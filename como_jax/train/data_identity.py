"""Identity of the training data: a resumed run must use the same data.

The comparison uses fingerprints, checksums and file sizes, not every byte.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import xxhash

from como_jax import errors, storage, weights

FILE = "data.json"
VERSION = 1
ACCEPT = "--config.train.accept_changed_data=True"


def record(config, folders: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
  """Describes each data set of a training config, as JSON.

  Args:
    config: with the section `data`, whose paths are used in messages.
    folders: (folder of shards, folder of labels or "") of each data set, in the config's order.

  Returns:
    For each data set: path as in the config, source (fingerprint of the source of the shards),
    manifest and labels (checksums), shards (checksum of their names and sizes), counts (episodes,
    clips, frames).
  """
  paths = [str(dict(entry).get("path", "")) for entry in config.data.mixture] or [config.data.path]
  descriptions = []
  for path, (folder, labels) in zip(paths, folders, strict=True):
    manifest_file = storage.local_copy(storage.join(folder, "manifest.json"))
    manifest = weights.read_json(manifest_file)
    sizes = _sizes(folder, [shard["file"] for shard in manifest["shards"]])
    descriptions.append(
      {
        "path": path,
        "source": manifest["source"]["fingerprint"],
        "manifest": weights.digest(manifest_file),
        "shards": xxhash.xxh3_64_hexdigest(json.dumps(sizes).encode()),
        "labels": weights.digest(pathlib.Path(labels, "labels.json")) if labels else "",
        "counts": manifest["counts"],
      }
    )
  return descriptions


def _sizes(folder: str, names: Sequence[str]) -> list[list[Any]]:
  """[Name, bytes] of files of a folder; -1 bytes without the file. A store is asked once."""
  if storage.is_remote(folder):
    store, key = storage.open_store(folder)
    found = {entry.key.rpartition("/")[2]: entry.size for entry in store.list(key)}
    return [[name, found.get(name, -1)] for name in names]
  files = [(name, pathlib.Path(folder, name)) for name in names]
  return [[name, file.stat().st_size if file.is_file() else -1] for name, file in files]


def check(workdir: pathlib.Path, current: list[dict[str, Any]], *, accept: bool) -> list[str]:
  """Compares the data of a resumed run with the data of its start.

  Args:
    workdir: of the run.
    current: as returned by `record`.
    accept: whether changes are allowed.

  Returns:
    Lines to print about accepted changes.

  Raises:
    errors.UserError: a data set has changed and `accept` is False; names the path and the changed
      files.
  """
  if not (workdir / FILE).is_file():  # a run of a version that did not record its data
    return []
  recorded = weights.read_json(workdir / FILE)
  if recorded.get("version", VERSION) > VERSION:
    raise errors.UserError(
      f"{workdir / FILE} has version {recorded['version']}, this program reads up to {VERSION}: "
      "update como_jax"
    )
  lines = [
    line
    for old, new in zip(recorded["sets"], current, strict=False)
    if (line := _difference(old, new))
  ]
  if lines and not accept:
    raise errors.UserError(
      f"--resume: the data are not those {workdir} was started with: {'; '.join(lines)}; put "
      f"them back, or give {ACCEPT}"
    )
  return [f"resume: {line}: accepted" for line in lines]


def text(current: list[dict[str, Any]]) -> str:
  """Content of `FILE`, which holds the descriptions of a run's data (`record`)."""
  return json.dumps({"version": VERSION, "sets": current}, indent=2)


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
  """Describes the changes of one data set; "" for none."""
  names = {
    "source": "the source's files",
    "manifest": "the manifest of the shards",
    "shards": "the shard files",
    "labels": "the labels",
  }
  changed = [name for key, name in names.items() if old.get(key) != new[key]]
  if not changed:
    return ""
  counts = " and ".join(
    ", ".join(f"{data['counts'].get(key, '?')} {key}" for key in ("episodes", "frames"))
    + f" {when}"
    for data, when in ((old, "before"), (new, "now"))
  )
  return f"{new['path']}: {', '.join(changed)} changed ({counts})"
