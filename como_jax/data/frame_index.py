"""The index of all frames of a folder of shards, a column file that is mapped into memory.

With it, opening a shard reads nothing, and a sample reads its own frames from its first visit on.

index.columns lies beside records.parquet. It has one row a clip, shard by shard, and one row a
blob (a JPEG, or a group of pictures of H.264):

  shard, first_clip             [N], [N + 1]  numbers of the shards, their first rows
  length                        [R]           frames of a clip
  offset, height, width/CAMERA  [R]           first byte of the frames in the shard; pixels
  first_blob/CAMERA             [R + 1]       first row of a clip's blobs
  blob/CAMERA                   [B, 3]        end of a blob, counted from the clip's offset; its
                                              xxh64, lower and upper half
  at, numbers/ARRAY             [R]           first byte in the file of numbers; numbers of a
                                              row, 0 = the clip lacks it, -1 = a row is one number
  first_block/ARRAY             [R + 1]       first row of a clip's blocks
  block/ARRAY                   [blocks]      xxh64 of each block of rows (`number_file.BLOCK`)
  sketch/ARRAY                  [N, S, D]     of a shard's rows (`summaries.sketch`); count 0 = none

All but the rows of blobs and blocks are verified when the index is opened, by `digest`. A wrong row
of a blob or block shows as a wrong checksum of what it names. A folder without this file is read by
the index at the end of each shard (`shard_file`), as before.

Legend: N shards, R clips, B blobs of a camera, D numbers of a row.
"""

import functools
import json
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xxhash

from como_jax import errors, storage
from como_jax.data import columns, number_file, shard_file, stored, video

FILE = "index.columns"
VERSION = 1
_AGAIN = "delete it, or run ingest again, which makes it from the shards"


def digest_of(arrays: Mapping[str, np.ndarray]) -> int:
  """The xxh64 of the rows of clips: of all arrays but `digest`, blobs and blocks."""
  digest = xxhash.xxh64()
  for name in sorted(arrays):
    if name != "digest" and not name.startswith(("blob/", "block/")):
      digest.update(np.ascontiguousarray(arrays[name]).data)
  return digest.intdigest()


def identity(entries: Iterable[Mapping[str, Any]]) -> str:
  """Hash of the shards that an index belongs to: their numbers, files and own indexes."""
  facts = [[int(entry["shard"]), entry["file"], entry["index_xxh64"]] for entry in entries]
  return xxhash.xxh64_hexdigest(json.dumps(facts).encode())


def open_index(folder: str, entries: Iterable[Mapping[str, Any]]) -> "FrameIndex | None":
  """The index of a folder, None when it has none.

  Args:
    folder: of the shards.
    entries: of its shards, see `shards.read_manifest`.

  Raises:
    errors.UserError: it is damaged, of another version or of other shards.
  """
  path = os.path.join(folder, FILE)
  if not storage.exists(path):
    return None
  index = FrameIndex(path)
  if index.text["shards"] != identity(entries):
    raise errors.UserError(f"{path} is of other shards than those of this folder: {_AGAIN}")
  return index


def problems(folder: str, entries: Iterable[Mapping[str, Any]]) -> list[str]:
  """One line for an index, and for each file of numbers, that is missing or damaged.

  Shards that are missing are passed over. Without an index there is nothing to say.
  """
  try:
    index = open_index(folder, entries)
  except errors.UserError as error:
    return [str(error)]
  found = []
  if index is None:
    return []
  for entry in entries:
    path = os.path.join(folder, entry["file"])
    if not storage.exists(path):
      continue
    try:
      shard = IndexedShard(index, entry["shard"], path)
      for name in index.text:
        for clip in range(len(shard) if name.startswith("dtype/") else 0):
          shard.array(clip, name.removeprefix("dtype/"))
    except video.UnreadableError as error:
      found.append(str(error))
  return found


