"""A policy's checkpoint: read, and made ready to compute with.

Its record is `policy.json` beside the weights; of an older version it is made from the stored
config.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from como_jax import errors, models, trees, weights
from como_jax.data import policy_spec, policy_upgrade
from como_jax.settings import renames
from como_jax.train import checkpoint

KIND = "policy"
# layers that compute in float32, whatever the model's dtype
FLOAT32 = (r"heads/.*", r"\w+/(motion|action)_output/.*")


@dataclasses.dataclass(frozen=True)
class RestoredPolicy:
  """A model with its parameters on the devices.

  Attributes:
    model: as `models.build` makes it.
    params: its matrices in the dtype that it multiplies in, see `cast_kernels`.
    spec: what stands beside the weights.
    name: for messages.
  """

  model: Any
  params: Mapping[str, Any]
  spec: policy_spec.PolicySpec
  name: str


def restore(
  params: Mapping[str, Any], spec: policy_spec.PolicySpec, *, name: str = "policy"
) -> RestoredPolicy:
  """Builds the model and puts its parameters on the devices; compiles nothing.

  Args:
    params: of the model.
    spec: what stands beside the weights.
    name: named in messages.

  Raises:
    errors.UserError: another kind of model, or parameters of another one.
  """
  model = models.build(dict(spec.model))
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  merged = trees.merge(shapes, params, what=f"checkpoint {name}")
  return RestoredPolicy(
    model, jax.device_put(cast_kernels(merged, model.config["dtype"])), spec, name
  )


def cast_kernels(params: Mapping[str, Any], dtype: str) -> dict[str, Any]:
  """The parameters, with their matrices in the dtype that the model multiplies in.

  The model would round them at every use, and acting on one observation takes as long as reading
  them. Those of `FLOAT32` layers are small and stay as they are.
  """

  def small(name: str) -> bool:
    return name.endswith("/kernel") and not trees.matches(name, FLOAT32)

  return trees.unflatten(
    {
      name: leaf.astype(jnp.dtype(dtype)) if small(name) else leaf
      for name, leaf in trees.flatten(params).items()
    }
  )


def load(path: str) -> tuple[dict[str, Any], policy_spec.PolicySpec]:
  """Parameters and record of a policy: `policy.json` beside them, or an older version's config.

  Raises:
    errors.UserError: nothing there, or another kind of model.
  """
  location = checkpoint.find(path)
  params, config = checkpoint.read(location)
  spec = policy_spec.read(location.config.parent, upgrade=renames.upgrade)
  if spec is None:
    check(config, str(path))
    spec = policy_upgrade.from_config(config)
  return params, spec


def read_spec(run: pathlib.Path) -> policy_spec.PolicySpec | None:
  """The record of a policy's run directory; None where it holds none.

  Raises:
    errors.UserError: it cannot be read.
  """
  spec = policy_spec.read(run, upgrade=renames.upgrade)
  if spec is None and (run / weights.CONFIG).is_file():
    config = weights.read_config(run / weights.CONFIG)
    return policy_upgrade.from_config(config) if "normalization" in config else None
  return spec


def check(config: Mapping[str, Any], name: str) -> None:
  """Raises errors.UserError unless a checkpoint's config is a policy's."""
  kind = config.get("model", {}).get("kind") or config.get("kind", "unknown")
  if kind == KIND and "normalization" not in config:
    raise errors.UserError(
      f"checkpoint {name} is a policy without its {policy_spec.FILE}, which stands beside its "
      "config.json: copy the whole folder"
    )
  if kind != KIND or "normalization" not in config:
    raise errors.UserError(
      f"checkpoint {name} holds a model of kind {kind!r}, a policy is expected"
    )
