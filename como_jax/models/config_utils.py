"""Spreads a config section into the constructor it names.

A misspelled or missing key is an error that names the key.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from como_jax import errors
from como_jax.models import specs

T = TypeVar("T")
LINEN_FIELDS = ("parent", "name")  # every Linen module has them; they are never settings
# sections whose `kind` decides what other keys they have
WITH_KIND = ("model.encoder", "model.bottleneck")


@dataclasses.dataclass(frozen=True)
class StackFields:
  """Fields of a `StackConfig` that do not come from the module's own section.

  Attributes:
    fixed: values from elsewhere in the config; the section must not set them.
    defaults: values of optional keys of the section, where they are not StackConfig's.
  """

  fixed: Mapping[str, Any]
  defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def plain(section: Any) -> dict[str, Any]:
  """`section`, a dict or ml_collections ConfigDict, as nested plain dicts."""
  if hasattr(section, "to_dict"):
    section = section.to_dict()
  return {
    key: plain(value) if isinstance(value, Mapping) or hasattr(value, "to_dict") else value
    for key, value in section.items()
  }


def check(
  section: Mapping[str, Any],
  where: str,
  *,
  required: tuple[str, ...],
  optional: tuple[str, ...] = (),
) -> None:
  """Checks that every key is known and every required key is present.

  Args:
    section: of the config.
    where: dotted name of the section.
    required: keys that it must have.
    optional: keys that it may have.

  Raises:
    errors.UserError: naming the first offending key as where.key.
  """
  valid = (*required, *optional)
  for key in section:
    if key not in valid:
      known = (
        errors.nearest(key, valid)
        if valid or where not in WITH_KIND
        else "this kind has no keys of its own"
      )
      advice = (
        f"; for another kind give the section whole: --config.{where}=\"{{'kind': ..., ...}}\""
        if where in WITH_KIND
        else ""
      )
      raise errors.UserError(f"unknown key {where}.{key}; {known}{advice}")
  for key in required:
    if key not in section:
      raise errors.UserError(f"missing key {where}.{key}")


def instantiate(
  constructor: Callable[..., T],
  section: Mapping[str, Any],
  where: str,
  *,
  stack: StackFields | None = None,
  **fields: Any,
) -> T:
  """`constructor(**section, **fields)` for a dataclass, with the section's keys checked.

  All Linen modules are dataclasses. For a module with a field `stack` the section holds the fields
  of `StackConfig` beside the module's own.

  Args:
    constructor: the dataclass.
    section: of the config.
    where: dotted name of the section.
    stack: the other fields of the module's `StackConfig`, None: the section holds all of them; not
      used for a dataclass without one.
    **fields: fields that come from elsewhere in the config.

  Raises:
    errors.UserError: naming the first unknown or missing key.
  """
  required, optional = _keys(constructor, {**fields, "stack": None})
  if "stack" not in {field.name for field in _fields(constructor)}:
    check(section, where, required=required, optional=optional)
    return constructor(**section, **fields)
  stack = stack or StackFields({})
  of_stack = _keys(specs.StackConfig, stack.fixed)
  check(section, where, required=of_stack[0] + required, optional=of_stack[1] + optional)
  names = [name for keys in of_stack for name in keys]
  values = {name: section[name] for name in names if name in section}
  own = {name: value for name, value in section.items() if name not in names}
  made = specs.StackConfig(**{**stack.defaults, **values}, **stack.fixed)
  return constructor(stack=made, **own, **fields)


def _fields(constructor: Any) -> tuple[dataclasses.Field, ...]:
  """The fields of a dataclass."""
  return dataclasses.fields(constructor)


def _keys(constructor: Callable, fields: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
  """(required, optional) keys of a section whose dataclass gets `fields` from elsewhere."""
  own = [
    field
    for field in _fields(constructor)
    if field.init and field.name not in (*LINEN_FIELDS, *fields)
  ]
  required = tuple(
    field.name
    for field in own
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
  )
  return required, tuple(field.name for field in own if field.name not in required)


def lookup(table: Mapping[str, T], name: Any, where: str) -> T:
  """`table[name]`.

  Args:
    table: the valid names.
    name: as in the config.
    where: dotted name of the key.

  Raises:
    errors.UserError: no such name, with the nearest one.
  """
  if not isinstance(name, str) or name not in table:
    raise errors.UserError(
      f"{where} is {plain(name) if hasattr(name, 'items') else name!r}; "
      f"{errors.nearest(str(name), table)}"
    )
  return table[name]


def choice(valid: Iterable[str], name: Any, where: str) -> str:
  """The name itself, after a check.

  Args:
    valid: the valid names.
    name: as in the config.
    where: dotted name of the key.

  Raises:
    errors.UserError: no such name, with the nearest one.
  """
  return lookup({key: key for key in valid}, name, where)
