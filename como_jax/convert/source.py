"""Foreign checkpoints on disk: one file or a folder, safetensors or torch, whole or in shards ->
named arrays.
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from como_jax import errors, weights
from como_jax.convert import torch_zip

_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_FILES = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


@dataclasses.dataclass(frozen=True)
class Source:
  """What was read; `config` is the config.json beside it or {}, `sha256` of the file, or over those
  of all shards.
  """

  name: str
  tensors: Mapping[str, np.ndarray]
  config: Mapping[str, Any]
  sha256: str


def read(path: str | os.PathLike) -> Source:
  """Reads a checkpoint file, or the checkpoint in a folder.

  Raises:
    errors.UserError: nothing or more than one thing to read, or a broken file, named by its path.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise errors.UserError(
      f"{path} does not exist; expected a checkpoint ({', '.join(_SUFFIXES)}) or a folder with one"
    )
  if path.is_file() and path.suffix != ".json":
    files, named = [path], None
  else:
    files, named = _shards(path) if path.is_file() else _in_folder(path)
  tensors: dict[str, np.ndarray] = {}
  for file in files:
    part = _read_file(file)
    doubled = sorted(set(part) & set(tensors))
    if doubled:
      raise errors.UserError(f"{file}: {doubled[0]!r} is in another shard too")
    tensors.update(part)
  absent = sorted(set(named or ()) - set(tensors))
  if absent:
    raise errors.UserError(
      f"{path}: {len(absent)} tensors of the index are in no shard: {', '.join(absent[:4])}"
    )
  beside = files[0].parent / weights.CONFIG
  config = weights.read_json(beside) if beside.is_file() else {}
  return Source(path.resolve().name, tensors, config, _digest(files))


def _in_folder(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[str] | None]:
  for name in _INDICES:
    if (folder / name).is_file():
      return _shards(folder / name)
  for name in _FILES:
    if (folder / name).is_file():
      return [folder / name], None
  found = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)
  if len(found) != 1:
    listed = ": " + ", ".join(file.name for file in found[:6]) if found else ""
    raise errors.UserError(
      f"{folder} has {len(found)} checkpoint files{listed}; expected {' or '.join(_FILES)}, or "
      "name one file"
    )
  return found, None


def _shards(index: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
  """The shards that an index of Hugging Face lists, and the names they must hold."""
  places = weights.read_json(index).get("weight_map")
  if not isinstance(places, dict) or not places:
    raise errors.UserError(f"{index} has no 'weight_map'; expected an index of shards")
  files = sorted(set(map(str, places.values())))
  for name in files:
    if pathlib.PurePath(name).name != name or not (index.parent / name).is_file():
      raise errors.UserError(f"{index} lists the shard {name!r}, which is not a file beside it")
  return [index.parent / name for name in files], list(places)


def _read_file(path: pathlib.Path) -> dict[str, np.ndarray]:
  """By content, not by name: a zip or a pickle is torch's, anything else must be safetensors."""
  with open(path, "rb") as file:
    start = file.read(512)
  torch = (
    start[:2] == b"PK" or start[:1] == b"\x80" and start[8:9] != b"{" or start[257:262] == b"ustar"
  )
  return torch_zip.state_dict(path) if torch else weights.read_safetensors(path)


def _digest(files: list[pathlib.Path]) -> str:
  digests = []
  for path in files:
    with open(path, "rb") as file:
      digests.append(hashlib.file_digest(file, "sha256").hexdigest())
  return (
    digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
  )
