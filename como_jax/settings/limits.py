"""Checks what the keys of a config hold, against the table of rules.py.

`check` refuses everything that a key may not hold in one line, before anything is loaded, compiled
or written.

A key that no line of the table names holds a value of the kind that the config which ships with the
program has there. Names that an extension may add to (models, objectives, simulators, formats) are
checked by the tables that hold them, see assembly/config_checks.py.
"""

import dataclasses
import fnmatch
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from como_jax import errors
from como_jax.settings import entries, paths, renames, values
from como_jax.settings.rules import KINDS, RULES, Rule

# Sections that may get keys which the shipped config does not have: whoever reads them knows which.
OPEN = (
  "model",
  "model.*",
  "objectives",
  "objectives.*",
  "policy.objectives",
  "policy.objectives.*",
  "build*",
  "collect.build*",
  "language",
)
MIXTURE = "data.mixture"
CAMERAS = ("data.cameras", "source.cameras", "policy.cameras")  # names of data sets' cameras


@functools.lru_cache(maxsize=4096)
def _rule(task: str, key: str) -> Rule | None:
  """The first line of the table that fits a key; None where none does."""
  for keys, rule in RULES:
    for pattern in keys.split():
      if fnmatch.fnmatchcase(f"{task}:{key}" if ":" in pattern else key, pattern):
        return rule
  return None


def rule(task: str, key: str, like: Any, kind: type | None = None) -> Rule:
  """What a key may hold.

  Args:
    task: of the config.
    key: dotted, without "config.".
    like: what the shipped config has there; None: nothing, so that None stays valid.
    kind: of the key where `like` is None.
  """
  listed = _rule(task, key)
  if listed is not None:
    return dataclasses.replace(listed, optional=True) if like is None else listed
  if isinstance(like, (tuple, list)) or (like is None and kind in (tuple, list)):
    kinds = {type(element) for element in like or ()} & set(KINDS)
    return Rule(kinds.pop() if len(kinds) == 1 else str, several=True, optional=like is None)
  kind = kind if like is None else type(like)
  return Rule(kind if kind is not None and kind in KINDS else str, optional=like is None)


def is_open(key: str) -> bool:
  """Whether a section takes keys that it does not have yet."""
  return any(fnmatch.fnmatchcase(key, pattern) for pattern in OPEN)


def leaves(section: Any, prefix: str = "") -> Iterator[tuple[Any, str, str]]:
  """(section, its key, whole dotted key) of every value; sections are not values."""
  for key in section:
    if hasattr(section[key], "keys"):
      yield from leaves(section[key], f"{prefix}{key}.")
    else:
      yield section, key, prefix + key


def check(config: Any, shipped: Any) -> None:
  """Refuses a value that its key cannot hold; the others get their usual form.

  The usual form of 'top' is ('top',) where a tuple is expected.

  Args:
    config: a whole config (ConfigDict), as a task would be given it.
    shipped: the config of the same task that ships with the program: its keys and kinds of values
      are those that are expected.

  Raises:
    errors.UserError: naming the key, what it holds and what is expected.
  """
  task = shipped["task"]
  _check_sections(config, shipped, "", task=task)
  for section, key, whole_key in list(leaves(config)):
    value = _checked(task, whole_key, section[key], shipped)
    if type(value) is not type(section[key]) or value != section[key]:
      with section.ignore_type():
        section[key] = value
  _check_heads(config, "config")


def _checked(task: str, key: str, value: Any, shipped: Any) -> Any:
  """The value of one key in its usual form."""
  name = f"config.{key}"
  if key == MIXTURE:
    return entries.check(value, name, task=task)
  expected = rule(task, key, *_like(shipped, key, value))
  value = values.coerced(value, expected.kind, several=expected.several)
  if key in CAMERAS and isinstance(value, tuple):
    value = tuple(map(values.camera, value))
  if not expected.holds(value):
    raise errors.UserError(refusal(name, value, expected))
  if expected.path and value:
    paths.checked(name, value)
  for pattern in (value or ()) if expected.pattern else ():
    _check_pattern(name, pattern)
  return value


def refusal(name: str, value: Any, expected: Rule) -> str:
  """The line for a value that is not what is expected."""
  shown = value if isinstance(value, str) and value else repr(value)
  shown = shown if len(shown) <= 80 else shown[:77] + "..."
  if expected.choices and not expected.several:
    return f"{name}={shown}: {errors.nearest(str(value), expected.choices)}"
  return f"{name}={shown}, expected {expected}"


def _like(shipped: Any, key: str, value: Any) -> tuple[Any, type | None]:
  """(what the shipped config has at a key, its kind where that is None).

  The value itself where the shipped config does not have the key.
  """
  *parents, last = key.split(".")
  section = _section(shipped, parents)
  if last not in section:
    return (value if value is not None else ""), None
  return section[last], section.get_type(last) if section[last] is None else None


def _section(shipped: Any, path: Sequence[str]) -> Any:
  """The section at a path of keys; {} where there is none."""
  section = shipped
  for key in path:
    if not hasattr(section, "keys") or key not in section:
      return {}
    section = section[key]
  return section


def _check_sections(config: Any, shipped: Any, prefix: str, *, task: str) -> None:
  """Every section is a section, with the keys of the shipped one; every value is none."""
  where = f"config.{prefix}".rstrip(".")
  if not hasattr(config, "keys"):
    raise errors.UserError(
      f"{where}={config!r}, expected a section: {{'key': value}} with the keys "
      + ", ".join(shipped)
    )
  opened = is_open(prefix.rstrip("."))
  for key in config:
    nested, like = hasattr(config[key], "keys"), shipped.get(key)
    if key not in shipped and (not opened or renames.new_name(task, prefix + key)):
      raise errors.UserError(
        f"config key {where}.{key} is unknown: {where} has no {key!r}: "
        f"{renames.nearest(task, prefix + key, shipped)}"
      )
    if hasattr(like, "keys"):
      _check_sections(config[key], like, f"{prefix}{key}.", task=task)
    elif nested and not (key in shipped or _rule(task, prefix + key)):
      # of another model than the shipped one
      _check_sections(config[key], {}, f"{prefix}{key}.", task=task)
    elif nested:
      raise errors.UserError(
        refusal(f"{where}.{key}", dict(config[key]), rule(task, prefix + key, like))
      )
  for key in shipped:
    if key not in config and not opened:
      raise errors.UserError(f"config key {where}.{key} is missing")


def _check_pattern(name: str, pattern: str) -> None:
  try:
    re.compile(pattern)
  except re.error as error:
    raise errors.UserError(f"{name}: {pattern!r} is no regular expression: {error}") from error


def _check_heads(section: Mapping[str, Any], where: str) -> None:
  """Attention splits the width of every transformer evenly over its heads."""
  if (num_heads := section.get("num_heads")) and section.get("width", 0) % num_heads:
    raise errors.UserError(
      f"{where}.width={section['width']} is not a multiple of {where}.num_heads={num_heads}"
    )
  for key, value in section.items():
    if hasattr(value, "keys"):
      _check_heads(value, f"{where}.{key}")
