"""Embeddings on disk, a file for each text."""

import contextlib
import os
import pathlib
import uuid
import zipfile

import numpy as np
import xxhash
from absl import logging


def cache_folder(fingerprint: str) -> pathlib.Path:
  """The cache of an encoder, in $COMO_JAX_CACHE/language or ~/.cache/como_jax/language."""
  root = os.environ.get("COMO_JAX_CACHE") or os.path.join(pathlib.Path.home(), ".cache", "como_jax")
  return pathlib.Path(root) / "language" / fingerprint


def entry_path(folder: pathlib.Path, text: str) -> pathlib.Path:
  """The file of a text."""
  return folder / f"{xxhash.xxh3_128_hexdigest(text.encode('utf-8', 'replace'))}.npz"


def read(folder: pathlib.Path, text: str, num_tokens: int, width: int) -> np.ndarray | None:
  """Reads a cached embedding; None if it is missing or damaged (the archive has checksums)."""
  path = entry_path(folder, text)
  try:
    with np.load(path, allow_pickle=False) as file:
      stored, value = bytes(file["text"]), np.array(file["tokens"])
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    zipfile.BadZipFile,
    NotImplementedError,
  ) as error:
    logging.warning("%s cannot be read and is made again: %s", path, error)
    return None
  good = (
    value.dtype == np.float32
    and value.ndim == 2
    and value.shape[1] == width
    and len(value) <= num_tokens
  )
  return value if good and stored == text.encode("utf-8", "replace") else None


def write(folder: pathlib.Path, text: str, value: np.ndarray) -> None:
  """Stores an embedding atomically; if that fails, later runs are only slower."""
  path = entry_path(folder, text)
  new = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}.new")
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with open(new, "wb") as file:
      np.savez(file, text=np.frombuffer(text.encode("utf-8", "replace"), np.uint8), tokens=value)
    os.replace(new, path)
  except OSError as error:
    logging.log_first_n(
      logging.WARNING, "embeddings of instructions cannot be kept in %s: %s", 1, folder, error
    )
    with contextlib.suppress(OSError):
      new.unlink()
