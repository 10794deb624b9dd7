"""Writes the index of all frames of a folder of shards, and the files of numbers that it names."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from como_jax import errors
from como_jax.data import columns, frame_index, number_file, shard_file, summaries

_LARGEST = 2**32 - 1  # bytes of the frames of one camera of a clip


def write(
  folder: str,
  entries: Sequence[Mapping[str, Any]],
  *,
  into: str | None = None,
  own_numbers: bool = True,
) -> bool:
  """Writes index.columns from the shards' own indexes, atomically; pictures are not read.

  Files of numbers that are missing are written from the shards.

  Args:
    folder: of the shards.
    entries: of its shards, see `shards.read_manifest`.
    into: folder of the index; None = that of the shards.
    own_numbers: whether numbers have files of their own, which shards without frames do not need.

  Returns:
    False, and no file is written, when shards differ in a codec or in the kind of an array's
    numbers. They are then read by their own indexes.

  Raises:
    errors.UserError: a clip is too large.
  """
  path = os.path.join(into or folder, frame_index.FILE)
  shards = [dict(entry) for entry in entries]
  lengths, widths = [], []
  text = {
    "version": str(frame_index.VERSION),
    "numbers": number_file.SUFFIX if own_numbers else "",
    "shards": frame_index.identity(shards),
  }
  for entry in shards:
    file = _open(folder, entry)
    for name, value in file.text.items():
      if text.setdefault(name, value) != value:
        return False
    lengths.append(file.index["length"].astype(np.int64))
    widths.append({name: file.index[f"array_width/{name}"].copy() for name in file.arrays})
    numbers = number_file.path_of(file.path)
    if own_numbers and not os.path.isfile(numbers):
      number_file.write(file, numbers)
  first_clip = np.cumsum([0, *map(len, lengths)])
  names = {
    kind: sorted(name.removeprefix(f"{kind}/") for name in text if name.startswith(f"{kind}/"))
    for kind in ("codec", "dtype")
  }
  sketches: dict[str, int] = {}  # array -> its width
  counts = {f"blob/{name}": _blobs(text, name, np.concatenate(lengths)) for name in names["codec"]}
  for name in names["dtype"]:
    width = np.concatenate(
      [shard.get(name, np.zeros(len(n), int)) for shard, n in zip(widths, lengths, strict=True)]
    )
    counts[f"block/{name}"] = number_file.blocks(np.concatenate(lengths)) * (width != 0)
    if own_numbers and number_file.one_width(width) > 0:
      sketches[name] = number_file.one_width(width)
  temporary = f"{path}.{os.getpid()}.tmp"
  with columns.Columns(
    temporary,
    _sketch_shapes(sketches, len(shards))
    | _shapes(names, counts, len(shards), int(first_clip[-1])),
    text,
  ) as out:
    out.arrays["shard"][:] = [int(entry["shard"]) for entry in shards]
    out.arrays["first_clip"][:] = first_clip
    out.arrays["length"][:] = np.concatenate(lengths)
    for name, count in counts.items():
      out.arrays[f"first_{name}"][1:] = np.cumsum(count)
    for i, entry in enumerate(shards):
      clips = slice(int(first_clip[i]), int(first_clip[i + 1]))
      file = _open(folder, entry)
      for name in names["codec"]:
        _fill_blobs(out.arrays, file, name, clips)
      known = None
      if not own_numbers:
        known = number_file.read_checksums(file.path, index_xxh64=entry["index_xxh64"])
      _fill_blocks(out.arrays, file, clips, known)
      if sketches:
        numbers = number_file.NumberFile(number_file.path_of(file.path)).arrays
        for name in sketches.keys() & set(file.arrays):
          out.arrays[f"sketch/{name}"][i] = numbers[f"sketch/{name}"]
    out.arrays["digest"][0] = frame_index.digest_of(out.arrays)
  os.replace(temporary, path)
  return True


def _open(folder: str, entry: Mapping[str, Any]) -> shard_file.ShardFile:
  return shard_file.ShardFile(os.path.join(folder, entry["file"]), entry)


def _blobs(text: Mapping[str, str], camera: str, lengths: np.ndarray) -> np.ndarray:
  return -(-lengths // shard_file.CODECS[text[f"codec/{camera}"]])


def _shapes(
  names: Mapping[str, Sequence[str]], counts: Mapping[str, np.ndarray], shards: int, clips: int
) -> dict[str, tuple[type, tuple[int, ...]]]:
  """(dtype, shape) of each column, numbers of 8 bytes first."""
  cameras, arrays = names["codec"], names["dtype"]
  return {
    "digest": (np.uint64, (1,)),
    **{f"block/{name}": (np.uint64, (int(counts[f"block/{name}"].sum()),)) for name in arrays},
    "shard": (np.int64, (shards,)),
    "first_clip": (np.int64, (shards + 1,)),
    **{f"first_{name}": (np.int64, (clips + 1,)) for name in counts},
    **{f"offset/{name}": (np.uint64, (clips,)) for name in cameras},
    **{f"at/{name}": (np.uint64, (clips,)) for name in arrays},
    "length": (np.int32, (clips,)),
    **{f"{key}/{name}": (np.int32, (clips,)) for name in cameras for key in ("height", "width")},
    **{f"numbers/{name}": (np.int32, (clips,)) for name in arrays},
    **{f"blob/{name}": (np.uint32, (int(counts[f"blob/{name}"].sum()), 3)) for name in cameras},
  }


def _sketch_shapes(
  widths: Mapping[str, int], shards: int
) -> dict[str, tuple[type, tuple[int, ...]]]:
  return {
    f"sketch/{name}": (np.float64, (shards, summaries.SKETCH, width))
    for name, width in sorted(widths.items())
  }


def _fill_blobs(
  out: Mapping[str, np.ndarray], file: shard_file.ShardFile, camera: str, clips: slice
) -> None:
  """Fills the rows of one camera of a shard's clips."""
  for key in ("offset", "height", "width"):
    out[f"{key}/{camera}"][clips] = file.index[f"{key}/{camera}"]
  firsts = out[f"first_blob/{camera}"][clips.start : clips.stop + 1]
  sizes = file.index[f"size/{camera}"].astype(np.int64)
  before = np.concatenate([[0], np.cumsum(sizes)])
  starts = firsts - firsts[0]
  ends = before[1:] - np.repeat(before[starts[:-1]], np.diff(starts))
  if len(ends) and ends.max() > _LARGEST:
    raise errors.UserError(f"{file.path}: a clip has more than {_LARGEST} bytes: use shorter clips")
  rows = out[f"blob/{camera}"][int(firsts[0]) : int(firsts[-1])]
  checksums = file.index[f"checksum/{camera}"]
  rows[:, 0], rows[:, 1], rows[:, 2] = (
    ends,
    checksums & np.uint64(_LARGEST),
    checksums >> np.uint64(32),
  )


