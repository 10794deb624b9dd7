"""Spreads a config section into the constructor it names; a misspelled or missing key is an error
that says which.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from como_jax import errors

LINEN_FIELDS = ("parent", "name")  # every Linen module has them; they are never settings
# sections whose `kind` decides what other keys they have
WITH_KIND = ("model.encoder", "model.bottleneck")


def plain(section: Any) -> dict[str, Any]:
  """A dict (or ml_collections ConfigDict) as nested plain dicts, lists as tuples left alone."""
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
  """Every key known, every required key there.

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


def instantiate(constructor: Callable, section: Mapping[str, Any], where: str, **given: Any) -> Any:
  """`constructor(**section, **given)` for a dataclass (all Linen modules are), with the section's
  keys checked.

  `given` are the fields that come from elsewhere in the config; a section may set the optional ones
  of its own.
  """
  fields = [
    field
    for field in dataclasses.fields(constructor)
    if field.init and field.name not in LINEN_FIELDS
  ]
  needed = tuple(
    field.name
    for field in fields
    if field.name not in given
    and field.default is dataclasses.MISSING
    and field.default_factory is dataclasses.MISSING
  )
  optional = tuple(
    field.name for field in fields if field.name not in needed and field.name not in given
  )
  check(section, where, required=needed, optional=optional)
  return constructor(**section, **given)


def lookup(table: Mapping[str, Any], name: str, where: str) -> Any:
  """`table[name]`, or a UserError with the nearest entry."""
  if not isinstance(name, str) or name not in table:
    raise errors.UserError(
      f"{where} is {plain(name) if hasattr(name, 'items') else name!r}; "
      f"{errors.nearest(str(name), table)}"
    )
  return table[name]
