"""Shardings inferred from path names and shapes, so nothing is boxed into the parameters.

A rule is (regular expression over the path name, one mesh axis or None per array axis). The first rule whose expression is found
and whose rank fits decides; a leaf without a rule is split on its largest axis that the fsdp size divides.
"""

import contextlib
import re
from collections.abc import Sequence

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
    # Few activations meet these large kernels. Modulations pass theirs around instead of the kernel: the layer's constraints say so, without
    # which XLA would gather the activations of the whole batch.
    (r"modulation\w*/kernel$", (None, None, "fsdp")),
    (r"modulation\w*/kernel$", (None, "fsdp")),
    (r"time/(in|out)/kernel$", ("fsdp", None)),  # split on its results it would cost just that
)

# Names used by `nn.with_logical_constraint` in the models.
ACTIVATION_RULES = (
    ("batch", ("data", "fsdp")), ("time", None), ("token", None), ("embed", None), ("heads", "tensor"), ("mlp", "tensor"),
    ("gathered_batch", "data"), ("modulation", "fsdp"),
)

_SMALL = 2**16  # elements; below this a leaf is cheaper to replicate than to gather


def spec(name: str, shape: Sequence[int], mesh: jax.sharding.Mesh, *, rules: Sequence[Rule] = TENSOR_RULES,
         small: int = _SMALL) -> jax.sharding.PartitionSpec:
  """The PartitionSpec of one leaf."""
  for pattern, axes in rules:
    if re.search(pattern, name) and len(axes) == len(shape):
      return jax.sharding.PartitionSpec(*(axis if axis and size % mesh.shape[axis] == 0 else None
                                          for axis, size in zip(axes, shape)))
  ways = mesh.shape["fsdp"]
  if ways == 1 or int(np.prod(shape)) < small:
    return jax.sharding.PartitionSpec()
  for axis in np.argsort(shape, kind="stable")[::-1]:
    if shape[axis] % ways == 0:
      return jax.sharding.PartitionSpec(*("fsdp" if i == axis else None for i in range(len(shape))))
  return jax.sharding.PartitionSpec()


def shardings(tree, mesh: jax.sharding.Mesh, *, rules: Sequence[Rule] = TENSOR_RULES, small: int = _SMALL):
  """A NamedSharding for every leaf of a pytree of shapes; optimiser moments get their parameter's, as their path ends alike."""
  def one(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return jax.sharding.NamedSharding(mesh, spec(name, leaf.shape, mesh, rules=rules, small=small))
  return jax.tree_util.tree_map_with_path(one, tree)


def table(params, mesh: jax.sharding.Mesh, **settings) -> dict[str, list]:
  """{path: PartitionSpec as a list}: the golden table of a model's shardings."""
  return {name: list(spec(name, leaf.shape, mesh, **settings)) for name, leaf in trees.flatten(params).items()}


@contextlib.contextmanager
def activations(mesh: jax.sharding.Mesh):
  """Makes the models' logical constraints refer to this mesh, inside a traced function (flax reads the abstract mesh)."""
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(ACTIVATION_RULES):
    yield
