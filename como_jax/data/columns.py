"""Column files: named arrays in one file, in the layout of safetensors, mapped into memory."""

import json
import os
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

TEXT = "como_jax"  # name of the metadata, a JSON object
_DTYPES = {
  "F64": "<f8",
  "F32": "<f4",
  "F16": "<f2",
  "I64": "<i8",
  "I32": "<i4",
  "I16": "<i2",
  "I8": "|i1",
  "U64": "<u8",
  "U32": "<u4",
  "U16": "<u2",
  "U8": "|u1",
  "BOOL": "|b1",
}
_NAMES = {np.dtype(text): name for name, text in _DTYPES.items()}


def parse(data: memoryview) -> tuple[dict[str, np.ndarray], dict[str, int], dict[str, str]]:
  """(arrays as views, their first bytes within the file, metadata) of a column file.

  Its library would copy the arrays.

  Raises `ValueError`, `KeyError`, `TypeError` or `struct.error` for other bytes.
  """
  (size,) = struct.unpack_from("<Q", data)
  header = json.loads(bytes(data[8 : 8 + size]))
  text = json.loads(header.pop("__metadata__")[TEXT])
  body, arrays, starts = data[8 + size :], {}, {}
  for name, spec in header.items():
    start, end = spec["data_offsets"]
    arrays[name] = np.frombuffer(body[start:end], _DTYPES[spec["dtype"]]).reshape(spec["shape"])
    starts[name] = 8 + size + start
  return arrays, starts, text


class Columns:
  """A new column file whose arrays are filled in place; it is a context manager.

  Attributes:
    arrays: name -> array, zeros at first.
    starts: name -> its first byte within the file.
  """

  def __init__(
    self,
    path: str,
    shapes: Mapping[str, tuple[np.dtype | type, tuple[int, ...]]],
    text: Mapping[str, str],
  ):
    """Makes the file.

    Args:
      path: of the file.
      shapes: name -> (dtype, shape), in the order of the file. A file in which larger numbers come
        first has every array at a multiple of the size of its numbers.
      text: metadata.
    """
    header: dict[str, dict[str, Any]] = {
      "__metadata__": {TEXT: json.dumps(dict(text), sort_keys=True)}
    }
    end = 0
    dtypes = {name: np.dtype(dtype).newbyteorder("<") for name, (dtype, _) in shapes.items()}
    for name, (_, shape) in shapes.items():
      size = dtypes[name].itemsize * int(np.prod(shape, dtype=np.int64))
      header[name] = {
        "dtype": _NAMES[dtypes[name]],
        "shape": list(shape),
        "data_offsets": [end, end + size],
      }
      end += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
      file.write(struct.pack("<Q", len(encoded)) + encoded)
      file.truncate(8 + len(encoded) + end)
    self._map = np.memmap(path, np.uint8, "r+")
    self._path = path
    self.starts = {name: 8 + len(encoded) + header[name]["data_offsets"][0] for name in shapes}
    self.arrays = {
      name: self._map[
        start : start + header[name]["data_offsets"][1] - header[name]["data_offsets"][0]
      ]
      .view(dtypes[name])
      .reshape(shapes[name][1])
      for name, start in self.starts.items()
    }

  def __enter__(self) -> "Columns":
    return self

  def __exit__(self, *unused) -> None:
    self._map.flush()
    with open(self._path, "rb") as file:
      os.fsync(file.fileno())
