"""Values from the text of a command line, by the kind of value that a key holds."""

import ast
import math
import re
from typing import Any

TRUE, FALSE = ("true", "t", "1", "yes"), ("false", "f", "0", "no")


class Unreadable(ValueError):
  """The text is no value of the kind."""


def read(text: str, kind: type) -> Any:
  """The value of one bool, int, float or str.

  Raises:
    Unreadable: it is none. Texts that look like a tuple, list or dict are none either: that is a
      slip of the keyboard.
  """
  try:
    if kind is bool:
      return {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}[text.lower()]
    if kind is int:
      return int(text)
    if kind is float:
      return float(text)
  except (KeyError, ValueError) as error:
    raise Unreadable(text) from error
  if text[:1] in ("(", "[", "{") and isinstance(_literal(text), (tuple, list, dict, set)):
    raise Unreadable(text)
  return text


def read_several(text: str) -> tuple:
  """A tuple: "('a', 'b')" or, for one element, the element alone.

  Raises:
    Unreadable: it is a dict or set, or several things without brackets.
  """
  value = _literal(text)
  if value is None:
    if not text.strip() or any(sign in text for sign in ",()[]{}'\""):
      raise Unreadable(text)
    return (text,)
  if isinstance(value, (dict, set)):
    raise Unreadable(text)
  return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def read_dict(text: str) -> dict:
  """A dict "{'key': value}". Raises `Unreadable`."""
  value = _literal(text)
  if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
    raise Unreadable(text)
  return value


def coerced(value: Any, kind: type, *, several: bool) -> Any:
  """The value in its usual form, where it plainly means it.

  One element is a tuple of it, a list is a tuple, 1 is 1.0.
  """
  if several:
    if isinstance(value, (str, bool, int, float)):
      value = (value,)
    return (
      tuple(coerced(element, kind, several=False) for element in value)
      if isinstance(value, (tuple, list))
      else value
    )
  return float(value) if kind is float and type(value) is int else value


def camera(name: Any) -> Any:
  """A camera's name from its LeRobot feature: "observation.images.top" -> "top".

  The reader of LeRobot names cameras so.
  """
  return re.sub(r"^observation\.(images\.)?", "", name) if isinstance(name, str) else name


def fits(value: Any, kind: type) -> bool:
  """Whether a value is of the kind: True is no number, and neither are nan and infinity."""
  if kind is float:
    return type(value) in (int, float) and math.isfinite(value)
  return type(value) is kind


def _literal(text: str) -> Any:
  """What Python reads in a text without names; None for anything else."""
  try:
    return ast.literal_eval(text.strip())
  except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
    return None