class FrameIndex:
  """The index of a folder; safe to share between threads. May be pickled.

  Attributes:
    path: of the file.
    arrays: name -> array, views of the mapped file.
    text: metadata: codecs and dtypes.
  """

  def __init__(self, path: str, *, verify: bool = True):
    """Maps an index.

    Args:
      path: of the file.
      verify: whether to compare `digest`, which reads the rows of clips.

    Raises:
      errors.UserError: it is missing, damaged or of another version.
    """
    self.path = path
    try:
      data = stored.StoredFile(path).mapped()
      self.arrays, self._starts, self.text = columns.parse(data)
      version, digest = int(self.text["version"]), int(self.arrays["digest"][0])
      if version == VERSION and verify and digest_of(self.arrays) != digest:
        raise ValueError("checksum differs")
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
      raise errors.UserError(f"{path} is missing or damaged ({error}): {_AGAIN}") from error
    if version != VERSION:
      raise errors.UserError(
        f"{path} has version {version}, this program reads version {VERSION}: "
        + ("update como_jax, or delete it" if version > VERSION else _AGAIN)
      )
    self._row = {int(shard): i for i, shard in enumerate(self.arrays["shard"])}

  def __getstate__(self):
    return self.path

  def __setstate__(self, state):
    self.__init__(state, verify=False)  # the process that sent it has verified it

  def __contains__(self, shard: int) -> bool:
    return int(shard) in self._row

  def clips(self, shard: int) -> range:
    """Rows of the clips of a shard."""
    i = self._row[int(shard)]
    return range(*map(int, self.arrays["first_clip"][i : i + 2]))

  def sketches(self, name: str) -> np.ndarray | None:
    """Sketches of an array, float64 [n, S, D], of the shards that have it; None without any."""
    found = self.arrays.get(f"sketch/{name}")
    return None if found is None else found[found[:, 0, 0] > 0]

  def rows(self, name: str, first: int, last: int) -> np.ndarray:
    """Rows of a column of blobs or blocks, counted as pages that are looked at."""
    array = self.arrays[name]
    size = array.strides[0]
    stored.looked_at(self.path, self._starts[name] + first * size, (last - first) * size)
    return array[first:last]


