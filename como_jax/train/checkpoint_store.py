"""Checkpoints in an object store: written by Orbax into the local copy, then copied as a whole.

A step counts once its marker is there, which is written last. Without the marker it is what a kill
left of an upload: it is never restored, and removed when the run goes on.
"""

import pathlib
from collections.abc import Mapping

from como_jax import storage, weights
from como_jax.train import frozen_weights, integrity

FOLDER = "checkpoints"
MARKER = "uploaded.json"  # in the folder of a step, only in the store: name -> size of each file


def finished(folder: pathlib.Path) -> list[int]:
  """Steps of a local run directory that can be uploaded: committed, with their checksums."""
  steps = folder / FOLDER
  return [
    step
    for step in sorted(integrity.steps(steps))
    if (steps / str(step) / integrity.CHECKSUMS).is_file()
  ]


def upload(folder: pathlib.Path, address: str, step: int) -> None:
  """Copies a step into the store; does nothing if it is there.

  Args:
    folder: local run directory.
    address: of the run.
    step: one of `finished`.

  Raises:
    FileNotFoundError: it was deleted meanwhile. What was copied of it stays, without the marker.
    Other errors: see `storage.Store`.
  """
  source = folder / FOLDER / str(step)
  target = storage.join(address, FOLDER, str(step))
  store, key = storage.open_store(target)
  if store.exists(f"{key}/{MARKER}"):
    return
  sizes = {}
  for path in sorted(path for path in source.rglob("*") if path.is_file()):
    name = path.relative_to(source).as_posix()
    sizes[name] = path.stat().st_size
    store.upload(path, f"{key}/{name}")
  storage.write_json(storage.join(target, MARKER), {"files": sizes})


def remove(address: str, step: int | str) -> None:
  """Removes a step, its marker first: after a kill in here it does not count."""
  store, key = storage.open_store(storage.join(address, FOLDER, str(step)))
  entries = store.list(key)
  store.remove(f"{key}/{MARKER}")
  for entry in entries:
    store.remove(entry.key)


def split(names: Mapping[str, int]) -> tuple[dict[int, dict[str, int]], list[str]]:
  """Sorts the files of checkpoints into whole steps and the rest.

  Args:
    names: name within the run directory -> size, of all files in the store.

  Returns:
    (step -> its files as `names`, without the marker; folders of steps that are not whole).
  """
  steps: dict[str, dict[str, int]] = {}
  for name, size in names.items():
    first, _, rest = name.partition("/")
    step, _, file = rest.partition("/")
    if first == FOLDER and file and step.isdecimal():
      steps.setdefault(step, {})[name] = size
  whole, half = {}, []
  for step, files in steps.items():
    marker = f"{FOLDER}/{step}/{MARKER}"
    if files.pop(marker, None) is None:
      half.append(step)
    else:
      whole[int(step)] = files
  return whole, half


def local(path: str | pathlib.Path, *, exported: str) -> pathlib.Path:
  """A run directory or weights folder as a local one: itself, or a copy of what is needed of it.

  Args:
    path: local, or an address.
    exported: name of the folder of weights in a run directory.

  Raises:
    errors.UserError: there is nothing at an address.
  """
  if not storage.is_remote(path):
    return pathlib.Path(path)
  folder = storage.local_folder(path, select=lambda names: _without_steps(names, exported))
  store, key = storage.open_store(path)
  start = len(key.rstrip("/")) + 1
  whole, _ = split({entry.key[start:]: entry.size for entry in store.list(key)})
  newest = max(whole, default=None)
  has_weights = (folder / exported / weights.PARAMS).is_file()
  if newest is None or (has_weights and (weights.read_step(folder / exported) or 0) >= newest):
    return folder
  files = whole[newest]
  frozen = f"{frozen_weights.FOLDER}/"  # that the step refers to
  return storage.local_folder(
    path,
    select=lambda names: [
      *_without_steps(names, exported),
      *(name for name in names if name in files or name.startswith(frozen)),
    ],
  )


def _without_steps(names: Mapping[str, int], exported: str) -> list[str]:
  """The files of a run directory at its top and of its weights."""
  return [
    name
    for name in names
    if ("/" not in name and name[0] != ".") or name.startswith(f"{exported}/")
  ]
