"""Shardings inferred from path names and shapes, without metadata boxes in the parameters.

A rule is (regular expression over the path name, one mesh axis or None per array axis). The first
rule whose expression and rank match is used. A leaf without a rule is split on its largest axis
that the fsdp size divides. If a mesh axis does not divide the array axis of its rule, it moves to
the next array axis that it divides, and a warning says so.
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

# The first axis of scanned stacks is the layer axis; these rules never split it.
TENSOR_RULES: tuple[Rule, ...] = (
  (r"attention/(query|key|value)/kernel$", (None, "fsdp", "tensor")),
  (r"attention/(query|key|value)/bias$", (None, "tensor")),
  (r"attention/output/kernel$", (None, "tensor", "fsdp")),
  (r"mlp/up/kernel$", (None, "fsdp", "tensor")),
  (r"mlp/up/bias$", (None, "tensor")),
  (r"mlp/down/kernel$", (None, "tensor", "fsdp")),
  # These large kernels have few activations. In modulations the activations are communicated
  # instead of the kernel, by constraints in the layer. Without the constraints, XLA would gather
  # the activations of the whole batch.
  (r"modulation\w*/kernel$", (None, None, "fsdp")),
  (r"modulation\w*/kernel$", (None, "fsdp")),
  # splitting the outputs of this kernel would cause the same gather
  (r"time/(in|out)/kernel$", ("fsdp", None)),
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

_SAID: set[str] = set()  # warnings already shown; a run computes the same shardings several times
_SMALL = 2**16  # elements; replicating a smaller leaf is cheaper than gathering it


def spec(
  name: str,
  shape: Sequence[int],
  mesh: jax.sharding.Mesh,
  *,
  rules: Sequence[Rule] = TENSOR_RULES,
  small: int = _SMALL,
) -> jax.sharding.PartitionSpec:
  """Returns the PartitionSpec of one leaf.

  Args:
    name: path name, with "/" between the keys.
    shape: of the leaf.
    mesh: of the run.
    rules: in order of priority.
    small: a leaf with fewer elements is replicated where no rule splits it.
  """
  axes = _rule(name, shape, rules)
  if axes:
    placed = _placed(axes, shape, mesh, movable=math.prod(shape) >= small)
    return jax.sharding.PartitionSpec(
      *(names if len(names) > 1 else names[0] if names else None for names in placed)
    )
  count = mesh.shape["fsdp"]
  if count == 1 or int(np.prod(shape)) < small:
    return jax.sharding.PartitionSpec()
  for axis in np.argsort(shape, kind="stable")[::-1]:
    if shape[axis] % count == 0:
      return jax.sharding.PartitionSpec(*("fsdp" if i == axis else None for i in range(len(shape))))
  return jax.sharding.PartitionSpec()


def _rule(name: str, shape: Sequence[int], rules: Sequence[Rule]) -> tuple[str | None, ...] | None:
  """Mesh axis of each array axis by the first matching rule; None without a match."""
  return next(
    (axes for pattern, axes in rules if re.search(pattern, name) and len(axes) == len(shape)), None
  )


def _placed(
  axes: Sequence[str | None], shape: Sequence[int], mesh: jax.sharding.Mesh, *, movable: bool
) -> list[tuple[str, ...]]:
  """Mesh axes of every array axis.

  A mesh axis stays where its rule puts it if it divides that array axis. Otherwise it moves to the
  next array axis that it divides. The layer axis of a stack comes last: a stack that is split there
  must be gathered whole for each layer. This still saves memory for the gradients and moments.

  Args:
    axes: of the rule.
    shape: of the leaf.
    mesh: of the run.
    movable: whether a mesh axis may move.
  """
  placed: list[tuple[str, ...]] = [
    (axis,) if axis and size % mesh.shape[axis] == 0 else ()
    for axis, size in zip(axes, shape, strict=False)
  ]
  layers = {0} if len(shape) == 3 else set()
  for first, axis in enumerate(axes):
    if not axis or placed[first] or not movable:
      continue
    candidates = [(first + i) % len(shape) for i in range(1, len(shape))]
    for candidate in sorted(candidates, key=lambda i: i in layers):
      parts = mesh.shape[axis] * math.prod(mesh.shape[name] for name in placed[candidate])
      if shape[candidate] % parts == 0:
        placed[candidate] += (axis,)
        break
  return placed


def misfits(
  shapes: Mapping[str, Sequence[int]],
  mesh: jax.sharding.Mesh,
  *,
  rules: Sequence[Rule] = TENSOR_RULES,
  small: int = _SMALL,
) -> list[str]:
  """Lists the shapes that the mesh axes of their rules do not divide, for logs.

  Args:
    shapes: path name -> shape.
    mesh: as in `spec`.
    rules: as in `spec`.
    small: as in `spec`.

  Returns:
    One line for each mesh axis.
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
      where = next((f"axis {i}" for i, names in enumerate(placed) if axis in names), "no axis")
      key = axis, f"{'x'.join(map(str, shape))} is split on {where}"
      counts[key] = counts.get(key, 0) + 1
  lines = []
  for axis in dict.fromkeys(axis for axis, _ in counts):
    texts = [f"{text} ({count})" for (name, text), count in counts.items() if name == axis]
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
  """Returns a NamedSharding for every leaf of a pytree of shapes.

  An optimizer moment gets the sharding of its parameter, because their paths have the same end. The
  function warns about rules whose axis does not divide, once for each mesh and kind of tree.

  Args:
    tree: pytree of arrays or shapes.
    mesh: as in `spec`.
    rules: as in `spec`.
    small: as in `spec`.
  """
  shapes = {}

  def leaf_sharding(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    shapes[name] = tuple(leaf.shape)
    return jax.sharding.NamedSharding(mesh, spec(name, leaf.shape, mesh, rules=rules, small=small))

  result = jax.tree_util.tree_map_with_path(leaf_sharding, tree)
  for line in misfits(shapes, mesh, rules=rules, small=small):
    if line not in _SAID:
      _SAID.add(line)
      warnings.warn(line, stacklevel=2)
  return result


def table(params, mesh: jax.sharding.Mesh, **settings) -> dict[str, list]:
  """Returns {path: PartitionSpec as a list}, the golden table of a model's shardings."""
  return {
    name: list(spec(name, leaf.shape, mesh, **settings))
    for name, leaf in trees.flatten(params).items()
  }


@contextlib.contextmanager
def activations(mesh: jax.sharding.Mesh):
  """Context in which the models' logical constraints refer to this mesh.

  Use it inside a traced function; flax reads the abstract mesh.
  """
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(ACTIVATION_RULES):
    yield
