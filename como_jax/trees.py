"""Pytrees of nested dicts whose leaves have path names.

For example "encoder/blocks/attention/query/kernel".
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from como_jax import errors


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Nested dict -> {"a/b/c": leaf}, sorted by key at each level.

  >>> flatten({"head": {"kernel": 1, "bias": 2}})
  {'head/bias': 2, 'head/kernel': 1}
  """
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
  """Tree of bools: True where the leaf's name matches one of the patterns.

  >>> mask({"encoder": {"kernel": 1}, "head": {"kernel": 2}}, ("encoder/.*",))
  {'encoder': {'kernel': True}, 'head': {'kernel': False}}
  """
  patterns = tuple(patterns)
  return unflatten({name: matches(name, patterns) for name in flatten(tree)})


def split(
  tree: Mapping[str, Any], patterns: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Splits a tree into (leaves that do not match, leaves that match), both nested dicts.

  `join` is the inverse.
  """
  patterns = tuple(patterns)
  flat = flatten(tree)
  unmatched = {name: leaf for name, leaf in flat.items() if not matches(name, patterns)}
  matched = {name: leaf for name, leaf in flat.items() if matches(name, patterns)}
  return unflatten(unmatched), unflatten(matched)


def join(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
  """Combines two trees with disjoint leaves into one."""
  return unflatten({**flatten(first), **flatten(second)})


def merge(target: Mapping[str, Any], source: Mapping[str, Any], *, what: str) -> dict[str, Any]:
  """Puts the source's leaves into the target's structure; names and shapes must be the same.

  Args:
    target: leaves with `.shape` and `.dtype` (arrays or ShapeDtypeStruct).
    source: arrays.
    what: name of the source in messages, for example the path of a checkpoint.

  Returns:
    The source tree, each leaf in the target's dtype.

  Raises:
    errors.UserError: some leaves are missing, surplus or of another shape; the message names the
      first four of each kind.
  """
  expected, actual = flatten(target), flatten(source)
  missing = [name for name in expected if name not in actual]
  surplus = [name for name in actual if name not in expected]
  misshapen = [
    f"{name} is {tuple(actual[name].shape)}, expected {tuple(expected[name].shape)}"
    for name in expected
    if name in actual and tuple(actual[name].shape) != tuple(expected[name].shape)
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
      f"{what} does not fit the model ({len(expected)} leaves expected): " + " | ".join(parts)
    )
  return unflatten({name: actual[name].astype(expected[name].dtype) for name in expected})
