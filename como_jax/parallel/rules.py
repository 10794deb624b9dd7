"""Shardings inferred from path names and shapes, so nothing is boxed into the parameters.

A rule is (regular expression over the path name, one mesh axis or None per array axis). The first
rule whose expression is found and whose rank fits decides; a leaf without a rule is split on its
largest axis that the fsdp size divides. A mesh axis that does not divide the array axis it is meant
for takes the next one that it divides, and a warning says so.
"""

import contextlib
import math
import re
import warnings
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np

from como_jax import trees

Rule = tuple[str, tuple[str | None, ...]]

# Scanned stacks carry the layer axis in front; it is never split.
TENSOR_RULES: tuple[Rule, ...] = (
  (r"attention/(query|key|value)/kernel$", (None, "fsdp", "tensor")),
  (r"attention/(query|key|value)/bias$", (None, "tensor")),
  (r"attention/output/kernel$", (None, "tensor", "fsdp")),
  (r"mlp/up/kernel$", (None, "fsdp", "tensor")),
  (r"mlp/up/bias$", (None, "tensor")),
  (r"mlp/down/kernel$", (None, "tensor", "fsdp")),
  # Few activations meet these large kernels. Modulations pass theirs around instead of the
  # kernel: the layer's constraints say so, without which XLA would gather the activations of the
  # whole batch.
  (r"modulation\w*/kernel$", (None, None, "fsdp")),
  (r"modulation\w*/kernel$", (None, "fsdp")),
  (r"time/(in|out)/kernel$", ("fsdp", None)),  # split on its results it would cost just that
)

# Names used by `nn.with_logical_constraint` in the models.
ACTIVATION_RULES = (
  ("batch", ("data", "fsdp")),
  ("time", None),
  ("token", None),
  ("embed", None),
  ("heads", "tensor"),
  ("mlp", "tensor"),
  ("gathered_batch", "data"),
  ("modulation", "fsdp"),
)

_SAID: set[str] = set()  # a run asks for the same shardings several times
_SMALL = 2**16  # elements; below this a leaf is cheaper to replicate than to gather


def spec(
  name: str,
  shape: Sequence[int],
  mesh: jax.sharding.Mesh,
  *,
  rules: Sequence[Rule] = TENSOR_RULES,
  small: int = _SMALL,
) -> jax.sharding.PartitionSpec:
  """The PartitionSpec of one leaf."""
  axes = _rule(name, shape, rules)
  if axes:
    placed = _placed(axes, shape, mesh, movable=math.prod(shape) >= small)
    return jax.sharding.PartitionSpec(
      *(one if len(one) > 1 else one[0] if one else None for one in placed)
    )
  ways = mesh.shape["fsdp"]
  if ways == 1 or int(np.prod(shape)) < small:
    return jax.sharding.PartitionSpec()
  for axis in np.argsort(shape, kind="stable")[::-1]:
    if shape[axis] % ways == 0:
      return jax.sharding.PartitionSpec(*("fsdp" if i == axis else None for i in range(len(shape))))
  return jax.sharding.PartitionSpec()


def _rule(name: str, shape: Sequence[int], rules: Sequence[Rule]) -> tuple[str | None, ...] | None:
  """The mesh axis of each array axis by the first rule that fits."""
  return next(
    (axes for pattern, axes in rules if re.search(pattern, name) and len(axes) == len(shape)), None
  )


def _placed(
  axes: Sequence[str | None], shape: Sequence[int], mesh: jax.sharding.Mesh, *, movable: bool
) -> list[tuple[str, ...]]:
  """The mesh axes of every array axis: those of the rule where they divide, else on the next array
  axis where they do.

  The layers of a stack come last: split there, the whole stack is gathered for the layer at hand,
  which still spares the memory of the gradients and moments.
  """
  placed = [
    (axis,) if axis and size % mesh.shape[axis] == 0 else ()
    for axis, size in zip(axes, shape, strict=False)
  ]
  layers = {0} if len(shape) == 3 else set()
  for first, axis in enumerate(axes):
    if not axis or placed[first] or not movable:
      continue
    others = [(first + i) % len(shape) for i in range(1, len(shape))]
    for other in sorted(others, key=lambda i: i in layers):
      if (
        shape[other] % (mesh.shape[axis] * math.prod(mesh.shape[taken] for taken in placed[other]))
        == 0
      ):
        placed[other] += (axis,)
        break
  return placed


def misfits(
  shapes: Mapping[str, Sequence[int]],
  mesh: jax.sharding.Mesh,
  *,
  rules: Sequence[Rule] = TENSOR_RULES,
  small: int = _SMALL,
) -> list[str]:
  """What a mesh does not divide, a line for each mesh axis, for logs.

  Args:
    shapes: path name -> shape.
    mesh, rules, small: as of `spec`.
  """
  counts: dict[tuple[str, str], int] = {}
  for name, shape in shapes.items():
    axes = _rule(name, shape, rules)
    if math.prod(shape) < small:
      continue
    placed = _placed(axes, shape, mesh, movable=True) if axes else []
    moved = [axis for i, axis in enumerate(axes or ()) if axis and axis not in placed[i]]
    if (
      not axes
      and mesh.shape["fsdp"] > 1
      and not any(spec(name, shape, mesh, rules=rules, small=small))
    ):
      moved = ["fsdp"]
    for axis in moved:
      where = next((f"axis {i}" for i, taken in enumerate(placed) if axis in taken), "no axis")
      key = axis, f"{'x'.join(map(str, shape))} is split on {where}"
      counts[key] = counts.get(key, 0) + 1
  lines = []
  for axis in dict.fromkeys(axis for axis, _ in counts):
    texts = [f"{text} ({count})" for (of, text), count in counts.items() if of == axis]
    more = f"; and {len(texts) - 4} shapes more" if len(texts) > 4 else ""
    lines.append(
      f"config.train.mesh.{axis}={mesh.shape[axis]} does not divide all widths: "
      f"{'; '.join(texts[:4])}{more}. What is on no axis is whole on every device, what is split "
      "by layers (axis 0 of 3) is gathered whole at every step"
    )
  return lines


def shardings(
  tree, mesh: jax.sharding.Mesh, *, rules: Sequence[Rule] = TENSOR_RULES, small: int = _SMALL
):
  """A NamedSharding for every leaf of a pytree of shapes; optimizer moments get their parameter's:
  their path ends alike.

  Warns, once for each mesh and kind of tree, about rules whose axis does not divide.
  """
  shapes = {}

  def one(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    shapes[name] = tuple(leaf.shape)
    return jax.sharding.NamedSharding(mesh, spec(name, leaf.shape, mesh, rules=rules, small=small))

  found = jax.tree_util.tree_map_with_path(one, tree)
  for line in misfits(shapes, mesh, rules=rules, small=small):
    if line not in _SAID:
      _SAID.add(line)
      warnings.warn(line, stacklevel=2)
  return found


def table(params, mesh: jax.sharding.Mesh, **settings) -> dict[str, list]:
  """{path: PartitionSpec as a list}: the golden table of a model's shardings."""
  return {
    name: list(spec(name, leaf.shape, mesh, **settings))
    for name, leaf in trees.flatten(params).items()
  }


@contextlib.contextmanager
def activations(mesh: jax.sharding.Mesh):
  """Makes the models' logical constraints refer to this mesh, inside a traced function (flax reads
  the abstract mesh).
  """
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(ACTIVATION_RULES):
    yield
