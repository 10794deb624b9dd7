"""Renames and reshapes whole checkpoints by rules that can be inverted.

A foreign checkpoint is a flat dict {name: array}. Our parameters are a nested dict in which
repeated layers are stacked along one axis. Each source leaf and each target leaf is used exactly
once, except for sources on an explicit ignore list.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import einops
import numpy as np

from como_jax import errors, trees

LAYER = "{layer}"


@dataclasses.dataclass(frozen=True)
class Rule:
  """How one kind of leaf is converted.

  Attributes:
    source: name in the foreign checkpoint; "{layer}" stands for the numbers 0, 1, ... of repeated
      layers.
    target: path in our parameters; a tuple of paths splits the leaf along the first axis of the
      result of `axes`.
    axes: einops pattern from a foreign leaf to ours, for example "o i -> i o", or "(part o) i ->
      part i o" with three targets; "": unchanged.
    stack: axis of our leaf along which layers are stacked.
  """

  source: str
  target: str | tuple[str, ...]
  axes: str = ""
  stack: int = 0

  @property
  def targets(self) -> tuple[str, ...]:
    """All target paths."""
    return (self.target,) if isinstance(self.target, str) else self.target

  @property
  def layered(self) -> bool:
    """Whether the rule is for repeated layers."""
    return LAYER in self.source

  def name(self, layer: int | None) -> str:
    """The source name of a layer; None for rules without layers."""
    return self.source if layer is None else self.source.replace(LAYER, str(layer))

  def forward(self, leaf: np.ndarray) -> list[np.ndarray]:
    """Converts a foreign leaf to one leaf for each target."""
    split = not isinstance(self.target, str)
    leaf = (
      einops.rearrange(leaf, self.axes, **({"part": len(self.targets)} if split else {}))
      if self.axes
      else leaf
    )
    return list(leaf) if split else [leaf]

  def backward(self, leaves: Sequence[np.ndarray]) -> np.ndarray:
    """The inverse of `forward`."""
    leaf = leaves[0] if isinstance(self.target, str) else np.stack(leaves)
    before, _, after = (side.strip() for side in self.axes.partition("->"))
    return einops.rearrange(leaf, f"{after} -> {before}") if self.axes else leaf


def apply(
  rules: Sequence[Rule],
  source: Mapping[str, np.ndarray],
  *,
  ignore: Iterable[str] = (),
  shapes: Mapping[str, tuple[int, ...]] | None = None,
  what: str = "checkpoint",
) -> dict[str, Any]:
  """Converts a foreign checkpoint to our nested parameters.

  Args:
    rules: the rules; together, they must create each target once.
    source: {name: array}.
    ignore: regular expressions (full match) of source names that may be left over.
    shapes: {path in our parameters: expected shape}; None accepts all shapes.
    what: name of the source in messages.

  Raises:
    errors.UserError: source names are missing, left over or used twice, or leaves have a wrong
      shape; the message lists them.
  """
  _check(rules)
  depths = _depths(rules, source)
  requests = [
    (rule, layer, rule.name(layer))
    for rule in rules
    for layer in (range(depths[_group(rule)]) if rule.layered else (None,))
  ]
  used = [name for _, _, name in requests]
  missing = [name for name in used if name not in source]
  twice = (
    sorted({name for name in used if used.count(name) > 1}) if len(set(used)) < len(used) else []
  )
  used_names, ignore = set(used), tuple(ignore)
  surplus = [name for name in source if name not in used_names and not trees.matches(name, ignore)]
  _report(what, {"missing": missing, "left over": surplus, "used twice": twice})

  parts: dict[str, list[np.ndarray]] = {}
  broken = []
  for rule, _, name in requests:
    leaf = np.asarray(source[name])
    try:
      pieces = rule.forward(leaf)
    except einops.EinopsError:
      broken.append(
        f"{name} is {leaf.shape}, expected axes {rule.axes.partition('->')[0].strip()!r}"
      )
      continue
    for target, piece in zip(rule.targets, pieces, strict=True):
      parts.setdefault(target, []).append(piece)
  flat: dict[str, np.ndarray] = {}
  for rule in rules:
    for target in (t for t in rule.targets if t in parts):
      if len({piece.shape for piece in parts[target]}) > 1:
        listed = sorted({str(piece.shape) for piece in parts[target]})
        broken.append(f"layers of {rule.source} differ: {' and '.join(listed)}")
      else:
        flat[target] = (
          np.stack(parts[target], axis=rule.stack) if rule.layered else parts[target][0]
        )
        if shapes is not None and target in shapes and flat[target].shape != tuple(shapes[target]):
          broken.append(
            f"{rule.source} gives {target} the shape {flat[target].shape}, expected "
            f"{tuple(shapes[target])}"
          )
  _report(what, {"of another shape": broken})
  if shapes is not None:
    absent, unknown = sorted(set(shapes) - set(flat)), sorted(set(flat) - set(shapes))
    _report(what, {"not made by any rule": absent, "not in the model": unknown})
  return trees.unflatten(flat)


def invert(
  rules: Sequence[Rule], params: Mapping[str, Any], *, what: str = "parameters"
) -> dict[str, np.ndarray]:
  """Converts our nested parameters to the foreign checkpoint: the inverse of `apply`.

  Leaves that `apply` ignored are not in the result.

  Args:
    rules: the rules.
    params: our parameters.
    what: name of the parameters in messages.

  Raises:
    errors.UserError: leaves are missing or left over, or stacks have different depths; the message
      lists them.
  """
  _check(rules)
  flat = trees.flatten(params)
  targets = [target for rule in rules for target in rule.targets]
  _report(
    what,
    {
      "missing": [t for t in targets if t not in flat],
      "left over": sorted(set(flat) - set(targets)),
    },
  )
  depths: dict[str, set[int]] = {}
  for rule in (rule for rule in rules if rule.layered):
    depths.setdefault(_group(rule), set()).update(
      np.shape(flat[target])[rule.stack] for target in rule.targets
    )
  _report(
    what,
    {
      "of several depths": [
        f"{group}: {sorted(values)}" for group, values in depths.items() if len(values) > 1
      ]
    },
  )
  source = {}
  for rule in rules:
    leaves = [np.asarray(flat[target]) for target in rule.targets]
    for layer in range(*depths[_group(rule)]) if rule.layered else (None,):
      layer_leaves = (
        leaves if layer is None else [np.take(leaf, layer, axis=rule.stack) for leaf in leaves]
      )
      source[rule.name(layer)] = rule.backward(layer_leaves)
  return source


def rename(
  source: Mapping[str, Any], spellings: Sequence[tuple[str, str | Callable]], *, what: str
) -> dict[str, Any]:
  """Renames tensors from other spellings to the one of the rules.

  Args:
    source: {name: array}.
    spellings: pairs (regular expression, replacement), applied in order.
    what: name of the source in messages.

  Raises:
    errors.UserError: two names become equal.
  """
  renamed: dict[str, Any] = {}
  for name, leaf in source.items():
    new = name
    for pattern, replacement in spellings:
      new = re.sub(pattern, replacement, new)
    if new in renamed:
      raise errors.UserError(f"{what} has {new!r} twice, under two spellings")
    renamed[new] = leaf
  return renamed


def _group(rule: Rule) -> str:
  """The text before "{layer}", which is the same for all rules of a stack of layers."""
  return rule.source.partition(LAYER)[0]


def _depths(rules: Sequence[Rule], source: Mapping[str, Any]) -> dict[str, int]:
  """The number of layers of each group: one more than the highest layer number in the names.

  If a layer number has a gap, its leaves are then reported as missing.
  """
  depths = {_group(rule): 1 for rule in rules if rule.layered}
  for group in depths:
    pattern = re.compile(re.escape(group) + r"(\d{1,4})\.")
    layers = [int(match[1]) for match in map(pattern.match, source) if match]
    depths[group] = max(layers, default=0) + 1
  return depths


def _check(rules: Sequence[Rule]) -> None:
  """Checks a table of rules for programming errors."""
  targets = [target for rule in rules for target in rule.targets]
  duplicates = sorted({target for target in targets if targets.count(target) > 1})
  if duplicates:
    raise ValueError(f"two rules make {duplicates}")


def _report(what: str, problems: Mapping[str, Sequence[str]]) -> None:
  parts = [
    f"{len(names)} {kind}: " + "; ".join(names[:6]) + ("; ..." if len(names) > 6 else "")
    for kind, names in problems.items()
    if names
  ]
  if parts:
    raise errors.UserError(f"{what} does not fit: " + " | ".join(parts))
