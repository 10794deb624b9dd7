"""Reads the JSON files of a LeRobot data set, and says which files are Git LFS pointers."""

import json

from como_jax import errors

POINTER = "a Git LFS pointer, not the file itself: 'git lfs pull' fetches it"


def is_pointer(path: str) -> bool:
  """Whether a file is a Git LFS pointer instead of the large file itself."""
  try:
    with open(path, "rb") as file:
      return file.read(24) == b"version https://git-lfs."
  except OSError:
    return False


def read_json(path: str) -> dict:
  """Reads a JSON object.

  Raises:
    errors.UserError: the file is missing or damaged, or holds another type.
  """
  try:
    # utf-8-sig, because some editors write a byte order mark at the start of a file.
    with open(path, encoding="utf-8-sig") as file:
      value = json.load(file)
  except (OSError, ValueError, RecursionError) as error:
    raise errors.UserError(
      f"{path} is {POINTER if is_pointer(path) else f'not readable JSON ({error})'}"
    ) from error
  if not isinstance(value, dict):
    raise errors.UserError(f"{path} holds a JSON {type(value).__name__}, expected an object")
  return value


def read_json_lines(path: str) -> tuple[list[dict], str]:
  """Reads a file with one JSON object per line.

  Returns:
    (the objects, a remark). The remark is "" unless the last line is truncated and left out.

  Raises:
    errors.UserError: the file is missing, or another line is damaged. The message gives the line
      number.
  """
  try:
    with open(path, "rb") as file:
      lines = file.read().split(b"\n")
  except OSError as error:
    raise errors.UserError(f"{path} cannot be read ({error.strerror})") from error
  numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
  rows = []
  for number, line in numbered:
    try:
      row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except (ValueError, RecursionError) as error:
      if is_pointer(path):
        raise errors.UserError(f"{path} is {POINTER}") from error
      # The recording was killed while it wrote the last line.
      if number == numbered[-1][0] and not line.rstrip().endswith(b"}"):
        return rows, f"line {number}, the last one, is cut and left out"
      text = (
        f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
      )
      raise errors.UserError(f"{path}: line {number} is not JSON ({text})") from error
    if not isinstance(row, dict):
      raise errors.UserError(
        f"{path}: line {number} holds a JSON {type(row).__name__}, expected an object"
      )
    rows.append(row)
  return rows, ""
