"""Reads images that are stored in a LeRobot table, or in files named by the table."""

import io
import os
import re

from PIL import Image

# Exceptions of Pillow and of the checks in this module when the bytes are damaged.
ERRORS = (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError)


def read(root: str, cell: object) -> bytes:
  """The encoded image of a cell of a table.

  Args:
    root: folder of the data set.
    cell: a struct of bytes and path, bytes, or a path.

  Raises one of `ERRORS`.
  """
  data, name = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
  if isinstance(data, str):
    data, name = None, data
  if data:
    if isinstance(data, bytes):
      return data
    raise TypeError(f"a bytes-like object is required, not {type(data).__name__!r}")
  if not isinstance(name, str):
    raise ValueError("the cell is empty")
  path = os.path.join(root, name)
  if os.path.isabs(name) or ".." in name.split("/"):
    raise ValueError(f"{name!r} leads out of the data set")
  if not os.path.isfile(path):
    raise ValueError(f"{name} is missing")
  with open(path, "rb") as file:
    return file.read()


def reason(error: Exception) -> str:
  """Text of an exception without the memory addresses that Pillow adds, so runs are comparable."""
  return re.sub(r" <_io\.BytesIO[^>]*>", "", str(error))


def is_deep(data: bytes) -> bool:
  """Whether an image has more than 8 bits per channel, like a depth image.

  Raises one of `ERRORS`.
  """
  mode = Image.open(io.BytesIO(data)).mode
  return mode.startswith("I") or mode == "F"