class IndexedShard:
  """A shard that is read by the index of its folder; safe to share between threads.

  It reads as `shard_file.ShardFile` does. Opening it reads nothing.
  """

  def __init__(self, index: FrameIndex, shard: int, path: str):
    """Opens a shard. Raises `video.UnreadableError` when the file is missing."""
    self.path, self._index = path, index
    clips = index.clips(shard)
    self._first, self._count = clips.start, len(clips)
    try:
      self._frames = stored.StoredFile(path)
    except OSError as error:
      raise video.UnreadableError(f"{path}: {error}") from error

  @functools.cached_property
  def _numbers(self) -> stored.StoredFile:
    if not self._index.text["numbers"]:
      return self._frames
    path = number_file.path_of(self.path)
    try:
      return stored.StoredFile(path)
    except OSError as error:
      raise video.UnreadableError(f"{path}: {error}") from error

  def __len__(self) -> int:
    """Number of clips."""
    return self._count

  def _row(self, clip: int) -> int:
    if not 0 <= clip < self._count:
      raise IndexError(f"clip {clip} of a shard of {self._count}")
    return self._first + int(clip)

  def _at(self, name: str, row: int) -> int:
    return int(self._index.arrays[name][row])

  def length(self, clip: int) -> int:
    """Number of frames of a clip."""
    return self._at("length", self._row(clip))

  def codec(self, camera: str) -> str:
    """Codec of a camera, a key of `shard_file.CODECS`."""
    return self._index.text[f"codec/{camera}"]

  def size(self, clip: int, camera: str) -> tuple[int, int]:
    """(height, width) of a camera's frames in a clip."""
    row = self._row(clip)
    return self._at(f"height/{camera}", row), self._at(f"width/{camera}", row)

  def blobs(self, clip: int, camera: str, numbers: Sequence[int]) -> dict[int, bytes]:
    """Reads encoded blobs of a clip; consecutive blobs are read in one range.

    Args:
      clip: number of the clip.
      camera: name of the camera.
      numbers: of the blobs within the clip.

    Returns:
      Number of the blob -> bytes.

    Raises:
      IndexError: there is no such blob.
      video.UnreadableError: a blob is damaged.
    """
    row, column, blobs = self._row(clip), f"first_blob/{camera}", {}
    base = self._at(column, row)
    count, offset = self._at(column, row + 1) - base, self._at(f"offset/{camera}", row)
    for run in shard_file.runs(sorted(set(map(int, numbers)))):
      if not 0 <= run[0] <= run[-1] < count:
        raise IndexError(f"blobs {run[0]} to {run[-1]} of a clip of {count}")
      before = int(run[0] > 0)  # the end of the blob before is where the first one starts
      rows = self._index.rows(f"blob/{camera}", base + run[0] - before, base + run[-1] + 1).tolist()
      start = first = rows[0][0] if before else 0
      data = self._read(self._frames, offset + first, rows[-1][0] - first)
      for number, (end, low, high) in zip(run, rows[before:], strict=True):
        blob = data[start - first : end - first] if len(run) > 1 else data
        if xxhash.xxh64_intdigest(blob) != low | high << 32:
          raise video.UnreadableError(
            f"{self.path} clip {clip} camera {camera!r}: the checksum of blob {number} differs "
            "(damaged)"
          )
        blobs[number], start = blob, end
    return blobs

  def array(self, clip: int, name: str) -> np.ndarray | None:
    """An array of a clip, [T, D] or [T]; None when the clip does not have it.

    Raises `video.UnreadableError`.
    """
    return self.array_rows(clip, name, 0, self.length(clip))

  def array_rows(self, clip: int, name: str, first: int, last: int) -> np.ndarray | None:
    """A copy of rows of an array of a clip; the blocks that hold them are read and verified.

    Args:
      clip: number of the clip.
      name: of the array.
      first: first row, at least 0.
      last: last row, exclusive, at most the number of frames.

    Returns:
      [n, D] or [n]; None when the clip does not have the array.

    Raises:
      video.UnreadableError: they are damaged, or the file of numbers is missing.
    """
    row = self._row(clip)
    width = self._at(f"numbers/{name}", row) if f"dtype/{name}" in self._index.text else 0
    if not width:
      return None
    dtype, shape = np.dtype(self._index.text[f"dtype/{name}"]), (-1, abs(width))[: 2 - (width < 0)]
    if last <= first:
      return np.zeros((0, *shape[1:]), dtype)
    size, block = abs(width) * dtype.itemsize, number_file.BLOCK
    low, high = first // block, -(-last // block)
    data = self._read(
      self._numbers,
      self._at(f"at/{name}", row) + low * block * size,
      (min(high * block, self._at("length", row)) - low * block) * size,
    )
    base = self._at(f"first_block/{name}", row)
    checksums = self._index.rows(f"block/{name}", base + low, base + high).tolist()
    for i, checksum in enumerate(checksums):
      if xxhash.xxh64_intdigest(data[i * block * size : (i + 1) * block * size]) != checksum:
        raise video.UnreadableError(
          f"{self._numbers.path} clip {clip}: the checksum of {name!r} differs (damaged)"
        )
    rows = np.frombuffer(data, dtype).reshape(shape)
    return rows[first - low * block : last - low * block].copy()

  def _read(self, file: stored.StoredFile, offset: int, size: int) -> bytes:
    if size < 0 or offset + size > file.size:
      raise video.UnreadableError(
        f"{file.path} is cut short or its index is damaged: {file.size} bytes, the index names "
        f"bytes {offset} to {offset + size}"
      )
    try:
      return file.read(offset, size)
    except OSError as error:
      raise video.UnreadableError(f"{file.path}: {error}") from error
