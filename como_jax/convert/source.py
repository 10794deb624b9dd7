"""Reads foreign checkpoints as named arrays.

A checkpoint is a file or a folder, of safetensors or of torch, in one piece or in shards.
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
  """A checkpoint that was read.

  Attributes:
    name: name of the file or folder.
    tensors: {name: array}.
    config: the config.json in the same folder, or {}.
    sha256: of the file; for shards, over the sha256 of all shards.
  """

  name: str
  tensors: Mapping[str, np.ndarray]
  config: Mapping[str, Any]
  sha256: str


def read(path: str | os.PathLike) -> Source:
  """Reads a checkpoint file, or the checkpoint in a folder.

  Raises:
    errors.UserError: there is no checkpoint or more than one, or a file is broken; the message has
      its path.
  """
  path = pathlib.Path(path)
  if not path.exists():
    raise errors.UserError(
      f"{path} does not exist; expected a checkpoint ({', '.join(_SUFFIXES)}) or a folder with one"
    )
  if path.is_file() and path.suffix != ".json":
    files, index_names = [path], None
  else:
    files, index_names = _shards(path) if path.is_file() else _in_folder(path)
  tensors: dict[str, np.ndarray] = {}
  for file in files:
    part = _read_file(file)
    duplicates = sorted(set(part) & set(tensors))
    if duplicates:
      raise errors.UserError(f"{file}: {duplicates[0]!r} is in another shard too")
    tensors.update(part)
  absent = sorted(set(index_names or ()) - set(tensors))
  if absent:
    raise errors.UserError(
      f"{path}: {len(absent)} tensors of the index are in no shard: {', '.join(absent[:4])}"
    )
  config_path = files[0].parent / weights.CONFIG
  config = weights.read_json(config_path) if config_path.is_file() else {}
  return Source(path.resolve().name, tensors, config, _digest(files))


def _in_folder(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[str] | None]:
  for name in _INDICES:
    if (folder / name).is_file():
      return _shards(folder / name)
  for name in _FILES:
    if (folder / name).is_file():
      return [folder / name], None
  files = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES)
  if len(files) != 1:
    listed = ": " + ", ".join(file.name for file in files[:6]) if files else ""
    raise errors.UserError(
      f"{folder} has {len(files)} checkpoint files{listed}; expected {' or '.join(_FILES)}, or "
      "name one file"
    )
  return files, None


def _shards(index: pathlib.Path) -> tuple[list[pathlib.Path], list[str]]:
  """The shards in an index of Hugging Face, and the names of the tensors in them."""
  weight_map = weights.read_json(index).get("weight_map")
  if not isinstance(weight_map, dict) or not weight_map:
    raise errors.UserError(f"{index} has no 'weight_map'; expected an index of shards")
  files = sorted(set(map(str, weight_map.values())))
  for name in files:
    if pathlib.PurePath(name).name != name or not (index.parent / name).is_file():
      raise errors.UserError(f"{index} lists the shard {name!r}, which is not a file beside it")
  return [index.parent / name for name in files], list(weight_map)


def _read_file(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a file by its content, not by its name.

  A zip file or a pickle is of torch; any other file must be of safetensors.
  """
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
