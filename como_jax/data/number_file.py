"""The numbers of a shard (actions, states, times) as columns, in a file without pictures.

shard-00003.numbers has the arrays of shard-00003.shard: those of all clips, one after the other,
as one column a name, and "xxh64/<name>", the checksum of each block of `BLOCK` rows of a clip. A
window's rows are read and verified without the rest of its clip. "sketch/<name>" is what of all
rows of the shard is merged into statistics (`summaries.sketch`); an array that clips have at
different widths has none.

Labels stay in their shard, labels-00003.labels. Beside it, labels-00003.checksums has their
"xxh64/<name>" alone, for the index.

Legend: n rows that are read, D numbers of a row.
"""

import os
import struct
from collections.abc import Mapping, Sequence

import numpy as np
import xxhash

from como_jax import errors
from como_jax.data import columns, shard_file, stored, summaries

VERSION = 1
SUFFIX = ".numbers"
CHECKSUMS = ".checksums"
BLOCK = 8  # rows of a clip that have one checksum


def path_of(shard_path: str) -> str:
  """Path of the numbers of a shard."""
  return os.path.splitext(shard_path)[0] + SUFFIX


def blocks(lengths: np.ndarray) -> np.ndarray:
  """Number of blocks of clips of so many rows."""
  return -(-lengths.astype(np.int64) // BLOCK)


def checksums(rows: np.ndarray) -> list[int]:
  """The xxh64 of each block of an array of a clip."""
  return [
    xxhash.xxh64_intdigest(rows[first : first + BLOCK].tobytes())
    for first in range(0, len(rows), BLOCK)
  ]


def one_width(widths: np.ndarray) -> int:
  """The width of an array that is the same in all clips that have it; 0 where there is none."""
  found = np.unique(widths[widths != 0])
  return int(found[0]) if len(found) == 1 else 0


def write_checksums(
  shard_path: str, path: str, found: Mapping[str, Sequence[int]], *, index_xxh64: str
) -> None:
  """Writes the checksums of the blocks of a shard whose numbers have no file of their own.

  Args:
    shard_path: its place, beside which they are.
    path: a name under which the file is made first.
    found: array -> `checksums` of its clips, one after the other.
    index_xxh64: of the shard, which tells it from another one in its place.
  """
  text = {"version": str(VERSION), "index_xxh64": index_xxh64}
  shapes = {f"xxh64/{name}": (np.uint64, (len(values),)) for name, values in found.items()}
  with columns.Columns(path, shapes, text) as out:
    for name, values in found.items():
      out.arrays[f"xxh64/{name}"][:] = values
  os.replace(path, checksums_path(shard_path))


def checksums_path(shard_path: str) -> str:
  """Path of what `write_checksums` wrote for a shard."""
  return os.path.splitext(shard_path)[0] + CHECKSUMS


def read_checksums(shard_path: str, *, index_xxh64: str) -> dict[str, np.ndarray]:
  """What `write_checksums` wrote; {} where there is no whole file of this shard."""
  try:
    data = stored.StoredFile(checksums_path(shard_path)).mapped()
    arrays, _, text = columns.parse(data)
  except (OSError, ValueError, KeyError, TypeError, struct.error):
    return {}
  if text.get("version") != str(VERSION) or text.get("index_xxh64") != index_xxh64:
    return {}
  return {name.removeprefix("xxh64/"): values for name, values in arrays.items()}


class NumberFile:
  """The columns of a shard's numbers, mapped.

  Attributes:
    arrays: name -> its numbers, flat; "xxh64/<name>" -> checksums of its blocks.
    starts: name -> its first byte in the file.
  """

  def __init__(self, path: str):
    """Opens a file.

    Raises:
      errors.UserError: it is missing, damaged or of another version.
    """
    try:
      self.arrays, self.starts, text = columns.parse(stored.StoredFile(path).mapped())
      version = int(text["version"])
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
      raise errors.UserError(
        f"{path} is missing or damaged ({error}): delete it and run ingest again"
      ) from error
    if version != VERSION:
      raise errors.UserError(f"{path} has version {version}, this program reads version {VERSION}")


def write(shard: shard_file.ShardFile, path: str) -> None:
  """Writes the numbers of a shard, atomically. Its bytes depend only on the shard."""
  lengths = shard.index["length"].astype(np.int64)
  blocks_of, arrays, sketched = {}, {}, {}
  for name in shard.arrays:
    widths = shard.index[f"array_width/{name}"].astype(np.int64)
    blocks_of[f"xxh64/{name}"] = (np.uint64, (int(blocks(lengths[widths != 0]).sum()),))
    if (width := one_width(widths)) > 0:
      sketched[f"sketch/{name}"] = (np.float64, (summaries.SKETCH, width))
    dtype = np.dtype(shard.text[f"dtype/{name}"])
    arrays[name] = (dtype, (int((lengths * np.abs(widths)).sum()),))
  shapes = (
    blocks_of | sketched | dict(sorted(arrays.items(), key=lambda item: -item[1][0].itemsize))
  )
  temporary = f"{path}.{os.getpid()}.tmp"
  with columns.Columns(temporary, shapes, {"version": str(VERSION)}) as out:
    for name in arrays:
      at, block = 0, 0
      for clip in range(len(shard)):
        rows = shard.array(clip, name)
        if rows is None:
          continue
        found = checksums(rows)
        out.arrays[name][at : at + rows.size] = rows.ravel()
        out.arrays[f"xxh64/{name}"][block : block + len(found)] = found
        at, block = at + rows.size, block + len(found)
      if (key := f"sketch/{name}") in sketched:
        width = sketched[key][1][1]
        out.arrays[key][:] = summaries.sketch(out.arrays[name].reshape(-1, width))
  os.replace(temporary, path)
