"""Entries of `config.data.mixture`: which keys a task's entries have, and what these hold."""

from typing import Any

from como_jax import errors
from como_jax.settings import paths, values

VIEWS = ("together", "each")
_TEXTS = "a tuple of texts, for example ('a', 'b'), or one text"
# key -> (kind, whether it is a tuple, what is expected)
FIELDS: dict[str, tuple[type, bool, str]] = {
  "path": (str, False, "a folder"),
  "weight": (float, False, "a number above 0"),
  "offset_seconds": (float, False, "a number of seconds above 0"),
  "cameras": (str, True, _TEXTS),
  "name": (str, False, "a text"),
  "robot": (str, False, "a text without a dot"),
  "labels": (str, False, 'a folder of configs/extract.py, or ""'),
  "views": (str, False, "'together' or 'each'"),
  "episodes": (int, True, "(first, last) with 0 <= first < last, or ()"),
  "tasks": (str, True, _TEXTS),
}
_VIDEO = ("path", "weight", "offset_seconds", "cameras", "name")
KEYS = {
  "policy": ("path", "weight", "robot", "labels", "cameras", "views", "episodes", "tasks", "name")
}
FORM = (
  "write ({'path': 'A', 'weight': 1.0}, {'path': 'B'}), and ({'path': 'A'},) with its comma for one"
)


def check(mixture: Any, name: str, *, task: str) -> tuple[dict[str, Any], ...]:
  """The entries in their usual form: one camera or task as a tuple, numbers as float.

  Args:
    mixture: as it was given.
    name: of the key that holds it, for messages.
    task: "policy", or any other one that reads videos.

  Raises:
    errors.UserError: naming the entry, its key and what is expected there.
  """
  if isinstance(mixture, str) or not isinstance(mixture, (tuple, list)):
    raise errors.UserError(f"{name} is a {_kind(mixture)}, expected a tuple of dicts: {FORM}")
  return tuple(
    _entry(entry, f"{name}[{i}]", KEYS.get(task, _VIDEO)) for i, entry in enumerate(mixture)
  )


def _entry(entry: Any, where: str, valid: tuple[str, ...]) -> dict[str, Any]:
  if not hasattr(entry, "items"):
    raise errors.UserError(f"{where} is {_short(entry)}, expected a dict: {FORM}")
  checked = {}
  for key, value in entry.items():
    if key not in valid:
      raise errors.UserError(f"{where}: an entry has the key {key!r}: {errors.nearest(key, valid)}")
    kind, several, expected = FIELDS[key]
    value = values.coerced(value, kind, several=several)
    if (
      not (isinstance(value, tuple) if several else values.fits(value, kind))
      or (several and not all(values.fits(element, kind) for element in value))
      or not _sensible(key, value)
    ):
      raise errors.UserError(f"{where}[{key!r}] is {_short(entry[key])}, expected {expected}")
    if key in ("path", "labels"):
      paths.checked(f"{where}[{key!r}]", value, key=f"data.{key}")
    checked[key] = tuple(map(values.camera, value)) if key == "cameras" else value
  if "path" not in checked:
    raise errors.UserError(f"{where} has no 'path': the folder of its data")
  return checked


def _sensible(key: str, value: Any) -> bool:
  """Whether a value of the right kind can be meant."""
  if key == "path":
    return bool(value)
  if key in ("weight", "offset_seconds"):
    return value > 0
  if key == "robot":
    return "." not in value
  if key == "views":
    return value in VIEWS
  if key == "episodes":
    return not value or (len(value) == 2 and 0 <= value[0] < value[1])
  return True


def _kind(value: Any) -> str:
  return "dict" if hasattr(value, "items") else type(value).__name__


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 80 else text[:77] + "..."
