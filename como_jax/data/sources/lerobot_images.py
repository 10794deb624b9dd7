"""Images that lie in a LeRobot table, or in files that it names."""

import io
import os
import re

from PIL import Image

# What Pillow and our own checks raise on bad bytes.
ERRORS = (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError)


def read(root: str, cell: object) -> bytes:
  """The coded image of a table's cell: a struct of bytes and path, bytes, or a path.

  Raises one of `ERRORS`.
  """
  data, name = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
  if isinstance(data, str):
    data, name = None, data
  if data:
    return data
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
  """Why an image cannot be used, the same each time: Pillow names where the bytes lie in memory."""
  return re.sub(r" <_io\.BytesIO[^>]*>", "", str(error))


def is_deep(data: bytes) -> bool:
  """Whether an image has more than 8 bits a pixel in one channel, as depth has.

  Raises one of `ERRORS`.
  """
  mode = Image.open(io.BytesIO(data)).mode
  return mode.startswith("I") or mode == "F"
