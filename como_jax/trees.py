"""Pytrees of nested dicts addressed by path names such as
"encoder/blocks/attention/query/kernel".
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from como_jax import errors


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Nested dict -> {"a/b/c": leaf}, in sorted order of names."""
  flat = {}
  for key in sorted(tree):
    value, name = tree[key], f"{prefix}{key}"
    if isinstance(value, Mapping):
      flat.update(flatten(value, prefix=name + "/"))
    else:
      flat[name] = value
  return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `flatten`."""
  tree: dict[str, Any] = {}
  for name, value in flat.items():
    *parents, last = name.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = value
  return tree


def matches(name: str, patterns: Iterable[str]) -> bool:
  """Whether any regular expression matches the whole name."""
  return any(re.fullmatch(pattern, name) for pattern in patterns)


def mask(tree: Mapping[str, Any], patterns: Iterable[str]) -> dict[str, Any]:
  """Tree of bools: True where the leaf's name matches one of the patterns."""
  patterns = tuple(patterns)
  return unflatten({name: matches(name, patterns) for name in flatten(tree)})


def split(
  tree: Mapping[str, Any], patterns: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """(leaves that do not match, leaves that match), each a nested dict; `join` puts them together
  again.
  """
  patterns = tuple(patterns)
  flat = flatten(tree)
  rest = {name: leaf for name, leaf in flat.items() if not matches(name, patterns)}
  chosen = {name: leaf for name, leaf in flat.items() if matches(name, patterns)}
  return unflatten(rest), unflatten(chosen)


def join(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
  """One tree from two with disjoint leaves."""
  return unflatten({**flatten(first), **flatten(second)})


def merge(target: Mapping[str, Any], source: Mapping[str, Any], *, what: str) -> dict[str, Any]:
  """The source's leaves in the target's structure, strictly: same names, same shapes.

  Args:
    target: leaves with `.shape` and `.dtype` (arrays or ShapeDtypeStruct).
    source: arrays.
    what: names the source in messages, for example the checkpoint's path.

  Returns:
    The source tree, each leaf in the target's dtype.

  Raises:
    errors.UserError: naming every missing, surplus and misshapen leaf (the first few of each kind).
  """
  want, have = flatten(target), flatten(source)
  missing = [name for name in want if name not in have]
  surplus = [name for name in have if name not in want]
  misshapen = [
    f"{name} is {tuple(have[name].shape)}, expected {tuple(want[name].shape)}"
    for name in want
    if name in have and tuple(have[name].shape) != tuple(want[name].shape)
  ]
  if missing or surplus or misshapen:
    parts = [
      f"{len(names)} {kind}: " + "; ".join(names[:4]) + ("; ..." if len(names) > 4 else "")
      for kind, names in (
        ("missing", missing),
        ("surplus", surplus),
        ("of another shape", misshapen),
      )
      if names
    ]
    raise errors.UserError(
      f"{what} does not fit the model ({len(want)} leaves expected): " + " | ".join(parts)
    )
  return unflatten({name: have[name].astype(want[name].dtype) for name in want})
