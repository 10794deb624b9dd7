"""Checksums of the weights that a checkpoint's path means."""

import json
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

from como_jax import trees, weights
from como_jax.data import policy_spec, shards
from como_jax.train import checkpoint, frozen_weights


def of_parameters(location: checkpoint.WeightsLocation, params: Mapping[str, Any]) -> str:
  """Checksum (xxh64) of the parameters as a file.

  Args:
    location: of the checkpoint. For a weights folder, it is the checksum of params.safetensors.
    params: its parameters. For a state of the training, it is the checksum of the file that they
      would make.
  """
  if location.weights:
    return shards.file_hash(str(location.weights / weights.PARAMS))
  with tempfile.TemporaryDirectory() as temporary:
    file = pathlib.Path(temporary) / weights.PARAMS
    weights.write_safetensors(
      file, {name: np.asarray(leaf) for name, leaf in trees.flatten(params).items()}
    )
    return shards.file_hash(str(file))


def of_policy(path: str) -> dict[str, Any]:
  """Identity of a policy: its path, training step, and checksums of what decides its actions.

  Args:
    path: run directory or weights folder.

  Returns:
    {"path", "step", "xxh64", "normalization_xxh64"}. "xxh64" is of params.safetensors, or of all
    files of the newest checkpoint and of its frozen weights where that one is used.
    "normalization_xxh64" is of policy.json, or of the normalization in config.json, which older
    versions wrote instead.
  """
  location = checkpoint.find(path)
  record = location.config.parent / policy_spec.FILE
  if record.is_file():
    text = record.read_text()
  else:
    config = weights.read_config(location.config) if location.config.is_file() else {}
    text = json.dumps(config.get("normalization"), sort_keys=True)
  return {
    "path": str(path),
    "step": location.step,
    "xxh64": _stored(location),
    "normalization_xxh64": xxhash.xxh64_hexdigest(text.encode()),
  }


def _stored(location: checkpoint.WeightsLocation) -> str:
  """Checksum of the stored weights: of their file, or of all files of a training state."""
  if location.weights:
    return shards.file_hash(str(location.weights / weights.PARAMS))
  assert location.state is not None  # `find` gives one of the two
  files = [
    (str(file.relative_to(location.state.parent)), shards.file_hash(str(file)))
    for file in sorted(location.state.rglob("*"))
    if file.is_file()
  ]
  if checksum := frozen_weights.checksum_of(location.state.parent):
    files.append((frozen_weights.FOLDER, checksum))
  return xxhash.xxh64_hexdigest(json.dumps(files).encode())
