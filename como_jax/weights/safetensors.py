"""Files of the safetensors format, read and written without its library.

A file is 8 bytes of header length, a JSON header and the raw numbers. That takes a page, knows
bfloat16 without torch, and every way a file can be broken becomes one line that names the file.
Format: github.com/huggingface/safetensors, README ("Format").
"""

import json
import math
import mmap
import os
import pathlib
import struct
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from como_jax import errors

DTYPES = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
  "I64": np.int64,
  "I32": np.int32,
  "I16": np.int16,
  "I8": np.int8,
  "U64": np.uint64,
  "U32": np.uint32,
  "U16": np.uint16,
  "U8": np.uint8,
  "BOOL": np.bool_,
}
_CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """{name: read-only array mapped from the file}, in order of names.

  Raises:
    errors.UserError: anything but a whole file.
  """
  path = pathlib.Path(path)
  try:
    with open(path, "rb") as file:
      size = os.fstat(file.fileno()).st_size
      content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
  except OSError as error:
    raise errors.UserError(f"cannot read {path}: {error.strerror or error}") from None
  length = struct.unpack("<Q", content[:8])[0] if size >= 8 else 0
  if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
    raise errors.UserError(
      f"{path} is not a safetensors file, or is cut off in its header ({size} bytes)"
    )
  try:
    header = json.loads(content[8 : 8 + length])
    entries = {}
    for name in sorted(set(header) - {"__metadata__"}):
      begin, end = header[name]["data_offsets"]
      entries[name] = (header[name]["dtype"], tuple(header[name]["shape"]), begin, end)
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
    raise errors.UserError(f"{path} is not a safetensors file: its header cannot be read") from None
  arrays = {}
  for name, (code, shape, begin, end) in entries.items():
    if not isinstance(code, str) or code not in DTYPES:
      raise errors.UserError(
        f"{path}: {name!r} has dtype {code!r}; {errors.nearest(str(code), DTYPES)}"
      )
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
      raise errors.UserError(f"{path}: {name!r} has a shape or an offset that is not a count")
    dtype = np.dtype(DTYPES[code])
    count = math.prod(shape)
    if end - begin != count * dtype.itemsize:
      raise errors.UserError(
        f"{path}: {name!r} of shape {shape} has {end - begin} bytes, expected "
        f"{count * dtype.itemsize}"
      )
    if 8 + length + end > size:
      raise errors.UserError(
        f"{path} is truncated: {name!r} ends at byte {8 + length + end}, the file at {size}"
      )
    arrays[name] = (
      np.frombuffer(content, dtype, count, 8 + length + begin).reshape(shape)
      if count
      else np.zeros(shape, dtype)
    )
  return arrays


def write(path: str | os.PathLike, flat: Mapping[str, np.ndarray]) -> None:
  """Writes arrays in order of names and waits until they are on disk.

  Raises:
    errors.UserError: a leaf's dtype is not in the format.
    OSError: from the file system.
  """
  header, arrays, offset = {}, [], 0
  for name in sorted(flat):
    array = np.asarray(flat[name])
    if array.dtype not in _CODES:
      raise errors.UserError(
        f"cannot save {name!r}: dtype {array.dtype}; "
        f"{errors.nearest(str(array.dtype), map(str, _CODES))}"
      )
    header[name] = {
      "dtype": _CODES[array.dtype],
      "shape": list(array.shape),
      "data_offsets": [offset, offset + array.nbytes],
    }
    arrays.append(array)
    offset += array.nbytes
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # the numbers start at a multiple of 8
  with open(path, "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for array in arrays:
      file.write(
        np.ascontiguousarray(array).tobytes()
        if array.ndim == 0
        else np.ascontiguousarray(array).view(np.uint8).data
      )
    file.flush()
    os.fsync(file.fileno())
