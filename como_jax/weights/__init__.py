"""Weights-only folders: `params.safetensors` (names "a/b/c") and `config.json`.

They are written whole or not at all.

config.json holds what the writer gave, and three keys of this file: `weights_version` of the format
(absent: 0, before there was one), `weights_step`, the training step they are of, and
`weights_xxh3_64`, the checksum of the numbers' file.
"""

import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import xxhash

from como_jax import errors, trees
from como_jax.settings import renames
from como_jax.weights.safetensors import read as read_safetensors
from como_jax.weights.safetensors import write as write_safetensors

PARAMS, CONFIG = "params.safetensors", "config.json"
VERSION = 1
_VERSION, _STEP, _HASH = "weights_version", "weights_step", "weights_xxh3_64"  # in config.json
_FLOATS = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def save(
  folder: str | os.PathLike,
  params: Mapping[str, Any],
  config: Mapping[str, Any],
  dtype: str | None = None,
  *,
  step: int | None = None,
  overwrite: bool = False,
  files: Mapping[str, str] | None = None,
) -> pathlib.Path:
  """Writes a weights-only folder. It appears under its name only when it is complete.

  Args:
    folder: where; its parents are made.
    params: nested dict of arrays (anything numpy can read).
    config: what `load` returns beside the parameters; must be JSON.
    dtype: "float32", "float16" or "bfloat16" casts the floating leaves; None keeps them as they
      are.
    step: of the training that they are of, if any.
    overwrite: replace a folder that is already there, if it holds nothing but weights and JSON.
    files: further JSON files, name -> text.

  Raises:
    errors.UserError: the folder exists, cannot be written, the dtype is unknown or the config is
      not JSON.
  """
  folder = pathlib.Path(folder)
  if dtype is not None and dtype not in _FLOATS:
    raise errors.UserError(f"dtype {dtype!r} for weights; {errors.nearest(dtype, _FLOATS)}")
  try:
    json.dumps(dict(config), allow_nan=False)
  except (TypeError, ValueError) as error:
    raise errors.UserError(f"{folder}: the config to save is not JSON: {error}") from None
  check_writable(folder, overwrite=overwrite)
  flat = {name: cast(np.asarray(leaf), dtype) for name, leaf in trees.flatten(params).items()}
  unique = uuid.uuid4().hex[:8]
  new, old = (folder.with_name(f".{folder.name}.{kind}-{unique}") for kind in ("new", "old"))
  try:
    new.mkdir(parents=True)
    write_safetensors(new / PARAMS, flat)
    facts = {
      _VERSION: VERSION,
      **({} if step is None else {_STEP: step}),
      _HASH: digest(new / PARAMS),
    }
    text = json.dumps({**config, **facts}, indent=2, allow_nan=False) + "\n"
    for name, content in {CONFIG: text, **(files or {})}.items():
      with open(new / name, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if folder.exists():
      os.replace(folder, old)
    os.replace(new, folder)
  except OSError as error:
    if old.exists() and not folder.exists():
      os.replace(old, folder)
    raise errors.UserError(f"cannot write {folder}: {error.strerror or error}") from None
  finally:
    shutil.rmtree(new, ignore_errors=True)
    if folder.exists():
      shutil.rmtree(old, ignore_errors=True)
  return folder


def check_writable(folder: str | os.PathLike, *, overwrite: bool) -> None:
  """Raises errors.UserError if `save` would refuse this folder because of what is there."""
  folder = pathlib.Path(folder)
  if not folder.exists() and not folder.is_symlink():
    return
  if not overwrite:
    raise errors.UserError(
      f"{folder} already exists; choose another name or allow overwriting (--overwrite)"
    )
  if folder.is_symlink() or not folder.is_dir():
    raise errors.UserError(f"{folder} is not a folder; not overwritten")
  other = sorted(
    path.name
    for path in folder.iterdir()
    if path.is_dir() or path.name != PARAMS and path.suffix != ".json"
  )
  if other:
    raise errors.UserError(
      f"{folder} is not a folder of weights only (it has {', '.join(other[:3])}); not overwritten"
    )


def load(
  folder: str | os.PathLike, dtype: str | None = "float32"
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads a weights-only folder.

  Args:
    folder: as written by `save`.
    dtype: what floating leaves are cast to ("float32", "float16", "bfloat16"); None leaves them as
      stored. Leaves that are not cast are read-only views of the file.

  Returns:
    (nested dict of numpy arrays, config as it was given to `save`).

  Raises:
    errors.UserError: a file is missing, truncated, garbled or of a later format, named by its path.
  """
  folder = pathlib.Path(folder)
  if dtype is not None and dtype not in _FLOATS:
    raise errors.UserError(f"dtype {dtype!r} for weights; {errors.nearest(dtype, _FLOATS)}")
  if not folder.is_dir():
    what = "is a file" if folder.exists() else "does not exist"
    raise errors.UserError(f"{folder} {what}; expected a weights folder with {PARAMS} and {CONFIG}")
  config, facts = _read_config(folder)
  flat = read_safetensors(folder / PARAMS)
  parents = {name.rsplit("/", 1)[0] for name in flat if "/" in name}
  clash = sorted(parents & set(flat))
  if clash:
    raise errors.UserError(
      f"{folder / PARAMS}: {clash[0]!r} is both an array and a group of arrays"
    )
  if _HASH in facts and facts[_HASH] != digest(folder / PARAMS):
    raise errors.UserError(
      f"{folder / PARAMS} is damaged: it holds other bytes than were written (checksum {_HASH} in "
      f"{CONFIG}; take it out there if the file was replaced on purpose)"
    )
  return trees.unflatten({name: cast(leaf, dtype) for name, leaf in flat.items()}), config


def read_step(folder: str | os.PathLike) -> int | None:
  """The training step that a folder's weights are of, None where it does not say.

  Raises:
    errors.UserError: as `load`.
  """
  config, facts = _read_config(pathlib.Path(folder))
  if facts:
    return facts.get(_STEP)
  train = config.get("train")  # version 0 was written by runs that had done all their steps
  return train.get("steps") if isinstance(train, dict) else None


def _read_config(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """(config as given to `save`, the keys of this file)."""
  config = read_config(folder / CONFIG)
  facts = {key: config.pop(key) for key in (_VERSION, _STEP, _HASH) if key in config}
  version = facts.get(_VERSION, 0)
  if not isinstance(version, int) or version > VERSION:
    raise errors.UserError(
      f"{folder / CONFIG}: weights of format version {version}, this program reads up to "
      f"{VERSION}: update como_jax"
    )
  return config, facts


def read_config(path: pathlib.Path) -> dict[str, Any]:
  """A stored config.json with today's keys, whatever version of the program wrote it.

  Raises:
    errors.UserError: naming the file.
  """
  config = read_json(path)
  return renames.upgrade(config)


def digest(path: pathlib.Path) -> str:
  """Checksum (xxh3, 64 bits) of a file."""
  state = xxhash.xxh3_64()
  with open(path, "rb") as file:
    while block := file.read(1 << 22):
      state.update(block)
  return state.hexdigest()


def cast(leaf: np.ndarray, dtype: str | None) -> np.ndarray:
  """A floating leaf in another floating dtype; integers, bools and `dtype=None` pass through."""
  floating = leaf.dtype == ml_dtypes.bfloat16 or np.issubdtype(leaf.dtype, np.floating)
  return leaf if dtype is None or not floating else leaf.astype(_FLOATS[dtype], copy=False)


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """A JSON object, or errors.UserError naming the file."""
  try:
    value = json.loads(path.read_text())
  except OSError as error:
    raise errors.UserError(f"cannot read {path}: {error.strerror or error}") from None
  except (ValueError, RecursionError) as error:
    raise errors.UserError(f"{path} is not JSON: {error}") from None
  if not isinstance(value, dict):
    raise errors.UserError(f"{path} holds a JSON {type(value).__name__}, expected an object")
  return value