def _fill_blocks(
  out: Mapping[str, np.ndarray],
  file: shard_file.ShardFile,
  clips: slice,
  known: Mapping[str, np.ndarray] | None,
) -> None:
  """Fills the rows of the arrays of a shard's clips.

  Args:
    out: columns of the index.
    file: the shard.
    clips: rows of its clips.
    known: checksums of the blocks of arrays that lie in the shard; those that are missing are made
      of the arrays. None = the arrays have a file of their own.
  """
  numbers = number_file.NumberFile(number_file.path_of(file.path)) if known is None else None
  for name in file.arrays:
    widths = file.index[f"array_width/{name}"].astype(np.int64)
    out[f"numbers/{name}"][clips] = widths
    blocks = out[f"block/{name}"][
      slice(*(int(out[f"first_block/{name}"][i]) for i in (clips.start, clips.stop)))
    ]
    if numbers is None:
      out[f"at/{name}"][clips] = file.index[f"array_offset/{name}"]
      found = (known or {}).get(name)
      blocks[:] = found if found is not None and len(found) == len(blocks) else _made(file, name)
    else:
      sizes = file.index["length"].astype(np.int64) * np.abs(widths)
      sizes *= np.dtype(file.text[f"dtype/{name}"]).itemsize
      out[f"at/{name}"][clips] = numbers.starts[name] + np.cumsum(sizes) - sizes
      blocks[:] = numbers.arrays[f"xxh64/{name}"]


def _made(file: shard_file.ShardFile, name: str) -> list[int]:
  """Checksums of the blocks of an array of all clips, which is read."""
  arrays = (file.array(clip, name) for clip in range(len(file)))
  return [value for rows in arrays if rows is not None for value in number_file.checksums(rows)]
