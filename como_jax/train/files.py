"""Small files that a kill must not leave half written."""

import os
import pathlib


def write(path: pathlib.Path, text: str) -> None:
  """Replaces a file as a whole: the old content or the new one, never a part."""
  fresh = path.with_name(f".{path.name}.new")
  with fresh.open("w") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(fresh, path)
